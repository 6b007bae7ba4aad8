/*
 * console.c: chunks to lines to broadcasts.
 *
 * A line that lies whole in a chunk is published from there; only one that goes on in the next
 * chunk is copied, up to --max-message. A line for which the ring has no room stays where it is, and
 * nothing more is read: the process that writes the input blocks in turn.
 */
#define _GNU_SOURCE
#include "server/console.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/console_log.h"
#include "server/limits.h"
#include "shm/log.h"
#include "shm/member.h"
#include "worker/proto/utf8.h"

enum {
    CONSOLE_WAIT_CLIENTS_MS = 50,
    CONSOLE_BACKGROUND_MS = 1000,
};

const char *
console_state_name(enum console_state state)
{
    switch (state) {
    case CONSOLE_CLOSED: return "closed";
    case CONSOLE_WAITING: return "waiting";
    case CONSOLE_READING: return "reading";
    case CONSOLE_FULL: return "full";
    case CONSOLE_BACKGROUND: return "background";
    case CONSOLE_DISCARDING: return "discarding";
    }
    return "unknown";
}

static void
console_change(struct console *console, enum console_state state)
{
    static const struct timeval background = {.tv_sec = CONSOLE_BACKGROUND_MS / 1000};
    static const struct timeval clients = {.tv_usec = CONSOLE_WAIT_CLIENTS_MS * 1000};

    event_del(console->timer);
    console->state = state;
    console_source_watch(&console->source, state == CONSOLE_READING || state == CONSOLE_DISCARDING);
    if (state == CONSOLE_WAITING)
        event_add(console->timer, &clients);
    else if (state == CONSOLE_BACKGROUND)
        event_add(console->timer, &background);
}

/* --- publishing --- */

static uint64_t
console_max_bytes(const struct console *console)
{
    return console->segment->conf->max_message_bytes;
}

static void
console_skip(struct console *console, enum console_fault fault)
{
    console->skipped++;
    console_log_skipped(console->line_number, fault);
}

/* 0: published, or reported and skipped. -EAGAIN: the ring has no room. */
static int
console_publish(struct console *console, const char *line, size_t bytes)
{
    uint64_t seq;
    int rc;

    if (bytes > console_max_bytes(console)) {
        console_skip(console, CONSOLE_TOO_LONG);
        return 0;
    }
    if (!utf8_valid(line, bytes)) {
        console_skip(console, CONSOLE_NOT_UTF8);
        return 0;
    }
    rc = ring_publish(console->ring, RECORD_TEXT, line, bytes, 0, RECORD_NO_ORIGIN, &seq);
    if (rc == -EAGAIN)
        return rc;
    if (rc == 0)
        console_log_broadcast(console->segment, seq, bytes);
    else
        console_skip(console, CONSOLE_DAMAGED);
    return 0;
}

/* --- lines --- */

/* Keeps the start of a line. One byte more than a message may have: it may be the '\r' of the
 * end. */
static void
console_keep(struct console *console, const char *start, size_t bytes)
{
    size_t need = console->line_bytes + bytes;
    size_t room;
    char *line;

    if (console->too_long || bytes == 0)
        return;
    if (need > console_max_bytes(console) + 1) {
        console->too_long = true;
        console->line_bytes = 0;
        return;
    }
    if (need > console->line_room) {
        room = need < console_max_bytes(console) / 2 ? need * 2 : console_max_bytes(console) + 1;
        line = realloc(console->line, room);
        if (!line) {
            console->too_long = true; /* reported as such: there is no room for it here */
            console->line_bytes = 0;
            return;
        }
        console->line = line;
        console->line_room = room;
    }
    memcpy(console->line + console->line_bytes, start, bytes);
    console->line_bytes = need;
}

/* The line is complete with the `bytes` at `start`, the last one a '\n'. -EAGAIN changes nothing
 * but where the line is kept. */
