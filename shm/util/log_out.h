/*
 * log_out.h: lines to descriptor 2, without ever waiting for it while the process serves.
 *
 * Role:     every process of the server. log.h is its only user.
 * Owns:     what inherited.h makes of descriptor 2, and for INHERITED_BLOCKING a thread.
 * Lifetime: the process. The thread may be blocked in write for ever and is never waited for without a limit.
 * Errors:   none: a line that cannot be written is counted, and the count is written as soon as something
 *           can be: "crier: 3 lines of log were dropped".
 * Context:  loop thread, from the first line on, before and after there is a loop.
 *
 * A line that finds no room (a full pipe, a stopped terminal) waits in a queue of LOG_OUT_QUEUE_BYTES, and
 * log_out_retry, which the tick of each loop calls, writes it when there is room. Minor lines leave half
 * of the queue to the others. Lines leave in their order and whole: of a line that a terminal or a
 * stream socket took in part, the rest comes first. To a descriptor that needs one, a thread writes;
 * its queue is an inbox. It blocks all signals, and is started by the first line. While it cannot be started (the limit
 * of processes) its queue waits.
 */
#ifndef CRIER_SHM_UTIL_LOG_OUT_H
#define CRIER_SHM_UTIL_LOG_OUT_H

#include <stdbool.h>
#include <stddef.h>

enum {
    LOG_OUT_LINE_BYTES = 1024,
    LOG_OUT_QUEUE_BYTES = 16 * 1024,
};

/* `line` ends with the only '\n' in it and has at most LOG_OUT_LINE_BYTES. Copied. */
void log_out_put(const char *line, size_t bytes, bool is_minor);

/* Lines wait, and log_out_retry may get them out. */
bool log_out_is_waiting(void);
void log_out_retry(void);

/* The process is about to end: waits up to `timeout_ms` for what is queued. */
void log_out_finish(int timeout_ms);

/* In a child between fork and exec: closes what was opened; lines are written to descriptor 2 at once from here
 * on, without a thread and without a queue. */
void log_out_child(void);

#endif
