#define _GNU_SOURCE
#include "shm/util/log_out.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/util/await.h"
#include "shm/util/inbox.h"
#include "shm/util/inherited.h"
#include "shm/util/log_stamp.h"
#include "shm/util/program.h"
#include "shm/util/thread.h"

enum {
    LOG_OUT_NOTE_BYTES = 64 + LOG_STAMP_BYTES + PROGRAM_NAME_BYTES,
    LOG_OUT_STACK_BYTES = 64 * 1024,
};

struct log_text {
    struct inbox_entry entry;
    uint32_t noted; /* dropped lines that the note stands for */
    size_t note_bytes;
    size_t bytes; /* with the note before it */
    char text[];
};

static struct {
    bool is_open;
    bool is_child;
    bool has_thread;
    struct inherited to;
    uint32_t dropped; /* lines, since the last note; the thread counts as well */

    char queue[LOG_OUT_QUEUE_BYTES]; /* without a thread: lines, the first perhaps a rest */
    size_t queued;

    struct inbox inbox; /* the thread's */
    bool is_cut;        /* the last line was written only in part; the thread's */
} out;

static bool
out_is_threaded(void)
{
    return out.to.kind == INHERITED_BLOCKING && !out.is_child;
}

static void
out_open_inbox(void)
{
    if (out_is_threaded() && inbox_init(&out.inbox, LOG_OUT_QUEUE_BYTES) != 0)
        out.is_child = true; /* no descriptor is left: lines are written directly */
}

void
log_out_open(void)
{
    if (out.is_open)
        return;
    out.is_open = true;
    out.to = inherited_open(STDERR_FILENO, O_WRONLY);
    out_open_inbox();
}

/* "TIME crier: 3 lines of log were dropped\n", or nothing. Returns its length; `lines` is what it stands
 * for. */
static size_t
out_note(char note[LOG_OUT_NOTE_BYTES], uint32_t *lines)
{
    size_t used;

    *lines = atomic_load_relaxed(&out.dropped);
    if (*lines == 0)
        return 0;
    used = log_stamp(note);
    return used + (size_t)snprintf(note + used, LOG_OUT_NOTE_BYTES - used,
                                   "%s: %" PRIu32 " lines of log were dropped\n", program_name(),
                                   *lines);
}

/* How many lines are lost with this one: a note stands for several. */
static uint32_t
out_lines_of(const char *line, size_t bytes)
{
    char note[LOG_OUT_NOTE_BYTES];
    char stamp[LOG_STAMP_BYTES];
    size_t stamp_bytes = log_stamp(stamp); /* always of one length */
    uint32_t lines;

    if (bytes < stamp_bytes || bytes >= sizeof(note))
        return 1;
    memcpy(note, line, bytes);
    note[bytes] = '\0';
    return sscanf(note + stamp_bytes, "%*[^:[]: %" SCNu32 " lines of log", &lines) == 1 ? lines : 1;
}

/* --- where writing waits: the thread, and a process that has no other way --- */

/* False when not all of it was written. A description that another process made non-blocking is waited for. */
static bool
out_write_all(const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t put = inherited_write(&out.to, text, bytes);
        if (put == -EAGAIN) {
            if (out.is_child)
                return false;
            await_fd(out.to.fd, POLLOUT, -1);
        } else if (put >= 0) {
            text += put;
            bytes -= (size_t)put;
            out.is_cut = bytes > 0;
        } else if (put != -EINTR) {
            return false; /* a full disk, a limit, a reader that has gone */
        }
    }
    return true;
}

/* After a line that was written only in part, a line feed comes first. */
static bool
out_write_whole(const char *text, size_t bytes)
{
    if (bytes == 0)
        return true;
    if (out.is_cut && !out_write_all("\n", 1))
        return false;
    return out_write_all(text, bytes);
}

/* The last of the queue is followed by the note, so that it does not wait for another line. */
static void
out_write_entry(const struct log_text *text, bool is_last)
{
    char note[LOG_OUT_NOTE_BYTES];
    uint32_t lines;
    size_t bytes;

    if (!out_write_whole(text->text, text->note_bytes)) {
        (void)atomic_fetch_add(&out.dropped, text->noted + 1);
        return;
    }
    if (!out_write_whole(text->text + text->note_bytes, text->bytes - text->note_bytes)) {
        (void)atomic_fetch_add(&out.dropped, 1U);
        return;
    }
    bytes = is_last ? out_note(note, &lines) : 0;
    if (bytes && out_write_whole(note, bytes))
        (void)atomic_fetch_sub(&out.dropped, lines);
}

static void
out_take_one(struct inbox_entry *entry)
{
    out_write_entry((struct log_text *)entry, inbox_bytes(&out.inbox) == entry->bytes);
    inbox_free(&out.inbox, entry);
}

static void *
out_run(void *arg)
{
    struct inbox_entry *entry;

    while ((entry = inbox_await(&out.inbox, -1)))
        out_take_one(entry);
    return arg;
}

