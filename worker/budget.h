/*
 * budget.h: which client has its turn, and for how long. This header is the specification.
 *
 * Role:     worker; each shares out its own CPU time between its own clients.
 * Owns:     the accounts; the queues that they decide about are in conn.h.
 * Context:  loop thread.
 *
 * A TURN of a client is what the worker does with its input in one go: recv, handshake, frames,
 * UTF-8, inflating, handlers, what they deflate, and one send of the answers. It is measured, not
 * estimated, and charged to the client. A PASS is one turn of the worker's loop (worker_turn). A PERIOD
 * is one pass or several. It ends with the pass after which all that epoll reported has been served and
 * the report was not full, or after which ordinary clients have spent BUDGET_PERIOD_NS (with ticks,
 * sends to sockets that were full and, while clients wait, sweeps).
 *
 * FOUR CLASSES
 *   ordinary  an open client that owes less than a quantum and is not costly (both below). In a pass
 *             these clients come first, in the order in which epoll reports them, until the end of
 *             the period. The rest of the report goes first in the next pass (watch.h). Those whose
 *             turns left input over wait in a queue, which has BUDGET_LEFT_OVER_NS in each pass, and
 *             what the report has left of the period.
 *   arriving  a connection that is not open: opening handshakes, Closes, connections that end; and an
 *             open one until its first turn with a message, or the first one that leaves input over,
 *             has ended. The whole class has BUDGET_ARRIVING_NS in each period.
 *   indebted  an open client that owes a quantum or more, or is costly. The whole class has
 *             BUDGET_QUANTUM_NS in each period; its clients take turns in rounds.
 *   turnover  no turn of a client: taking connections from the master, and freeing those that have
 *             ended, with their disconnect handlers. BUDGET_TURNOVER_NS in each period, so that neither
 *             waits for arriving connections that always have something to do. Connections for which
 *             there is no time stay in the master's channel; so do all while those of the latest batch
 *             wait for their first turns.
 * So if many sockets are ready, the other classes delay ordinary clients in proportion to the time that
 * these spend, not to the number of reports. The last turn of a class in a period may take more time
 * than its account has left. Of all but the ordinary the excess, up to BUDGET_CARRY_MAX_NS, is taken
 * off the periods that follow. Handlers that found no room in the ring are called again before all of
 * these turns, at least one a pass, whatever the account of its client's class has left
 * (turns_retry_waiting).
 *
 * An arriving connection has its turn at once if none waits before it and its account has time left.
 * Otherwise, and if it is indebted, a connection with input waits in a queue of its class. Meanwhile
 * its socket is not watched for input, so that it fills no report of epoll, and its silence does not
 * count (liveness.h). The loop does not sleep while a queue is not empty, so that no CPU time is left
 * unused. The ring, the phase and the ticks are looked at in every pass.
 *
 * DEBT AND ROUNDS
 * A client owes what its turns have cost, less one quantum for each round that has passed; never
 * less than nothing, never more than BUDGET_DEBT_MAX_US. The worker has a clock of rounds
 * (`round_us`), which advances by a quantum a round. Each client has the time of that clock at
 * which it will owe nothing (conn->paid_us). This is start-time fair queueing (Goyal, Vin, Cheng
 * 1996) with a step of a quantum. So paying off debts takes no work, whatever the number of
 * clients, and the worker needs no list of clients that are in debt and send nothing.
 *
 * While clients wait in the queue of the indebted, a round ends when each of them has been looked at
 * once. If none of them could afford its turn, the clock advances by as many quanta as the one needs
 * that owes least. While that queue is empty, a round ends with each pass in which epoll reported
 * fewer sockets than it may, and all of them have been served. A turn ends when the client owes a
 * quantum; the rest of its input waits for its next turn.
 *
 * COSTLY CLIENTS
 * A client is costly if its heat has reached a limit. The heat of a turn that takes c microseconds is
 * log2(c + 1), rounded down. After a turn the heat of the client (conn->heat) is that of the turn, or
 * its old value less one if that is greater; two rules below change this. So expensive messages that
 * many clients send at the same moment delay no cheap message, even if none of these clients is in
 * debt; and a client that has sent an expensive message is ordinary again after a few cheap turns.
 *
 * The limit is the highest heat, from BUDGET_HEAT_LEAST to BUDGET_HEAT_COSTLY, at which N turns below
 * it take no more than BUDGET_CROWD_US together; BUDGET_HEAT_LEAST if there is none, so that an echo
 * makes no client costly. N is the number of turns of ordinary clients that epoll had reported (not of
 * those in the queue) between two moments at which all ready sockets had been reported (BOUND): since
 * the latest of them or in the interval before it, whichever is more.
 *
 * Only those parts of a turn count that are known to be its own: no stretch of several clients, and
 * none that was charged to no client (CLOCKS). A turn of which such a stretch was a part raises the
 * heat if it is expensive all the same, but never lowers it. A stretch of several clients that is ended
 * before inflating or deflating is no part of the turn in this sense.
 *
 * The worker may be disturbed in the turn of a client: the CPU time of a send includes what the kernel
 * receives for other sockets meanwhile, which is half a millisecond when a thousand clients send at
 * once. Two rules make it unlikely that this makes a client costly. A turn whose heat is below
 * BUDGET_HEAT_COSTLY raises the heat of the client by one at most. And an ordinary turn of at least
 * that heat, but less than a quantum, may be spared: then the heat of the client stays as it is.
 * BUDGET_SPARED_MOST turns of a client may be spared one after the other, and one more for each
 * BUDGET_SPARED_EACH others after which the heat was updated (a token bucket).
 *
 * The cost of each turn is charged, not only what exceeds a quantum: otherwise clients whose turns
 * take just less than a quantum would never owe anything, and a thousand of them would delay any
 * other client by a thousand quanta. But a round in which each of a thousand clients has a turn is
 * long, and cheap turns must not make a client indebted, however many it has in a round. So while the
 * heat of a client is below BUDGET_HEAT_LEAST, its turns let it owe no more than BUDGET_DEBT_CHEAP_US,
 * or as much as before, if that is more.
 *
 * CLOCKS
 * CLOCK_MONOTONIC is read when epoll has returned; after its report has been served, if there was a
 * step; before and after each turn, except those of ordinary clients that epoll has just reported;
 * before and after work that is known to be costly (a slice of inflating); and otherwise after
 * BUDGET_STEPS steps, where a step is a frame, BUDGET_STEP_BYTES of a longer one, or a turn without a
 * frame. Reading it for every message would take 3 to 6 % of the instructions of an echo.
 *
 * A STRETCH is the time between two readings. It may hold frames of several clients, and counts as one
 * of several clients if it begins in a turn that is over. If it ends in a turn, it is charged to that
 * client, as a sample: each client ends a share of the stretches that is its share of all steps. If it
 * ends in no turn (after the last one of a report, before one of another class, before inflating or
 * deflating), it is charged to no client. If a stretch of several clients is longer than
 * BUDGET_MIXED_NS, some handler is slow: the stretch is charged to no client, and for the next
 * BUDGET_EXACT_READINGS readings the clock is read at the end of each turn, and after
 * BUDGET_STEPS_EXACT steps.
 *
 * In a long stretch the worker may have been preempted or stopped. A stretch is long above
 * BUDGET_LOOK_NS, and above BUDGET_LOOK_TURN_NS if it is neither of several clients nor of the
 * arriving class. Then, and only then, the thread's CPU clock is read, which is a system call. The
 * stretch is shortened by the difference between the time awake and the CPU time, both since that
 * clock was last read. Time asleep in epoll is not time awake, but the calls that sleep take some CPU
 * time. So after more than BUDGET_SLEEPS_MAX of them the difference says nothing: the stretch is
 * charged to no client and no class, and the clock is read at the end of each turn as above.
 *
 * BOUND
 * `input_wait` (histograms.def) is an upper bound of the worker's CPU time from the moment at
 * which input of an ordinary client arrives to the end of the turn that handles it. If several
 * turns end in one stretch, all of them count as long as the longest. The moment of arrival is not
 * known: the count begins at an earlier return of epoll_wait, the latest one by which everything
 * that had arrived before it was reported. That is the previous return, or, if that one reported
 * as many sockets as it may, one before it (budget_report). So if all reports are full and all
 * connections are ready, the count is at most twice the true time, and may include the client's own
 * previous turn; if only some are ready, it is longer in proportion. Turns from a queue are not
 * counted. Of a chunk of a sweep that is in no stretch at most BUDGET_LOOK_NS a pass is counted, and
 * nothing before a call that may sleep.
 *
 * Ordinary clients wait for each other's turns: for those of the report that has just begun, and for
 * those before them in the next one. If none of these turns reaches the limit of heat, each of the two
 * takes BUDGET_CROWD_US at most, or 31 us for each client if there are more than 512. In each period of
 * that time a pass adds a chunk of the sweep (fanout.h), and the other classes and input that was left
 * over add what they may spend. Last comes the excess of the last turn of each class, because a
 * handler, a deflater (of 256 KiB at most, record.h: 8 ms) and a copy are not interrupted. With the
 * handlers of the standard application and up to 512 ordinary clients the sum is less than 90 ms,
 * whatever the number of costly clients. tests/attack measures the wait beside a thousand attackers,
 * and requires 50 ms for 99 of 100 messages.
 *
 * NOT PROMISED
 * If N clients whose messages were all cheap send an expensive one at the same moment, each of them
 * costs the others one turn, of a quantum or of one handler if that is longer: nothing tells in advance
 * which message will be expensive. If these turns take less than a quantum, BUDGET_SPARED_MOST of them
 * are spared before the client is costly, and later one in each BUDGET_SPARED_EACH + 1. A costly client
 * is ordinary again after as many cheap turns as its heat is above the limit, and one more; a ping
 * is a cheap turn. So N clients that wait for that may cost the others N expensive turns again and
 * again. Turns whose heat is below BUDGET_HEAT_COSTLY are not expensive in this sense: if every second
 * turn of a client is cheap, the other ones may take up to 126 us, even where the limit is lower.
 * A client that arrives while many others arrive waits for their turns up to their first messages, and
 * also for clients that have been open for long and have never sent one. What a client is sent
 * once its socket takes more again is charged to no client: if N clients that are far behind begin to
 * read at the same moment, they delay any other client by N sends, each of up to a mebibyte and a
 * frame.
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
    BUDGET_PERIOD_NS = 10 * 1000 * 1000,
    BUDGET_LEFT_OVER_NS = 2 * 1000 * 1000, /* of turns that left input over */
    BUDGET_ARRIVING_NS = 2 * 1000 * 1000,
    BUDGET_DEBT_MAX_US = 1000 * 1000,
    BUDGET_DEBT_CHEAP_US = BUDGET_QUANTUM_US - 32,
    BUDGET_TURNOVER_NS = 1000 * 1000,
    BUDGET_CARRY_MAX_NS = 20 * 1000 * 1000, /* excess that later periods pay for */
    BUDGET_HEAT_COSTLY = 7,                 /* 127 us */
    BUDGET_HEAT_LEAST = 5,                  /* 31 us */
    BUDGET_SPARED_MOST = 3,
    BUDGET_SPARED_EACH = 16,
    BUDGET_CROWD_US = 16 << 10,
    BUDGET_STEPS = 32,
    BUDGET_STEPS_EXACT = 2, /* a turn of one frame is read once, at its end */
    BUDGET_STEP_BYTES = 512,
    BUDGET_MIXED_NS = BUDGET_QUANTUM_NS / 2,
    BUDGET_LOOK_NS = BUDGET_QUANTUM_NS,
    BUDGET_LOOK_TURN_NS = BUDGET_QUANTUM_NS / 8, /* only CPU time makes a client costly */
    BUDGET_EXACT_READINGS = 1024,
    BUDGET_SLEEPS_MAX = 64,
    BUDGET_LOOKS = 1024, /* indebted clients looked at in a pass, at most */
};

