/*
 * bench_report.h: what crier-bench has found out, for people and for programs.
 *
 * Role:     crier-bench; writes to a stream of the caller's.
 * Owns:     nothing.
 * Errors:   those of the stream.
 * Context:  main thread, after the run.
 */
#ifndef CRIER_TOOLS_BENCH_REPORT_H
#define CRIER_TOOLS_BENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/bench_process.h"
#include "tools/bench_thread.h"

struct bench_result {
    const struct bench_run *run;
    struct bench_tally tally;
    uint64_t connect_ns; /* until all were connected */
    uint64_t elapsed_ns; /* from the start until everything had arrived, or was waited for */
    bool interrupted;
    pid_t pid;                 /* of the server; 0: not known, and nothing of it either */
    struct bench_usage before; /* the first client connected */
    struct bench_usage begin;  /* all were connected */
    struct bench_usage end;    /* all was over */
};

/* What the server must never do was done. */
bool bench_report_has_faults(const struct bench_tally *tally);

void bench_report_text(FILE *to, const struct bench_result *result);
void bench_report_json(FILE *to, const struct bench_result *result);

#endif
