/*
 * console.h: each line of standard input is broadcast.
 *
 * Role:     master; publishes as ring member MEMBER_MASTER.
 * Owns:     its events and buffers, and its source (console_source.h), which never blocks the loop.
 *           Descriptor 0 is borrowed. Other processes share its description, so its flags are never
 *           changed.
 * Errors:   negative errno at start. Later a read error ends the input; a line that cannot be
 *           broadcast is reported with its number and skipped.
 * Context:  loop thread. One chunk per turn of the loop.
 *
 *   CONSOLE_CLOSED      not read: not started yet, not wanted, or at its end
 *   CONSOLE_WAITING     for --wait-clients
 *   CONSOLE_READING     waits for input
 *   CONSOLE_FULL        has a line for which the ring has no room: reads nothing until there is room
 *   CONSOLE_BACKGROUND  the terminal belongs to another job: checks again every second
 *   CONSOLE_DISCARDING  the input of a terminal has ended (Ctrl-D): what is typed from then on is read and
 *                       discarded, so that the shell does not get it later; the first line is answered
 *
 * The end of the input is always logged. When it was a pipe or a FIFO, its read end is closed: a process
 * that has it open for writing gets EPIPE, and the next one that opens the FIFO waits in open(2) for a
 * reader (console_source_end).
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
    CONSOLE_DISCARDING,
};

struct console {
    enum console_state state;
    const struct segment *segment;
    struct ring *ring;
    struct console_source source;
    struct event *timer;
    bool at_end;      /* nothing more will be read; what was read may still wait for room */
    bool stopped;     /* by console_stop: an incomplete last line is dropped */
    bool answered;    /* CONSOLE_DISCARDING: the first line */
    bool broken;      /* the input could not be read to its end */
    uint64_t skipped; /* lines, and datagrams, that could not be broadcast */

    char chunk[SOURCE_CHUNK_BYTES];
    size_t chunk_at;
    size_t chunk_end;

    char *line; /* the start of a line that continues in the next chunk */
    size_t line_bytes;
    size_t line_room;
    bool too_long; /* the current line is: the rest of it is skipped */
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

/* Is it a terminal, and do the options ask for a console? */
bool console_reads_terminal(const struct console *console);

/* Call when the first worker is ready: starts reading, if the options ask for a console. */
void console_start(struct console *console);

/* Call when the ring may have room: continues with the line that waits for it. */
void console_go_on(struct console *console);

/* Reads no more. Lines that were read are still published when there is room (console_go_on). */
void console_stop(struct console *console);

/* True when nothing that was read is left to publish, and before console_start. */
static inline bool
console_is_done(const struct console *console)
{
    return console->state == CONSOLE_CLOSED;
}

void console_close(struct console *console);

#endif
