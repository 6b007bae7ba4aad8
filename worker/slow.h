/*
 * slow.h: clients that do not keep up, and what becomes of them. This header is the specification.
 *
 * Role:     worker; each decides for its own clients.
 * Owns:     the copies of frames that clients were cut in, out of the worker's pool.
 * Context:  loop thread.
 *
 * WHO IS SLOW
 * A client whose socket is full is held: it keeps its place in the ring (fanout.h), costs nobody
 * anything, and goes on when its socket is writable. It is slow when it is held below the edge, the
 * later of these two:
 *
 *   pressure  the sequence that would relieve a publisher whose room is used to three quarters
 *             (pressure_seq, ring.h), while room is wanted: something was published since the last
 *             tick, or a publisher waits. Not when the server stops and nothing is to come.
 *   --max-lag so far behind the newest broadcast: N broadcasts (exact), bytes of their frames, or
 *             seconds since they were published (both to 1/64 more, seconds to a tick more); by the
 *             clock of the worker, which notes at each tick what is published.
 *             Whether or not room is wanted. 0: the pressure alone.
 *
 * WHAT HAPPENS (--slow)
 *   close   (default) below the pressure it has --slow-grace to get past the very sequence that was
 *           the pressure when it was first seen below. So a flood goes at the pace of clients that
 *           keep moving, however far behind they are, and who does not move a quarter of the ring
 *           in that time is closed; a pause between broadcasts counts, but nobody is closed in it.
 *           Whose socket has taken nothing for that long before is closed as soon as it is below:
 *           unless the ring goes round faster than that, nobody waits for who stands still.
 *           4008 where its socket still takes a whole Close at a frame boundary, else a reset,
 *           because after an orderly close the kernel would keep what is unsent. Past --max-lag it
 *           is closed at once.
 *   skip    at once it jumps to the middle between the edge and the newest broadcast, so that a
 *           client that stands still jumps once in a while and not with every broadcast.
 *   latest  at once it jumps to the newest broadcast, or behind it when even that is below the edge.
 *   block   nothing: publishers wait until it has read (asleep, wake.h), and what feeds them is not
 *           read. But a held client that has itself sent something for which there is no room would
 *           wait for itself: it is closed as above when that has lasted for --stuck-timeout while
 *           its socket took nothing. --max-lag has no meaning here and is refused.
 *
 * A WORKER THAT IS STALLED
 * All times are by the worker's clock (run_clock.h), which stands still while the worker does not
 * run. Before a client is closed or jumps, its socket is asked: if it has room, the client is sent
 * what it takes, and only what it lacks then counts. A client that has taken something so, and whose
 * grace was interrupted by a stall, gets the whole grace once more. For --slow-grace after a stall
 * --max-lag is not applied: whatever was published meanwhile, all clients of this worker are behind by
 * that.
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
 * Nobody's stream is torn: who jumps with a frame half out gets its rest, out of a copy. There is
 * one copy of a broadcast for all clients of the worker that were cut in it, and another one for
 * those that are sent its twin (record.h), which has other bytes. It is freed with the last of
 * them. Copies take at most half of the pool, so that they do not push out those who read; who needs
 * one beyond that is reset instead, and counts as closed.
 *
 * WHAT IS COUNTED
 * For each client, in its record and, when it leaves, in the counters: due = delivered + skipped +
 * undeliverable + not addressed. Skipped is what it jumped over, but for its own broadcasts that go
 * to everybody else: these stay "not addressed". The frame that it was cut in is delivered when its
 * last byte is out, and undeliverable when it leaves before. slow_skips counts jumps, slow_copies
 * copies, clients_slow_closed and clients_slow_reset ends.
 *
 * The log names a slow client, how far behind it was and what became of it, at most once a second,
 * and how often something became of one besides since the line before.
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
    SLOW_NEWS_MS = 1000, /* between two lines in the log */
};

LIST_HEAD(slow_cut_list, slow_cut);

/* When so many bytes had been published, or so many milliseconds had passed, the next broadcast was
 * this one. */
struct slow_mark {
    uint64_t at;
    uint64_t seq;
};

struct slow {
    uint64_t seen_tail; /* at the last tick */
    uint64_t pressure;  /* the same; --slow close */
    size_t to_look;     /* those who are held and have not been looked at since */
    uint32_t looked;    /* in this turn of the loop */
    struct slow_cut_list cuts[SLOW_CUT_LISTS];

    struct slow_mark marks[SLOW_MARKS]; /* oldest first, from first_mark on, around */
    uint32_t first_mark;
    uint32_t mark_count;
    uint64_t now; /* in what marks are in */
    uint32_t now_ms;

    /* Not yet in the log. */
    uint64_t news_count;
    char news_addr[CLIENT_ADDR_TEXT_BYTES];
    uint64_t news_lag;
    const char *news_fate;
    uint32_t news_ms; /* of the last line */
};

/* Each turn of the loop: what is to happen, to a chunk of those who are held. True: call again soon. */
bool slow_run(struct worker *worker);

/* Several times a second: time has passed. */
void slow_tick(struct worker *worker);

/* A sweep over new broadcasts begins. */
void slow_note(struct worker *worker);

/* What is to follow the conn->next_done bytes of the frame that conn->cut is the copy of; so many of
 * them have been accepted by the kernel. */
const uint8_t *slow_rest(const struct conn *conn, size_t *bytes);
void slow_rest_sent(struct conn *conn, size_t bytes);

/* It will not get the rest. */
void slow_forget(struct conn *conn);

#endif
