/*
 * budget.h: which client has its turn, and for how long. This header is the specification.
 *
 * Role:     worker; each shares out its own CPU time between its own clients.
 * Owns:     the accounts; the queues that they decide about are in conn.h.
 * Context:  loop thread.
 *
 * A TURN of a client is what the worker does with its input in one go: recv, handshake, frames,
 * UTF-8, inflating, handlers, what they deflate, and one send of the answers. It is measured, not
 * estimated, and charged to the client. A PASS is everything between two calls of epoll_wait.
 *
 * THREE CLASSES
 *   ordinary  an open client that owes less than a quantum and is not costly. These go first, as
 *             epoll reports them, until a pass has spent BUDGET_PASS_NS on them. The rest of the
 *             report is kept and goes first in the next pass (watch.h).
 *   arriving  a connection that is not open, and an open one until its first turn with a message is
 *             over: opening handshakes, Closes, connections that end; also the disconnect handlers,
 *             and taking connections from the master. All of them share one account:
 *             BUDGET_ARRIVING_NS in each pass, what a turn takes beyond that is taken off the passes
 *             that follow. Descriptors for which there is no time stay in the channel.
 *   indebted  an open client that owes a quantum or more, or is costly. These have
 *             BUDGET_QUANTUM_NS in each pass, in rounds; what a turn takes beyond that is taken off
 *             the passes that follow.
 * A client that is arriving or indebted and has something for the worker waits in a queue of its
 * class. Meanwhile its socket is not watched, so that it fills no report of epoll, and its silence
 * does not count (liveness.h). The loop does not sleep while a queue is not empty, so that no CPU
 * time is left unused. The ring, the phase and the ticks are looked at in every pass.
 *
 * DEBT AND ROUNDS
 * A client owes what its turns have cost, less one quantum for each round; never less than nothing,
 * never more than BUDGET_DEBT_MAX_US. The worker has one clock of rounds, which advances by a quantum
 * a round (`round_us`), and a client has the moment of that clock at which it owes nothing
 * (conn->paid_us): this is start-time fair queueing (Goyal, Vin, Cheng 1996) with a step of a
 * quantum. So paying takes no work, whatever the number of clients, and needs no list of those that
 * owe and say nothing. A round ends when each indebted client has been looked at once; when there is
 * none, at the end of a pass in which all that epoll reported has been served. If a whole round found
 * none that can afford its turn, the clock advances to the first that can. A turn ends when the
 * client owes a quantum; input that is left waits for its next one.
 *
 * A client is costly if one of its latest turns was: conn->heat is the binary logarithm of the most
 * expensive one in microseconds, less one for each turn since. So expensive messages of many clients
 * that come at the same moment delay no cheap one, even if all is paid for; a client that has sent an
 * expensive message is ordinary again after a few cheap ones. Costly is BUDGET_HEAT_COSTLY, and less
 * when there are many ordinary clients, so that all that wait for each other take BUDGET_CROWD_US, but
 * not less than BUDGET_HEAT_LEAST: an echo makes no client costly. So that one that was disturbed does
 * not either, a turn of less than BUDGET_HEAT_COSTLY raises the heat by one at most, and an ordinary
 * turn of less than a quantum makes no client costly whose heat was not one below that already: what
 * the kernel receives for other sockets during a send, half a millisecond when a thousand clients send
 * at once, counts as the sender's CPU time. All of it is owed.
 *
 * All that a turn costs is charged, not only what is beyond a quantum: else clients that take just
 * less would never owe anything, and a thousand of them would delay any other by a thousand quanta.
 * But turns below BUDGET_HEAT_LEAST make no client indebted, however many they are in a round: it owes
 * BUDGET_DEBT_CHEAP_US at most. A round in which each of a thousand has a turn is long.
 *
 * CLOCKS
 * CLOCK_MONOTONIC is read when epoll has returned and when its report was served, around each turn
 * that is not ordinary, around what is known to be costly (a slice of inflating), and otherwise after
 * BUDGET_STEPS steps: a step is a frame, or BUDGET_STEP_BYTES of one. Reading it for every
 * message would take 3 to 6 % of the instructions of an echo. So a stretch between two readings may
 * hold frames of several clients. It is charged to the one in whose turn it ends, as a sample: each
 * client ends a stretch as often as its part of all steps. If a stretch of several clients was longer
 * than BUDGET_MIXED_NS, some handler is slow: it is charged to no client, and the clock is then read
 * at the end of each turn, for BUDGET_EXACT_READINGS readings.
 *
 * A stretch of more than BUDGET_LOOK_NS, or of BUDGET_LOOK_TURN_NS if it is all one open client's, may
 * be one in which the worker did not run. Then, and only then, the thread's CPU clock is read, which
 * is a system call: the time awake since its last reading, less the CPU time since, is subtracted.
 * Sleeping is not time awake, but the calls that sleep take some CPU time; after more than
 * BUDGET_SLEEPS_MAX of them the difference says nothing: the stretch is charged to no client, the
 * next one can be compared, and the clock is read at the end of each turn as above.
 *
 * BOUND
 * `input_wait` (histograms.def) is an upper bound of the worker's CPU time between the moment at which
 * the input of an ordinary client comes and the end of the turn in which it is dealt with; of turns
 * that end in the same stretch the largest. When it comes is not known: the count begins at a return
 * of epoll_wait by which all was reported that had come before. That is the previous one, or, if that
 * one reported as many as it may, an earlier one (budget_report): so twice the time is counted at most
 * when all reports are full, and the client's own previous turn may be in it. What is in no stretch (a
 * chunk of a sweep) counts as BUDGET_LOOK_NS at most.
 *
 * Ordinary clients wait for each other's turns, and all of these were cheap before: BUDGET_CROWD_US,
 * or 31 us for each of more than 512. Beyond that a pass adds at most: a chunk of the sweep (fanout.h),
 * BUDGET_ARRIVING_NS, a quantum of the indebted, and what one turn of each class takes beyond its
 * limit, because a handler, a deflater (of 256 KiB at most, record.h: 8 ms) and a copy are not cut.
 * With the handlers of the standard application that is less than 50 ms, whatever the number of costly
 * clients, and with up to a thousand ordinary ones.
 *
 * NOT PROMISED
 * N clients whose messages were all cheap and that send a expensive one at the same moment cost each other
 * N turns of up to a quantum each, once in several messages: nothing tells in advance which will be
 * expensive. A client that comes while many others come waits for their first messages.
 */
