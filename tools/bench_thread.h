/*
 * bench_thread.h: a thread of crier-bench and its share of the clients; what threads and the main
 * thread say to each other.
 *
 * Role:     crier-bench. The main thread makes a bench_run, starts its threads, moves `phase` on,
 *           looks at what they show, and reads everything else once they have ended.
 * Owns:     a thread its clients, loop, tracks and histograms.
 * Errors:   a thread that can not go on shows `failed`, and `why` says it.
 * Context:  as said with each field. Words that several threads use are accessed by shm/atomic.h.
 *
 * Phases, in this order. In CONNECT every client connects; MEASURE begins when all are open; in
 * DRAIN nothing new becomes due, and what is on its way may arrive; END ends the threads.
 *
 *   label  access                              partner  what the pair gives
 *   P1     phase, store release (main)         P2       a thread that sees a phase sees start_ns
 *   P2     phase, load acquire (thread)        P1
 *   W1     shown.*, stores; fence; load want   W2       main, which waits for `want`, is woken by
 *   W2     want, store; fence; load shown.*    W1       the thread that gets there, or sees it itself
 *   F1     failed, store release (thread)      F2       main sees why when it sees that
 *   F2     failed, load acquire (main)         F1
 */
#ifndef CRIER_TOOLS_BENCH_THREAD_H
#define CRIER_TOOLS_BENCH_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/bench_audience.h"
#include "tools/bench_client.h"
#include "tools/bench_histogram.h"
#include "tools/bench_options.h"
#include "tools/bench_track.h"

enum bench_phase { BENCH_CONNECT, BENCH_MEASURE, BENCH_DRAIN, BENCH_END };

enum { BENCH_WHY_BYTES = 200 };

/* What a thread shows to the others after each turn of its loop; it alone writes. */
struct bench_shown {
    uint64_t opened;   /* opening handshakes that were done, all the time */
    uint64_t open;     /* clients that are open now */
    uint64_t sent;     /* messages, all the time */
    uint64_t received; /* messages, all the time */
    uint64_t settled;  /* messages that came or were found missing, of clients that are open */
    uint64_t echoes;   /* echo: messages sent by clients that are open */
    uint32_t idle;     /* DRAIN: nothing is left to be sent or closed */
    uint32_t failed;
    uint32_t publisher_lost; /* one was disconnected */
} __attribute__((aligned(128)));

/* What is added up over all threads at the end. */
struct bench_tally {
    struct bench_faults faults;
    uint64_t sent;
    uint64_t received; /* good messages, duplicates not counted */
    uint64_t received_bytes;
    uint64_t unsent; /* were due, but could not be sent in time */
    uint64_t corrupt;
    uint64_t foreign;
    uint64_t disconnected; /* clients that were open when MEASURE began */
    uint64_t cycles;       /* storm: connected, opened and closed */
    uint64_t refused;      /* storm: not so */
    uint64_t other_order;  /* clients that saw all, but not in the order of the first such */
    struct bench_histogram latency; /* from due to received; storm: to the end of the cycle */
    struct bench_histogram last;    /* broadcast: from due to received by the last client */
    struct bench_histogram opening; /* from connect to 101 */
    struct bench_histogram late;    /* from due to sent, of a rate, where there was room to send */
};

struct bench_run;

struct bench_thread {
    struct bench_loop loop; /* the first member: handlers find their thread by it */
    struct bench_run *run;
    pthread_t id;
    int wake; /* eventfd: look at the phase, and at whether something may be sent */
    uint32_t index;
    enum bench_phase phase; /* as this thread knows it */

    struct bench_client *clients;
    uint32_t client_count;
    uint32_t client_first;      /* number of clients[0] among all clients */
    struct bench_track *tracks; /* one per client and publisher (echo: one per client) */
    uint32_t tracks_each;
    struct bench_audience audience; /* broadcast: its clients */

    struct bench_client *senders; /* a part of the clients, or the pipe */
    uint32_t sender_count;
    uint32_t sender_next; /* whose turn it is */
    uint64_t round;       /* of a rate: how often all had their turn */
    bool begun;           /* of an echo's window: it was filled */
    bool schedule_done;   /* of a rate: all that is due in the run has been looked at */

    uint32_t started; /* CONNECT: clients that have begun; storm: attempts */
    uint32_t opening;
    uint32_t *free; /* storm: clients that are not connected */
    uint32_t free_count;
    uint64_t free_ns; /* when there was one again, after there had been none */

    uint64_t cpu_begin_ns, cpu_ns;     /* of this thread in MEASURE and DRAIN */
    uint64_t delay_begin_ns, delay_ns; /* it could have run, but the CPUs were busy */
    struct bench_tally tally;
    struct bench_client pipe;
    char why[BENCH_WHY_BYTES];
    struct bench_shown shown;
};

struct bench_run {
    const struct bench_options *options;
    struct bench_wire wire;
    struct bench_thread *threads;
    uint32_t thread_count;
    uint32_t sender_count; /* of all threads */
    pthread_mutex_t audience_lock;
    struct bench_audience audience; /* broadcast: the threads that have clients */
    int tell;                       /* eventfd: the main thread has something to look at */
    uint64_t connect_ns;            /* CONNECT began */
    uint64_t start_ns;              /* MEASURE began; stamps count from here */
    uint64_t end_ns; /* nothing is due from here on; lowered when the run is cut short */
    uint64_t want;   /* settled deliveries that thread 0 waits for; 0: it does not */
    uint32_t phase;  /* enum bench_phase */
};

/* Divides the clients among `threads`, which are all zeroes, and starts them in CONNECT. `pipe` is
 * what the messages are written to, or -1. 0 or -errno. */
int bench_thread_start_all(struct bench_run *run, int pipe);

void bench_thread_set_phase(struct bench_run *run, enum bench_phase phase);

/* Everything that was shown, added up. */
void bench_thread_sum(const struct bench_run *run, struct bench_shown *sum);

/* Has all that was sent arrived, or been found missing? */
bool bench_thread_drained(const struct bench_run *run);

/* Was a publisher disconnected? Then what remains is not the load that was asked for. */
bool bench_thread_publisher_lost(const struct bench_run *run);

/* The thread that has failed, or NULL. */
const struct bench_thread *bench_thread_failed(const struct bench_run *run);

/* After END: waits until all have ended, and adds up what they have seen. */
void bench_thread_join_all(struct bench_run *run, struct bench_tally *tally);
void bench_thread_fini_all(struct bench_run *run);

#endif
