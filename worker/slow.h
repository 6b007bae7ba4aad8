/*
 * slow.h: clients that do not keep up, and what becomes of them. This header is the specification.
 *
 * Role:     worker; each decides for its own clients.
 * Owns:     the copies of frames that clients were cut in, out of the worker's pool.
 * Context:  loop thread.
 *
 * SLOW CLIENTS
 * A client whose socket is full is held: it keeps its place in the ring (fanout.h), costs no time
 * until its socket is writable, and then continues. It is slow when it is held below the edge, which
 * is the higher of these two sequences:
 *
 *   pressure  the sequence that would relieve a publisher whose room is used to three quarters
 *             (pressure_seq, ring.h), while room is wanted: something was published since the last
 *             tick, or a publisher waits. Not when the server stops and nothing is to come.
 *   --max-lag so far behind the newest broadcast: N broadcasts (exact), bytes of their frames, or
 *             seconds since they were published (both to 1/64 more, seconds to a tick more); by the
 *             clock of the worker, which notes at each tick what is published.
 *             It applies whether or not room is wanted. 0: only the pressure counts.
 *
 * WHAT HAPPENS (--slow)
 *   close   (default) when a client is first found below the pressure, that sequence becomes its
 *           target: it has --slow-grace to pass it. So a flood goes at the pace of clients that
 *           keep moving, however far behind they are, and a client that does not move a quarter of
 *           the ring in that time is closed. A pause between broadcasts counts towards the grace, but
 *           no client is closed during it. If a client's socket has already accepted nothing for
 *           --slow-grace when it falls below, it is closed at once: so no publisher waits for a
 *           stalled client unless the ring wraps in less than --slow-grace. It is closed with 4008
 *           if its socket still takes a whole Close at a frame boundary, else with a reset, because
 *           after an orderly close the kernel would keep what is unsent. Past --max-lag it is closed
 *           at once.
 *   skip    at once it jumps to the middle between the edge and the newest broadcast, so that a
 *           stalled client jumps once in a while and not with every broadcast.
 *   latest  at once it jumps to the newest broadcast, or past it, to the end of the ring, if even the
 *           newest broadcast is below the edge.
 *   block   nothing: publishers wait until it has read (asleep, wake.h), and what feeds them is not
 *           read. But a held client that has itself sent something for which there is no room would
 *           wait for itself: it is closed as above when that has lasted for --stuck-timeout while
 *           its socket took nothing. --max-lag has no meaning here and is refused.
 *
 * A client that is closing and still due broadcasts (conn_is_due) is slow like any other, and jumps at
 * most to its last one. With close it is reset: its Close is queued, with the code that it has. In all
 * cases it is reset when its socket takes nothing for CONN_CLOSE_TIMEOUT_MS (conn_timeout.h).
 *
 * A WORKER THAT IS STALLED
 * All times are by the worker's clock (run_clock.h), which stands still while the worker does not
 * run. Before a client is closed or jumps, its socket is asked: if it has room, the client is sent
 * what it takes, and only what it lacks then counts. If the client takes something then and a stall
 * has interrupted its grace, the grace begins anew. For --slow-grace after a stall --max-lag is not
 * applied, because all clients of this worker are behind by what was published meanwhile.
 *
 * A FRAME THAT IS HALF OUT
 *
 *                socket full          below the edge, skip or latest
 *   up to date --------------> held ---------------------------------> held further on
 *        ^                      |  |                                     |  `cut`: the rest of
 *        |      writable        |  | has left, or only had its frame     |  the begun frame is
 *        '----------------------'  | to finish before a Close: not held  |  in the copy
 *        ^                         '------------------> cut              |
 *        '---- writable: first the rest, then private frames, then broadcasts from its new place
 *
 * No stream is torn: a client that jumps in mid-frame still gets the rest of that frame, out of a
 * copy. There is one copy of a broadcast for all clients of the worker that were cut in it, and
 * another one for those that are sent its twin (record.h), which has other bytes. It is freed with
 * the last of them. Copies take at most half of the pool, so that they push out no client that reads;
 * a client that needs a copy beyond that is reset instead, and counts as closed.
 *
 * WHAT IS COUNTED
 * For each client, in its record and, when it leaves, in the counters: due = delivered + skipped +
 * undeliverable + not addressed. Skipped is what it jumped over, but for the broadcasts that it made
 * for all others: these stay "not addressed". The frame that it was cut in is delivered when its
 * last byte is out, and undeliverable when it leaves before. slow_skips counts jumps, slow_copies
 * copies, clients_slow_closed and clients_slow_reset ends.
 *
 * The log names a slow client, how far behind it was and what became of it, in at most one line per
 * second (shm/log_summary.h).
 *
 * MEMORY
 * A slow client has its place in the ring, its record and its connection like any other, and a share
 * of at most one copy. What the kernel holds for it is bounded by TCP_NOTSENT_LOWAT and its peer's
 * window.
 */
#ifndef CRIER_WORKER_SLOW_H
#define CRIER_WORKER_SLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "shm/client_rec.h"

struct worker;
struct conn;

enum {
    SLOW_CHUNK = 128,     /* held clients between two turns of the event loop */
    SLOW_FEED_LOOKS = 15, /* so many more does one count for that is sent something */
    SLOW_CUT_LISTS = 256, /* of copies, by sequence */
    SLOW_STEPS = 64,      /* --max-lag in bytes and seconds is accurate to one of them */
    SLOW_MARKS = SLOW_STEPS + 2,
};

LIST_HEAD(slow_cut_list, slow_cut);

/* When `at` bytes had been published, or `at` milliseconds had passed, `seq` was the next broadcast. */
struct slow_mark {
    uint64_t at;
    uint64_t seq;
};

struct slow {
    uint64_t seen_tail; /* at the last tick */
    uint64_t pressure;  /* the same; --slow close */
    size_t to_look;     /* held clients that have not been looked at since */
    uint32_t looked;    /* in this turn of the loop */
    struct slow_cut_list cuts[SLOW_CUT_LISTS];

    struct slow_mark marks[SLOW_MARKS]; /* oldest first, from first_mark on, around */
    uint32_t first_mark;
    uint32_t mark_count;
    uint64_t now; /* in the unit of slow_mark.at: bytes published, or ms */
    uint32_t now_ms;
};

/* Each turn of the loop: applies the policy to a chunk of the held clients. True: call again soon. */
bool slow_run(struct worker *worker);

/* Several times a second: time has passed. */
void slow_tick(struct worker *worker);

/* A sweep over new broadcasts begins. */
void slow_note(struct worker *worker);

/* slow_rest: the bytes of the copy conn->cut that follow the conn->next_done sent ones. slow_rest_sent:
 * the kernel has accepted `bytes` of them. */
const uint8_t *slow_rest(const struct conn *conn, size_t *bytes);
void slow_rest_sent(struct conn *conn, size_t bytes);

/* It will not get the rest. */
void slow_forget(struct conn *conn);

#endif
