/*
 * log_out.h: writes lines to descriptor 2 and never blocks on it while the process serves.
 *
 * Role:     every process of the server. log.h is its only user.
 * Owns:     the struct inherited of descriptor 2; for INHERITED_BLOCKING also a thread.
 * Lifetime: the process. The thread may be blocked in write(2) for ever, so waiting for it has a limit.
 * Errors:   none: a line that cannot be written is counted, and the count is written as soon as a write
 *           succeeds again: "crier: 3 lines of log were dropped".
 * Context:  the thread that runs the loop, also before and after the loop.
 *
 * A line for which there is no room (a full pipe, a stopped terminal) is queued, up to LOG_OUT_QUEUE_BYTES.
 * The tick of each loop calls log_out_retry, which writes queued lines when there is room. Minor lines
 * are queued in half of that only. Lines are written in order and whole: when a terminal or a stream
 * socket has taken a part of a line, the rest of it is written next.
 *
 * For INHERITED_BLOCKING a thread writes, and its queue is an inbox. The first line starts the thread,
 * which blocks all signals. While the thread cannot be started (the limit of processes), lines stay queued.
 */
#ifndef CRIER_SHM_UTIL_LOG_OUT_H
#define CRIER_SHM_UTIL_LOG_OUT_H

#include <stdbool.h>
#include <stddef.h>

enum {
    LOG_OUT_LINE_BYTES = 1024,
    LOG_OUT_QUEUE_BYTES = 16 * 1024,
};

/* Opens descriptor 2 anew where it has to be (inherited.h); else the first line does. */
void log_out_open(void);

/* `line` ends with the only '\n' in it and has at most LOG_OUT_LINE_BYTES. Copied. */
void log_out_put(const char *line, size_t bytes, bool is_minor);

/* Without a thread: true while lines, or a count of dropped lines, are still to be written. */
bool log_out_is_waiting(void);

/* Descriptor 2 needs a thread, which has not been started. */
bool log_out_lacks_thread(void);

/* Writes what there is room for; starts the thread if it is needed and does not run. */
void log_out_retry(void);

/* Before the process ends: waits up to `timeout_ms` until the queue is written. If the thread could not be
 * started, this thread writes the queue instead, and may block. */
void log_out_finish(int timeout_ms);

/* In a child between fork and exec: from here on lines are written to descriptor 2 directly, without a
 * queue and without a thread. */
void log_out_child(void);

#endif
