/*
 * bench_process.h: the server as the kernel sees it: a command that was started, and the CPU time and memory of all
 * processes below one.
 *
 * Role:     crier-bench; reads /proc.
 * Owns:     the child, until bench_process_stop.
 * Errors:   negative errno, or -1 for a number that could not be had.
 * Context:  main thread.
 */
#ifndef CRIER_TOOLS_BENCH_PROCESS_H
#define CRIER_TOOLS_BENCH_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct bench_child {
    pid_t pid;
    int input; /* its standard input, non-blocking; -1: it has none */
};

/* What a tree of processes has used and holds. Of a process that has ended nothing counts. */
struct bench_usage {
    int processes;    /* 0: there is none */
    uint64_t cpu_ns;  /* of all threads */
    uint64_t user_ns; /* how that is divided, to a clock tick */
    uint64_t system_ns;
    int64_t pss_bytes;      /* -1: not readable, or not asked for */
    int64_t pss_file_bytes; /* of these, of programs and libraries: a share of pages that others map
                               as well, which changes with them */
};

/* `feed`: its standard input is a pipe, otherwise /dev/null. What it writes to standard output goes
 * to standard error. 0, or -errno when it cannot be executed. */
int bench_process_start(struct bench_child *child, char **command, bool feed);

/* Its input ends, it is asked to end by SIGTERM, and after some seconds made to. */
void bench_process_stop(struct bench_child *child);

/* Has it ended by itself? */
bool bench_process_ended(struct bench_child *child);

void bench_process_usage(struct bench_usage *usage, pid_t pid, bool memory);

#endif
