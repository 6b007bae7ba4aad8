/*
 * console_source.h: the bytes of standard input, without waiting for them.
 *
 * Role:     master.
 * Owns:     its events, the description of its own that inherited.h may have made of descriptor 0, and for
 *           INHERITED_BLOCKING a thread. Descriptor 0 itself is borrowed.
 * Lifetime: once per process: the thread may be blocked in read for ever and is never waited for, so
 *           what it uses is static.
 * Errors:   negative errno.
 * Context:  loop thread.
 *
 * The thread reads chunks and puts them into an inbox whose consumer is the loop. The inbox holds
 * SOURCE_AHEAD_BYTES; when it is full the thread waits, and with it whatever writes the input. The thread
 * blocks all signals and logs nothing. It is started by the first console_source_watch; while it cannot be
 * started, that is tried each second.
 *
 * console_source_stop decides with one compare-and-swap whether what the thread is reading belongs to
 * the input: a read that returned before belongs to it, and is delivered; one that returns later does not,
 * and its bytes are dropped.
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

struct source_chunk;

struct console_source {
    struct inherited input;
    struct event *readable; /* the input, or the eventfd of the inbox */
    struct event *again;    /* in the next turn of the loop, or after a pause */
    bool is_sure;           /* poll will tell the end of the input */
    bool is_cut;       /* stopped while the thread was in read: nothing comes after the inbox */
    bool lacks_thread; /* none could be started: `again` tries it */
    bool is_logged;

    struct source_chunk *chunk; /* the thread's, taken out of the inbox */
    size_t chunk_at;
};

/* `on_readable` is called from the loop while the source is watched, and calls console_source_read once. */
int console_source_open(struct console_source *source, struct event_base *base,
                        void (*on_readable)(evutil_socket_t fd, short events, void *arg), void *arg)
    __attribute__((warn_unused_result));

/* Does it read with a thread? */
bool console_source_has_thread(const struct console_source *source);

void console_source_watch(struct console_source *source, bool on);

/* Up to SOURCE_CHUNK_BYTES. 0: the end of the input. -EAGAIN: nothing now. -ECANCELED: stopped, and everything
 * that belongs to the input has been returned. -EMSGSIZE: a longer datagram, which is lost; the input goes on. */
ssize_t console_source_read(struct console_source *source, char *data);

/* Reads no more. True: bytes that were read are still to come, up to -ECANCELED or an end. */
bool console_source_stop(struct console_source *source);

void console_source_close(struct console_source *source);

#endif
