/*
 * bench_plot.h: the latencies as a picture: how long did what part of the messages take at most?
 *
 * Role:     crier-bench; runs gnuplot.
 * Owns:     nothing.
 * Errors:   false, after one sentence on stderr.
 * Context:  main thread.
 */
#ifndef CRIER_TOOLS_BENCH_PLOT_H
#define CRIER_TOOLS_BENCH_PLOT_H

#include <stdbool.h>

#include "tools/bench_histogram.h"

/* Before a run, so that its end is no disappointment: is gnuplot there? */
bool bench_plot_possible(void) __attribute__((warn_unused_result));

/* `file` ends with .svg or .png, and is written over. */
bool bench_plot_draw(const char *file, const char *title, const struct bench_histogram *histogram)
    __attribute__((warn_unused_result));

#endif
