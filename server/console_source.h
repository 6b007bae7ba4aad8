/*
 * console_source.h: reads the bytes of standard input without blocking the loop.
 *
 * Role:     master.
 * Owns:     its events, the struct inherited of descriptor 0, and for INHERITED_BLOCKING and
 *           INHERITED_INSTANT a thread. Descriptor 0 itself is borrowed.
 * Lifetime: one per process. The thread may be blocked in read(2) for ever and is never joined, so what it
 *           uses is static.
 * Errors:   negative errno.
 * Context:  loop thread.
 *
 * The thread reads chunks and puts them into an inbox whose consumer is the loop. The inbox holds
 * SOURCE_AHEAD_BYTES; when it is full the thread waits, and so does a process that writes the input. The
 * thread blocks all signals and logs nothing. The first console_source_watch starts it; if that fails,
 * the start is retried each second.
 *
 * console_source_stop decides with one compare-and-swap whether the thread's current read belongs to the
 * input: the bytes of a read that returned earlier are delivered; those of a read that returns later are
 * dropped.
 */
#ifndef CRIER_SERVER_CONSOLE_SOURCE_H
#define CRIER_SERVER_CONSOLE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <event2/event.h>

#include "shm/util/inherited.h"

enum {
    SOURCE_CHUNK_BYTES = 64 * 1024,
    SOURCE_AHEAD_BYTES = 4 * SOURCE_CHUNK_BYTES,
};

struct console_source {
    struct inherited input;
    struct event *readable; /* the input, or the eventfd of the inbox */
    struct event *again;    /* in the next turn of the loop, or after a pause */
    bool is_sure;           /* poll reports the end of the input: source_read_own */
    bool is_cut;            /* stopped during the thread's read: the input ends with the inbox */
    bool lacks_thread;      /* it could not be started: `again` retries */
    bool is_logged;         /* the failed start */
};

/* `on_readable` is called from the loop while the source is watched, and calls console_source_read once. */
int console_source_open(struct console_source *source, struct event_base *base,
                        void (*on_readable)(evutil_socket_t fd, short events, void *arg), void *arg)
    __attribute__((warn_unused_result));

/* True if a thread reads. */
bool console_source_has_thread(const struct console_source *source);

void console_source_watch(struct console_source *source, bool on);

/* Reads up to SOURCE_CHUNK_BYTES. 0: the end of the input. -EAGAIN: nothing now. -ECANCELED: stopped, and
 * all bytes that belong to the input have been returned. -EMSGSIZE: a longer datagram was received and is
 * lost; the input continues. */
ssize_t console_source_read(struct console_source *source, char *data);

/* Call when the input has ended. A pipe or FIFO is closed, and /dev/null takes the place of descriptor 0:
 * whatever is written from then on would be lost, and the process that writes it would not know. What a
 * process writes between the read that found the end and this call is lost with it. */
void console_source_end(struct console_source *source);

/* The input is a terminal; it may end more than once. */
bool console_source_is_terminal(const struct console_source *source);

/* A terminal whose other end is gone: it ends again and again. */
bool console_source_has_hung_up(const struct console_source *source);

/* Starts no more reads. True: call console_source_read until it returns -ECANCELED, 0 or an error, for the
 * bytes that were already read. */
bool console_source_stop(struct console_source *source);

void console_source_close(struct console_source *source);

#endif