enum budget_class {
    BUDGET_ORDINARY,
    BUDGET_ARRIVING,
    BUDGET_INDEBTED,
    BUDGET_TURNOVER,
    BUDGET_CLASSES
};

struct budget {
    /* Clocks. */
    uint64_t read_ns;      /* the latest reading of CLOCK_MONOTONIC */
    uint64_t run_ns;       /* the worker's CPU time, as far as it was measured */
    uint64_t reported_ns;  /* run_ns at which input_wait of the current report begins */
    uint64_t all_ns;       /* all sockets that were ready at this run_ns have been reported */
    uint64_t mark_ns;      /* the run_ns that becomes all_ns when as many sockets are reported as */
    uint32_t connections;  /* there were then: */
    uint32_t reported;     /* since mark_ns */
    uint64_t awake_ns;     /* time awake since the CPU clock was read */
    uint64_t cpu_ns;       /* that reading of the CPU clock */
    uint32_t sleeps;       /* calls that could sleep, since that reading */
    uint32_t exact;        /* readings left for which the clock is read after each turn */
    uint32_t steps;        /* since the latest reading */
    uint32_t steps_most;   /* after so many steps the clock is read */
    uint32_t steps_before; /* `steps` at the beginning of the turn */
    uint32_t turns;        /* of reported clients that have ended since the latest reading */
    bool awake;            /* the clock has been read since epoll returned */
    bool slept;            /* epoll was allowed to sleep */

