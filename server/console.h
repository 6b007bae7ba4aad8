/*
 * console.h: each line of standard input is broadcast.
 *
 * Role:     master; publishes as ring member MEMBER_MASTER.
 * Owns:     its events and buffers, and its source (console_source.h), which never makes the loop wait.
 *           Descriptor 0 is borrowed, and its description shared with other processes: its flags are never
 *           changed.
 * Errors:   negative errno at start. Later: what cannot be read ends the console; a line that
 *           cannot be broadcast is reported with its number and skipped.
 * Context:  loop thread. One chunk per turn of the loop.
 *
 *   CONSOLE_CLOSED      not read: not started yet, not wanted, or at its end
 *   CONSOLE_WAITING     for --wait-clients
 *   CONSOLE_READING     waits for input
 *   CONSOLE_FULL        has a line that the ring has no room for: reads no more meanwhile
 *   CONSOLE_BACKGROUND  the terminal belongs to another job: looks again every second
 */
#ifndef CRIER_SERVER_CONSOLE_H
#define CRIER_SERVER_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>

#include "server/console_source.h"
#include "shm/ring.h"
#include "shm/segment.h"

enum console_state {
    CONSOLE_CLOSED,
    CONSOLE_WAITING,
    CONSOLE_READING,
    CONSOLE_FULL,
    CONSOLE_BACKGROUND,
};

struct console {
    enum console_state state;
    const struct segment *segment;
    struct ring *ring;
    struct console_source source;
    struct event *timer;
    bool at_end;  /* nothing more will be read; what was read may still wait for room */
    bool stopped; /* by console_stop: what is left of the last line is no line */

    char chunk[SOURCE_CHUNK_BYTES];
    size_t chunk_at;
    size_t chunk_end;

    char *line; /* the start of a line that goes on in the next chunk */
    size_t line_bytes;
    size_t line_room;
    bool too_long; /* the line is, and what is left of it is skipped */
    uint64_t line_number;

    void (*on_end)(void *arg);
    void *arg;
};

const char *console_state_name(enum console_state state);

/* Prepares; reads nothing. `on_end` is called from the loop once all input has been published.
 * `segment` and `ring` are borrowed. */
int console_open(struct console *console, struct event_base *base, const struct segment *segment,
                 struct ring *ring, void (*on_end)(void *arg), void *arg)
    __attribute__((warn_unused_result));

/* A worker can serve: reads from now on, as the options in the segment say. */
void console_start(struct console *console);

/* There may be room in the ring. */
void console_go_on(struct console *console);

/* Reads no more; the lines that were read are still published, as room comes (console_go_on). */
void console_stop(struct console *console);

/* Everything that was read has been published. */
static inline bool
console_is_done(const struct console *console)
{
    return console->state == CONSOLE_CLOSED;
}

void console_close(struct console *console);

#endif