#ifndef CRIER_WORKER_BUDGET_H
#define CRIER_WORKER_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct worker;
struct conn;

enum {
    BUDGET_QUANTUM_US = 1000,
    BUDGET_QUANTUM_NS = 1000 * BUDGET_QUANTUM_US,
    BUDGET_PASS_NS = 10 * 1000 * 1000,
    BUDGET_ARRIVING_NS = 2 * 1000 * 1000,
    BUDGET_DEBT_MAX_US = 1000 * 1000,
    BUDGET_DEBT_CHEAP_US = BUDGET_QUANTUM_US - 32, /* below BUDGET_HEAT_LEAST */
    BUDGET_CARRY_MAX_NS = 20 * 1000 * 1000,        /* to later passes */
    BUDGET_HEAT_COSTLY = 7,                        /* 127 us */
    BUDGET_HEAT_LEAST = 5,                         /* 31 us */
    BUDGET_CROWD_US = 16 << 10,
    BUDGET_STEPS = 32,
    BUDGET_STEPS_EXACT = 2, /* a turn of one frame is read once, at its end */
    BUDGET_STEP_BYTES = 512,
    BUDGET_MIXED_NS = BUDGET_QUANTUM_NS / 2,
    BUDGET_LOOK_NS = BUDGET_QUANTUM_NS,
    BUDGET_LOOK_TURN_NS = BUDGET_QUANTUM_NS / 8, /* what makes a client costly was CPU time */
    BUDGET_EXACT_READINGS = 1024,
    BUDGET_SLEEPS_MAX = 64,
    BUDGET_LOOKS = 1024,                       /* at indebted clients, in a pass */
    BUDGET_REAP_BYTES = 8 * BUDGET_STEP_BYTES, /* what the end of a connection counts as */
};

enum budget_class { BUDGET_ORDINARY, BUDGET_ARRIVING, BUDGET_INDEBTED, BUDGET_CLASSES };

