/*
 * log.h: one line per event on stderr, written whole, where it is needed with its time (log_stamp.h).
 *
 * Role:     master and workers; shm/ and worker/proto/ never log, tools print for themselves.
 * Errors:   none. No process waits for a reader of its log: while nothing can be written to stderr (a full
 *           pipe, a stopped terminal, a file system that hangs), lines are queued, and dropped when the
 *           queue is full; the next text that is written gives their number (shm/util/log_out.h).
 * Context:  loop thread. log_open is called before anything that may log, and again when the level is
 *           known.
 *
 * A line gives the event, the client or worker, the error and the consequence: "cannot accept: Too many
 * open files; trying again every 100 ms". What clients or input cause gets one line per second and cause
 * (log_summary.h), or a line of its own as LOG_EVENT. Whatever a line contains is escaped (shm/util/escape.h),
 * and a line that is too long is cut off, with "...".
 */
#ifndef CRIER_SHM_LOG_H
#define CRIER_SHM_LOG_H

#include <stdbool.h>

#include "shm/conf.h"

enum log_level {
    LOG_ERROR,  /* an operator has to act */
    LOG_WARN,   /* an error, and what the server does about it */
    LOG_STATUS, /* start and stop; not with --quiet */
    LOG_EVENT,  /* a client has connected, a broadcast was sent: on a terminal, or with --verbose */
};

/* `role` stands before each line: "master", "worker 1". Copied. */
void log_open(const char *role, enum log_level highest);

/* Opens what lines are written to, which the first line does otherwise: a process whose descriptors are used
 * up later can still log. */
void log_begin(void);

/* Changes the role and nothing else. Copied. */
void log_set_role(const char *role);

/* In a child between fork and exec, before it rearranges its descriptors: changes the role, and lines are
 * written to descriptor 2 directly (log_out_child). */
void log_child(const char *role);

/* With each tick of the loop: writes the summaries that are due (log_summary.h), and queued lines if there
 * is room now (log_out_retry). */
void log_tick(void);

/* A summary or a queued line (log_out_is_waiting) is still to be written: the tick should come soon. */
bool log_is_waiting(void);

/* log_out_lacks_thread: one is started with the next line, or is to be as soon as the limits allow it. */
bool log_lacks_thread(void);

/* Before the process ends: writes the summaries, and waits up to a second until queued lines are written. */
void log_finish(void);

/* What --quiet, --verbose and a terminal ask for. */
enum log_level log_level_of(const struct conf_shm *conf);

bool log_wants(enum log_level level);

/* Descriptor 2 is a terminal. */
bool log_is_watched(void);

/* For a level that is not known when the program is compiled. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* log_warn appends ": " and the text of errno, log_warnx does not. */
void log_errorx(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warnx(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_event(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
