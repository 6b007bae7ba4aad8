#define _GNU_SOURCE
#include "server/console_source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/limits.h"
#include "shm/atomic.h"
#include "shm/log.h"
#include "shm/util/await.h"
#include "shm/util/inbox.h"
#include "shm/util/thread.h"

enum { SOURCE_STACK_BYTES = 128 * 1024, SOURCE_TRY_AGAIN_MS = 1000 };

/* Where the thread is; it and console_source_stop change it by compare-and-swap. */
enum source_turn {
    SOURCE_IDLE,    /* there is no thread */
    SOURCE_READING, /* in read, or about to be */
    SOURCE_HOLDING, /* has read something that is not in the inbox yet, or has put its last */
    SOURCE_STOPPED,
};

struct source_chunk {
    struct inbox_entry entry;
    ssize_t got; /* as inherited_read returns it; the thread ends with one that is not positive */
    char data[];
};

static struct source_reader {
    uint32_t turn; /* enum source_turn */
    struct inbox inbox;
    struct inherited input;
    struct source_chunk *last; /* allocated before the thread starts: its last word never fails */
} reader;

/* --- the thread --- */

/* Waits. A description that another process has made non-blocking is waited for all the same. */
static ssize_t
source_read(char *data)
{
    for (;;) {
        ssize_t got = inherited_read(&reader.input, data, SOURCE_CHUNK_BYTES);
        if (got == -EAGAIN)
            await_fd(reader.input.fd, POLLIN, -1);
        else if (got != -EINTR)
            return got;
    }
}

/* The next chunk, no larger than what is in it; NULL without memory. */
static struct source_chunk *
source_read_chunk(void)
{
    struct source_chunk *chunk = malloc(sizeof(*chunk) + SOURCE_CHUNK_BYTES);
    struct source_chunk *small;

    if (!chunk)
        return NULL;
    chunk->got = source_read(chunk->data);
    small = realloc(chunk, sizeof(*chunk) + (chunk->got > 0 ? (size_t)chunk->got : 0));
    if (small)
        chunk = small;
    return chunk;
}

/* No bytes: there is always room. */
static void
source_end(ssize_t got)
{
    reader.last->got = got;
    if (inbox_put(&reader.inbox, &reader.last->entry, 0) != 0)
        free(reader.last);
}

static void *
source_run(void *arg)
{
    for (;;) {
        struct source_chunk *chunk = source_read_chunk();
        ssize_t got = chunk ? chunk->got : -ENOMEM;

        if (!atomic_cas_u32(&reader.turn, SOURCE_READING, SOURCE_HOLDING)) {
            free(chunk);
            free(reader.last);
            return arg;
        }
        if (got <= 0) {
            free(chunk);
            source_end(got);
            return arg;
        }
        if (inbox_wait_put(&reader.inbox, &chunk->entry, (uint64_t)got, -1) != 0) {
            free(chunk); /* console_source_close */
            free(reader.last);
            return arg;
        }
        if (!atomic_cas_u32(&reader.turn, SOURCE_HOLDING, SOURCE_READING)) {
            source_end(-ECANCELED);
            return arg;
        }
    }
}

static int
source_start_thread(void)
{
    int rc;

    reader.last = malloc(sizeof(*reader.last));
    if (!reader.last)
        return -ENOMEM;
    atomic_store_release(&reader.turn, (uint32_t)SOURCE_READING);
    rc = thread_start(source_run, SOURCE_STACK_BYTES);
    if (rc) {
        atomic_store_release(&reader.turn, (uint32_t)SOURCE_IDLE);
        free(reader.last);
    }
    return rc;
}

/* --- the loop --- */

bool
console_source_has_thread(const struct console_source *source)
{
    return source->input.kind == INHERITED_BLOCKING || source->input.kind == INHERITED_INSTANT;
}

int
console_source_open(struct console_source *source, struct event_base *base,
                    void (*on_readable)(evutil_socket_t fd, short events, void *arg), void *arg)
{
    int fd;
    int rc;

    *source = (struct console_source){.input = inherited_open(STDIN_FILENO, O_RDONLY)};
    fd = source->input.fd;
    source->is_sure = source->input.type != S_IFIFO;
    if (console_source_has_thread(source)) {
        reader.input = source->input;
        rc = inbox_init(&reader.inbox, SOURCE_AHEAD_BYTES);
        if (rc)
            return rc;
        fd = inbox_fd(&reader.inbox);
    }
    source->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, arg);
    source->again = event_new(base, -1, 0, on_readable, arg);
    return source->readable && source->again ? 0 : -ENOMEM;
}

static void
source_look_again(struct console_source *source)
{
    static const struct timeval now = {0};

    event_add(source->again, &now);
}