struct budget {
    /* Clocks. */
    uint64_t read_ns;     /* the latest reading */
    uint64_t run_ns;      /* the worker's CPU time, as far as it was read */
    uint64_t reported_ns; /* run_ns at a return of epoll before what is being served came */
    uint64_t all_ns;      /* what was ready then was reported */
    uint64_t mark_ns;     /* what was ready then is among the next sockets that are reported: */
    uint32_t reported;    /* so many since then */
    uint64_t awake_ns;    /* since the CPU clock was asked */
    uint64_t cpu_ns;      /* what it said */
    uint32_t sleeps;      /* since then */
    uint32_t exact;       /* so many readings more at the end of each turn */
    uint32_t steps;       /* since the latest reading */
    uint32_t steps_most;  /* then the clock is read */
    uint32_t turns;       /* of reported clients that have ended since the latest reading */
    bool awake;           /* read since epoll returned */
    bool slept;           /* epoll was allowed to sleep */

    /* The turn. */
    bool mixed;        /* steps of a turn that is over are in the stretch */
    bool sampled;      /* turn_ns holds a stretch of several */
    uint64_t turn_ns;  /* charged so far */
    uint64_t limit_ns; /* then it is over */
    enum budget_class turn;

    uint8_t costly;           /* conn->heat from here on */
    uint32_t ordinary;        /* turns of reported clients since mark_ns */
    uint32_t ordinary_before; /* between the mark before it and that one */

    uint64_t spent_ns[BUDGET_CLASSES]; /* in this pass, and what was carried to it */
    uint32_t round_us;                 /* the clock of rounds; wraps: compare by difference */
    uint32_t owed_us;                  /* nobody owes anything behind it */
    uint32_t least_us; /* the smallest debt that was seen in this round, if none had its turn */
    uint32_t left;     /* indebted clients that have not been looked at in this round */
};

void budget_init(struct worker *worker);

/* epoll has returned, once or several times; it will be called, and may sleep. `idle`: all that it
 * reported was served. */
void budget_wake(struct worker *worker);
void budget_sleep(struct worker *worker, bool sleeps, bool idle);

/* epoll has reported so many sockets; `all`: no others were ready. */
void budget_report(struct worker *worker, uint32_t count, bool all);

/* Reads the clock: the stretch is over. */
void budget_read(struct worker *worker);

/* The worker does something for a class from here on, the turn of a client or not; that is over. */
void budget_enter(struct worker *worker, enum budget_class class);
void budget_settle(struct worker *worker, struct conn *conn);

/* Reads it, but what was in the stretch is not the client's whose turn it is. */
void budget_split(struct worker *worker);

/* A handshake, the end of a connection, or a frame with so many bytes was dealt with. */
static inline void
budget_step(struct worker *worker, struct budget *budget, uint32_t bytes)
{
    budget->steps += 1 + bytes / BUDGET_STEP_BYTES;
    if (budget->steps >= budget->steps_most)
        budget_read(worker);
}

/* The turn of a client that owes so much. */
static inline void
budget_begin(struct budget *budget, uint32_t debt_us)
{
    budget->turn_ns = 0;
    budget->limit_ns = debt_us < BUDGET_QUANTUM_US ? 1000 * (BUDGET_QUANTUM_US - debt_us) : 0;
}

static inline bool
budget_turn_is_over(const struct budget *budget)
{
    return budget->turn_ns >= budget->limit_ns;
}

/* Of an ordinary client that epoll has reported; `stays`: it is still open, so that something waits for
 * the end of its turn. */
static inline void
budget_end(struct worker *worker, struct budget *budget, struct conn *conn, bool stays)
{
    if (stays)
        budget->turns++;
    if (budget->turn_ns || budget->exact)
        budget_settle(worker, conn);
    else
        budget->mixed = budget->steps > 0;
}

/* May another one of the class have its turn in this pass? */
static inline bool
budget_has_time(const struct budget *budget, enum budget_class class)
{
    static const uint32_t limits[BUDGET_CLASSES] = {BUDGET_PASS_NS, BUDGET_ARRIVING_NS,
                                                    BUDGET_QUANTUM_NS};

    return budget->spent_ns[class] < limits[class];
}

/* An indebted client is looked at, of `count`: can it afford its turn? */
bool budget_affords(struct worker *worker, const struct conn *conn, uint32_t count);

#endif