/* A start that fails, without memory or at the limit of processes, is retried with the next line or tick. */
static void
out_start_thread(void)
{
    if (!out.has_thread)
        out.has_thread = thread_start(out_run, LOG_OUT_STACK_BYTES) == 0;
}

/* --- two queues: bytes that the loop writes, and an inbox --- */

static bool
out_push_entry(const char *text, size_t bytes, size_t note_bytes, uint32_t noted, size_t limit)
{
    struct log_text *entry;

    if (inbox_bytes(&out.inbox) + bytes > limit)
        return false;
    entry = malloc(sizeof(*entry) + bytes);
    if (!entry)
        return false;
    entry->noted = noted;
    entry->note_bytes = note_bytes;
    entry->bytes = bytes;
    memcpy(entry->text, text, bytes);
    if (inbox_put(&out.inbox, &entry->entry, bytes) == 0)
        return true;
    free(entry);
    return false;
}

/* The kernel is too old for INHERITED_NOWAIT. */
static void
out_turn_to_thread(void)
{
    out.to.kind = INHERITED_BLOCKING;
    out_open_inbox();
    if (out_is_threaded() && out_push_entry(out.queue, out.queued, 0, 0, LOG_OUT_QUEUE_BYTES))
        out.queued = 0;
}

static void
out_write_queue(void)
{
    while (out.queued > 0) {
        const char *end = memchr(out.queue, '\n', out.queued);
        size_t bytes = end ? (size_t)(end - out.queue) + 1 : out.queued;
        ssize_t put = inherited_write(&out.to, out.queue, bytes); /* a line: whole in a pipe */

        if (put == -EAGAIN)
            return;
        if (put == -EINTR)
            continue;
        if (put == -EOPNOTSUPP && out.to.kind == INHERITED_NOWAIT) {
            out_turn_to_thread();
            return;
        }
        if (put < 0) {
            (void)atomic_fetch_add(&out.dropped, out_lines_of(out.queue, bytes));
            put = (ssize_t)bytes;
        }
        out.queued -= (size_t)put;
        memmove(out.queue, out.queue + put, out.queued);
    }
}

static bool
out_push_bytes(const char *text, size_t bytes, size_t limit)
{
    if (out.queued + bytes > limit)
        return false;
    memcpy(out.queue + out.queued, text, bytes);
    out.queued += bytes;
    return true;
}

void
log_out_put(const char *line, size_t bytes, bool is_minor)
{
    char text[LOG_OUT_NOTE_BYTES + LOG_OUT_LINE_BYTES];
    size_t limit = is_minor ? LOG_OUT_QUEUE_BYTES / 2 : LOG_OUT_QUEUE_BYTES;
    uint32_t noted;
    size_t used;
    bool taken;

    log_out_open();
    if (out.is_child) {
        (void)out_write_whole(line, bytes);
        return;
    }
    used = out_note(text, &noted);
    memcpy(text + used, line, bytes);
    used += bytes;
    if (out_is_threaded()) {
        taken = out_push_entry(text, used, used - bytes, noted, limit);
    } else {
        out_write_queue();
        taken = out_push_bytes(text, used, limit);
    }
    if (taken)
        (void)atomic_fetch_sub(&out.dropped, noted);
    else
        (void)atomic_fetch_add(&out.dropped, 1U);
    log_out_retry();
}

bool
log_out_is_waiting(void)
{
    return out.is_open && !out_is_threaded() &&
           (out.queued > 0 || atomic_load_relaxed(&out.dropped) > 0);
}

bool
log_out_lacks_thread(void)
{
    log_out_open();
    return out_is_threaded() && !out.has_thread;
}

void
log_out_retry(void)
{
    char note[LOG_OUT_NOTE_BYTES];
    uint32_t lines;
    size_t bytes;

    if (out.is_open && out_is_threaded() && inbox_bytes(&out.inbox) > 0)
        out_start_thread();
    if (!log_out_is_waiting())
        return;
    out_write_queue();
    if (out.queued > 0)
        return;
    bytes = out_note(note, &lines);
    if (bytes && inherited_write(&out.to, note, bytes) == (ssize_t)bytes)
        (void)atomic_fetch_sub(&out.dropped, lines);
}

/* --- the end --- */

void
log_out_finish(int timeout_ms)
{
    uint64_t end_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;
    struct inbox_entry *entry;

    if (out.is_open && out_is_threaded()) {
        if (out.has_thread)
            (void)inbox_flush(&out.inbox, timeout_ms);
        while (!out.has_thread && (entry = inbox_take(&out.inbox)))
            out_take_one(entry);
        return;
    }
    for (;;) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        log_out_retry();
        if (out.queued == 0 || now_ns >= end_ns)
            return;
        await_fd(out.to.fd, POLLOUT, (int)((end_ns - now_ns) / 1000000) + 1);
    }
}

void
log_out_child(void)
{
    if (out.is_open)
        inherited_close(&out.to);
    out.is_open = false;
    out.is_child = true;
    out.is_cut = false;
}
