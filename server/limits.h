/*
 * limits.h: computes what the server needs, and checks it against the resource limits.
 *
 * Role:     master, at start, and when a worker cannot be forked.
 * Owns:     the numbers of tasks that should run and do not.
 * Errors:   a check that fails has logged one sentence: the limit, its value, the value that is
 *           needed, and what to do.
 * Context:  main thread.
 *
 * The arithmetic is in this header only. The checks and their sentences use it, and
 * tests/e2e/test_limits.py compares LIMITS in docs/crier.1.in with it.
 */
#ifndef CRIER_SERVER_LIMITS_H
#define CRIER_SERVER_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- descriptors --- */

enum {
    LIMITS_STANDARD_FDS = 3, /* 0 to 2 are always open: master.c fills them */
    LIMITS_PROGRAM_FDS = 1,  /* the program, for workers that start later */
    LIMITS_SEGMENT_FDS = 1,
    LIMITS_LOOP_FDS = 3,   /* of an event loop: an epoll set, a pipe for signals */
    LIMITS_STOP_FDS = 2,   /* of the master: a pipe for the signals that stop it */
    LIMITS_WATCH_FDS = 2,  /* of a worker: the epoll set of its clients, the timer of its ticks */
    LIMITS_STREAM_FDS = 4, /* standard input and standard error, opened again or read by a thread */
    LIMITS_SPARE_FDS = 12, /* connections being passed on; libraries; the application */
    LIMITS_CLIENTS_MIN = 16, /* a worker must have room for so many clients */
};

/* The descriptors of the master, including those that it needs to start a worker at any time.
 * `sockets`: listening sockets that it opens itself. */
static inline uint64_t
limits_master_descriptors(uint64_t workers, uint64_t sockets)
{
    uint64_t events = workers + 1; /* one of each member */
    uint64_t channels = 2 * workers;
    uint64_t processes = workers;

    return LIMITS_STANDARD_FDS + LIMITS_PROGRAM_FDS + LIMITS_SEGMENT_FDS + LIMITS_LOOP_FDS +
           LIMITS_STOP_FDS + LIMITS_STREAM_FDS + LIMITS_SPARE_FDS + events + channels + processes +
           sockets;
}

/* The descriptors of a worker before its first client. */
static inline uint64_t
limits_worker_descriptors(uint64_t workers)
{
    uint64_t events = workers + 1;
    uint64_t channel = 1;

    return LIMITS_STANDARD_FDS + LIMITS_SEGMENT_FDS + LIMITS_LOOP_FDS + LIMITS_WATCH_FDS +
           LIMITS_STREAM_FDS + LIMITS_SPARE_FDS + events + channel;
}

/* The limit of open files that the server needs. RLIMIT_NOFILE bounds the numbers of descriptors;
 * in the master, `inherited` descriptors occupy numbers below the result. A worker inherits none. */
static inline uint64_t
limits_descriptors(uint64_t workers, uint64_t sockets, uint64_t inherited)
{
    uint64_t master = limits_master_descriptors(workers, sockets) + inherited;
    uint64_t worker = limits_worker_descriptors(workers) + LIMITS_CLIENTS_MIN;

    return master > worker ? master : worker;
}

/* Raises the soft limit to the hard one. Returns the limit that holds now. */
uint64_t limits_raise_descriptors(void);

/* limits_descriptors for this process as it is now. `opened`: how many of the descriptors that
 * limits_master_descriptors counts are already open, without the standard ones. `*inherited` becomes
 * the number of other descriptors that occupy numbers below the result; `inherited` may be NULL. */
uint64_t limits_find_descriptors(uint32_t workers, size_t sockets, size_t opened,
                                 uint64_t *inherited);

/* True if `limit` is enough for this process; the other arguments as above. */
bool limits_check_descriptors(uint64_t limit, uint32_t workers, size_t sockets, size_t opened)
    __attribute__((warn_unused_result));

/* --- processes --- */

enum { LIMITS_WHY_BYTES = 320 };

enum limits_task { LIMITS_WORKERS, LIMITS_THREADS, LIMITS_TASK_KINDS };

/* Sets how many tasks of a kind should run and do not. */
void limits_set_missing(enum limits_task kind, uint32_t count);

/* Describes why a task could not be started: the limit that `error` (an errno) comes from, its value,
 * and the value that allows all tasks that do not run. Returns `why`. */
const char *limits_explain_fork(int error, char why[LIMITS_WHY_BYTES]);

/* --- memory --- */

#define LIMITS_MIB ((uint64_t)1024 * 1024)

enum {
    LIMITS_PROCESS_MIB = 2,  /* of a process that has served a client, with its page tables */
    LIMITS_DATA_MIB = 16,    /* RLIMIT_DATA: what a process may write to, in use or not */
    LIMITS_ADDRESS_MIB = 48, /* RLIMIT_AS: program, libraries, stacks; the segment is not in it */
};

struct limits_memory {
    uint32_t workers;
    uint64_t ring_bytes;   /* for the sentence */
    uint64_t shared_bytes; /* allocated when the segment is created */
    uint64_t mapped_bytes; /* the whole segment, as each process maps it */
    uint64_t pool_bytes;   /* --pool: a worker may use 1.1 times as much for its clients */
};

/* With less memory the server would be killed at start or at its first broadcasts. */
static inline uint64_t
limits_needed_bytes(const struct limits_memory *memory)
{
    return memory->shared_bytes + (memory->workers + 1) * LIMITS_PROCESS_MIB * LIMITS_MIB;
}

/* The most that the server uses, when clients do not read. */
static inline uint64_t
limits_used_bytes_max(const struct limits_memory *memory)
{
    return limits_needed_bytes(memory) +
           memory->workers * (memory->pool_bytes + memory->pool_bytes / 10);
}

/* Compares with RLIMIT_FSIZE, RLIMIT_AS and RLIMIT_DATA, with the control groups, and with the memory
 * of the machine. When a control group allows the start but not the pools, a warning is logged. */
bool limits_check_memory(const struct limits_memory *memory) __attribute__((warn_unused_result));

#endif