static int
console_end_line(struct console *console, size_t bytes)
{
    const char *line = console->chunk + console->chunk_at;
    size_t line_bytes = bytes - 1;
    int rc = 0;

    if (console->line_bytes || console->too_long) {
        console_keep(console, line, line_bytes);
        console->chunk_at += line_bytes; /* kept: only the '\n' is left, should we come again */
        line = console->line;
        line_bytes = console->line_bytes;
        bytes = 1;
    }
    if (line_bytes && line[line_bytes - 1] == '\r')
        line_bytes--;
    if (console->too_long)
        console_skip(console, CONSOLE_TOO_LONG);
    else
        rc = console_publish(console, line, line_bytes);
    if (rc)
        return rc;
    console->chunk_at += bytes;
    console->line_bytes = 0;
    console->too_long = false;
    console->line_number++;
    return 0;
}

/* What stands behind the last '\n' is a line, too, once the input has ended. */
static int
console_end_last_line(struct console *console)
{
    int rc = 0;

    if (console->stopped || (!console->line_bytes && !console->too_long))
        return 0;
    if (console->too_long)
        console_skip(console, CONSOLE_TOO_LONG);
    else
        rc = console_publish(console, console->line, console->line_bytes);
    if (rc)
        return rc;
    console->line_bytes = 0;
    console->too_long = false;
    return 0;
}

/* Publishes every complete line of the chunk; keeps the rest for the next. */
static int
console_publish_lines(struct console *console)
{
    int rc = 0;

    while (!rc) {
        const char *start = console->chunk + console->chunk_at;
        size_t bytes = console->chunk_end - console->chunk_at;
        const char *newline = memchr(start, '\n', bytes);

        if (!newline) {
            console_keep(console, start, bytes);
            console->chunk_at = console->chunk_end = 0;
            break;
        }
        rc = console_end_line(console, (size_t)(newline - start) + 1);
    }
    if (!rc && console->at_end)
        rc = console_end_last_line(console);
    ring_flush(console->ring);
    return rc;
}

/* The input has ended, and a person may type all the same. */
static bool
console_is_typed(const struct console *console)
{
    return !console->stopped && console_source_is_terminal(&console->source) &&
           !console_source_has_hung_up(&console->source);
}

/* Goes as far as there is room, and into the state that follows. */
static void
console_work(struct console *console)
{
    if (console_publish_lines(console) != 0) {
        console_change(console, CONSOLE_FULL);
    } else if (console->at_end) {
        console_change(console, console_is_typed(console) ? CONSOLE_DISCARDING : CONSOLE_CLOSED);
        console->on_end(console->arg);
    } else if (console->state != CONSOLE_READING) {
        console_change(console, CONSOLE_READING);
    }
}

void
console_go_on(struct console *console)
{
    if (console->state == CONSOLE_FULL)
        console_work(console);
}

/* --- reading --- */

static bool
console_is_background(void)
{
    pid_t group = tcgetpgrp(STDIN_FILENO);

    return group > 0 && group != getpgrp();
}

/* No more is read, for the reason `why` unless it is the end. A line that has no room yet is still
 * published. */
static void
console_end(struct console *console, const char *why)
{
    console->at_end = true;
    console_source_end(&console->source);
    (void)console_publish_lines(console); /* a last line without '\n' is logged before the end */
    console_log_end(console->segment, why);
    console_work(console);
}

static void
console_read_failed(struct console *console, int error)
{
    if (error == ECANCELED) {
        console->at_end = console->stopped = true;
        console_work(console);
    } else if (error == EIO && console_is_background()) {
        console_change(console, CONSOLE_BACKGROUND);
    } else {
        console->broken = true;
        console_end(console, strerror(error));
    }
}