    /* The current turn. */
    bool mixed;        /* the stretch has begun in a turn that is over */
    bool sampled;      /* a stretch of the turn had, or was not charged */
    uint64_t turn_ns;  /* charged so far */
    uint64_t own_ns;   /* of that, without the stretches of several clients */
    uint64_t limit_ns; /* the turn is over when turn_ns reaches it */
    enum budget_class turn;

    uint8_t costly;           /* the lowest conn->heat that makes a client costly */
    uint32_t ordinary;        /* turns of reported clients since mark_ns was set */
    uint32_t ordinary_before; /* the same between the previous two settings of mark_ns */

    uint64_t spent_ns[BUDGET_CLASSES]; /* in this period, and the excess of earlier ones */
    uint32_t round_us;                 /* the clock of rounds; wraps: compare by difference */
    uint32_t owed_us;                  /* the highest conn->paid_us of any client */
    uint32_t least_us; /* the smallest debt seen in this round; 0: a client could afford its turn */
    uint32_t left;     /* indebted clients that have not been looked at in this round */
};

void budget_init(struct worker *worker);

/* budget_wake: epoll has returned; further calls before budget_sleep do nothing. budget_sleep: it is
 * about to be called. `sleeps`: it may sleep; `idle`: all that it reported has been served, and no other
 * sockets were ready. */