/* The limit of processes counts threads. It may be reached only for a while, so the start is retried. */
static void
source_try_thread(struct console_source *source)
{
    static const struct timeval later = {.tv_sec = SOURCE_TRY_AGAIN_MS / 1000};
    int rc = source_start_thread();
    char why[LIMITS_WHY_BYTES];

    source->lacks_thread = rc != 0;
    limits_set_missing(LIMITS_THREADS, source->lacks_thread);
    if (!rc) {
        source_look_again(source);
        return;
    }
    if (!source->is_logged)
        log_warnx("cannot start a thread that reads standard input, trying again: %s",
                  limits_explain_fork(-rc, why));
    source->is_logged = true;
    event_add(source->again, &later);
}

/* The kernel may refuse to watch it (fs.epoll.max_user_watches), which is retried. */
static void
source_watch_readable(struct console_source *source)
{
    static const struct timeval later = {.tv_sec = SOURCE_TRY_AGAIN_MS / 1000};

    if (event_add(source->readable, NULL) != 0)
        event_add(source->again, &later);
}

void
console_source_watch(struct console_source *source, bool on)
{
    event_del(source->readable);
    event_del(source->again);
    if (!on)
        return;
    source_watch_readable(source);
    if (console_source_has_thread(source) || !source->is_sure)
        source_look_again(source);
    if (console_source_has_thread(source) && atomic_load_acquire(&reader.turn) == SOURCE_IDLE)
        source_try_thread(source);
}

/* A FIFO that had no writer when it was opened again reads as ended, but poll does not report that before
 * a writer has opened and closed it (the kernel's fifo_open; fifo(7) does not mention it). So it is read
 * without poll until a read returns -EAGAIN, which proves that a writer is there; from then on poll
 * reports the end. */
static ssize_t
source_read_own(struct console_source *source, char *data)
{
    ssize_t got = inherited_read(&source->input, data, SOURCE_CHUNK_BYTES);

    if (got == -EINTR)
        got = -EAGAIN;
    else if (got == -EAGAIN)
        source->is_sure = true;
    if (!source->is_sure && (got > 0 || got == -EAGAIN))
        source_look_again(source);
    return got;
}

static ssize_t
source_take(struct console_source *source, char *data)
{
    struct inbox_entry *entry;
    struct source_chunk *chunk;
    ssize_t got;

    if (source->lacks_thread) {
        source_try_thread(source);
        return -EAGAIN;
    }
    inbox_clear(&reader.inbox);
    entry = inbox_take(&reader.inbox);
    if (!entry)
        return source->is_cut ? -ECANCELED : -EAGAIN;
    chunk = (struct source_chunk *)entry;
    got = chunk->got;
    if (got > 0) {
        memcpy(data, chunk->data, (size_t)got);
        source_look_again(source);
    } else {
        (void)atomic_cas_u32(&reader.turn, SOURCE_HOLDING, SOURCE_IDLE);
    }
    inbox_free(&reader.inbox, entry);
    return got;
}

ssize_t
console_source_read(struct console_source *source, char *data)
{
    if (!event_pending(source->readable, EV_READ, NULL))
        source_watch_readable(source);
    return console_source_has_thread(source) ? source_take(source, data)
                                             : source_read_own(source, data);
}

/* The descriptor that is closed first makes room for the one that is opened. */
void
console_source_end(struct console_source *source)
{
    int null;

    console_source_watch(source, false);
    if (source->input.type != S_IFIFO)
        return;
    inherited_close(&source->input);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        log_warn("cannot open /dev/null in the place of the pipe that was standard input; what is "
                 "still written to it is lost");
    if (null >= 0)
        close(null);
}

bool
console_source_is_terminal(const struct console_source *source)
{
    return source->input.type == S_IFCHR && inherited_is_terminal(STDIN_FILENO);
}

bool
console_source_has_hung_up(const struct console_source *source)
{
    struct pollfd input = {.fd = source->input.fd};

    return poll(&input, 1, 0) == 1 && (input.revents & POLLHUP);
}

bool
console_source_stop(struct console_source *source)
{
    if (!console_source_has_thread(source))
        return false;
    if (atomic_cas_u32(&reader.turn, SOURCE_READING, SOURCE_STOPPED)) {
        source->is_cut = true;
        if (inbox_bytes(&reader.inbox) == 0)
            return false;
    } else if (!atomic_cas_u32(&reader.turn, SOURCE_HOLDING, SOURCE_STOPPED)) {
        return false; /* no thread has been started, or the last one has ended */
    }
    return true;
}

void
console_source_close(struct console_source *source)
{
    if (source->readable)
        event_free(source->readable);
    if (source->again)
        event_free(source->again);
    if (source->readable && console_source_has_thread(source))
        inbox_close(&reader.inbox);
    inherited_close(&source->input);
    *source = (struct console_source){.input.fd = -1};
}