/* Typed after the end of the input. */
static void
console_discard(struct console *console, ssize_t bytes)
{
    if (bytes > 0 && !console->answered) {
        console->answered = true;
        log_warnx("standard input has ended: this line is not sent, nor is any other");
    } else if (bytes == -EIO && console_is_background()) {
        console_change(console, CONSOLE_BACKGROUND);
    } else if (bytes <= 0 && (bytes < 0 || console_source_has_hung_up(&console->source))) {
        console_change(console, CONSOLE_CLOSED);
    } else if (bytes == 0) {
        console_change(console, CONSOLE_DISCARDING); /* Ctrl-D once more */
    }
}

static void
console_read(evutil_socket_t fd, short events, void *arg)
{
    struct console *console = arg;
    ssize_t bytes = console_source_read(&console->source, console->chunk);

    (void)fd;
    (void)events;
    if (bytes == -EAGAIN)
        return;
    if (bytes == -EMSGSIZE) {
        console->skipped++;
        console_log_long_datagram(SOURCE_CHUNK_BYTES);
        return;
    }
    if (console->state == CONSOLE_DISCARDING) {
        console_discard(console, bytes);
        return;
    }
    if (bytes < 0) {
        console_read_failed(console, (int)-bytes);
        return;
    }
    console->chunk_at = 0;
    console->chunk_end = (size_t)bytes;
    if (bytes > 0)
        console_work(console);
    else
        console_end(console, NULL);
}

static void
console_look_again(evutil_socket_t fd, short events, void *arg)
{
    struct console *console = arg;
    bool wait = console->state == CONSOLE_WAITING
                    ? member_clients_open(console->segment) < console->segment->conf->wait_clients
                    : console_is_background();

    (void)fd;
    (void)events;
    if (wait)
        console_change(console, console->state);
    else
        console_change(console, console->at_end ? CONSOLE_DISCARDING : CONSOLE_READING);
}

/* --- start and end --- */

static bool
console_is_wanted(const struct conf_shm *conf)
{
    if (conf->console == CONF_CONSOLE_OFF)
        return false;
    if (conf->console == CONF_CONSOLE_ON || conf->exit_on_eof)
        return true;
    return !inherited_is_dev_null(STDIN_FILENO);
}

int
console_open(struct console *console, struct event_base *base, const struct segment *segment,
             struct ring *ring, void (*on_end)(void *arg), void *arg)
{
    int rc;

    memset(console, 0, sizeof(*console));
    console->segment = segment;
    console->ring = ring;
    console->line_number = 1;
    console->on_end = on_end;
    console->arg = arg;
    console->timer = event_new(base, -1, 0, console_look_again, console);
    if (!console->timer)
        return -ENOMEM;
    rc = console_source_open(&console->source, base, console_read, console);
    if (!rc && console_is_wanted(segment->conf))
        limits_set_missing(LIMITS_THREADS, console_source_has_thread(&console->source));
    return rc;
}

bool
console_reads_terminal(const struct console *console)
{
    return console_is_wanted(console->segment->conf) &&
           console_source_is_terminal(&console->source);
}

void
console_start(struct console *console)
{
    const struct conf_shm *conf = console->segment->conf;

    if (!console_is_wanted(conf))
        return;
    if (conf->wait_clients)
        console_log_waiting(console->segment);
    console_change(console, conf->wait_clients ? CONSOLE_WAITING : CONSOLE_READING);
}

void
console_stop(struct console *console)
{
    if (console->state == CONSOLE_CLOSED || (console->at_end && console->state == CONSOLE_FULL))
        return;
    if (console->at_end) { /* what is typed is discarded */
        (void)console_source_stop(&console->source);
        console_change(console, CONSOLE_CLOSED);
        return;
    }
    if (console_source_stop(&console->source)) {
        if (console->state == CONSOLE_READING)
            console_change(console, CONSOLE_READING); /* what the source still has is read soon */
        return;
    }
    console->stopped = true;
    console->at_end = true;
    if (console->state != CONSOLE_FULL)
        console_change(console, CONSOLE_CLOSED);
}

void
console_close(struct console *console)
{
    console_source_close(&console->source);
    if (console->timer)
        event_free(console->timer);
    free(console->line);
    memset(console, 0, sizeof(*console));
}