void budget_wake(struct worker *worker);
void budget_sleep(struct worker *worker, bool sleeps, bool idle);

/* epoll has reported `count` sockets; `all`: no others were ready. */
void budget_report(struct worker *worker, uint32_t count, bool all);

/* Reads the clock, which ends the stretch. */
void budget_read(struct worker *worker);

/* From budget_enter to budget_settle the worker works for `class`. budget_settle charges that work to
 * `conn`; NULL: to the class alone. */
void budget_enter(struct worker *worker, enum budget_class class);
void budget_settle(struct worker *worker, struct conn *conn);

/* Reads the clock, and charges the stretch to the class, but not to the client of the turn. */
void budget_split(struct worker *worker);

/* A handshake, the end of a connection, or a frame of `bytes` bytes has been handled. */
static inline void
budget_step(struct worker *worker, struct budget *budget, uint32_t bytes)
{
    budget->steps += 1 + bytes / BUDGET_STEP_BYTES;
    if (budget->steps >= budget->steps_most)
        budget_read(worker);
}

/* Begins the turn of a client that owes `debt_us`. */
static inline void
budget_begin(struct budget *budget, uint32_t debt_us)
{
    budget->turn_ns = 0;
    budget->own_ns = 0;
    budget->sampled = false;
    budget->steps_before = budget->steps;
    budget->limit_ns = debt_us < BUDGET_QUANTUM_US ? 1000 * (BUDGET_QUANTUM_US - debt_us) : 0;
}

static inline bool
budget_turn_is_over(const struct budget *budget)
{
    return budget->turn_ns >= budget->limit_ns;
}

/* Ends the turn of an ordinary client that epoll has reported. `stays`: the client is still open, so
 * that the turn counts for input_wait. */
static inline void
budget_end(struct worker *worker, struct budget *budget, struct conn *conn, bool stays)
{
    if (stays)
        budget->turns++;
    if (budget->turn_ns || budget->exact) {
        budget_settle(worker, conn);
        return;
    }
    budget->steps += budget->steps == budget->steps_before;
    budget->mixed = true;
}

extern const uint32_t budget_limits_ns[BUDGET_CLASSES];

/* Has the account of the class time for another turn in this period? */
static inline bool
budget_has_time(const struct budget *budget, enum budget_class class)
{
    return budget->spent_ns[class] < budget_limits_ns[class];
}

/* Can this indebted client, one of `count`, afford its turn? It counts as looked at in this round. */
bool budget_affords(struct worker *worker, const struct conn *conn, uint32_t count);

#endif
