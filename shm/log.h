/*
 * log.h: one line per event on stderr, written whole.
 *
 * Role:     master and workers; shm/ and worker/proto/ never log, tools print for themselves.
 * Errors:   none. No process waits for a reader of its log: while stderr takes nothing (a full pipe, a
 *           stopped terminal, a file system that hangs), some lines are queued and more are dropped, and the
 *           next text that gets through says how many (shm/util/log_out.h).
 * Context:  loop thread. log_open before anything that may log; once more when the level is
 *           known.
 *
 * Say what, who, the error, and what happens now: "cannot accept: Too many open files; trying again
 * every 100 ms". What clients cause is counted, not logged, except as events for a person who
 * watches.
 */
#ifndef CRIER_SHM_LOG_H
#define CRIER_SHM_LOG_H

#include <stdbool.h>

#include "shm/conf.h"

enum log_level {
    LOG_ERROR,  /* the reader has to do something */
    LOG_WARN,   /* something went wrong, and this is what happens now */
    LOG_STATUS, /* start, stop: unless --quiet */
    LOG_EVENT,  /* a client came, a broadcast went: on a terminal, or with --verbose */
};

/* `role` stands before each line: "master", "worker 1". Copied. */
void log_open(const char *role, enum log_level highest);

/* Another role, nothing else. Copied. */
void log_set_role(const char *role);

/* In a child that is not the master any more and whose descriptors are about to be rearranged: another role, and
 * lines go to descriptor 2 at once. */
void log_child(const char *role);

/* With each tick of the loop: lines that found no room are written if there is some now. */
void log_retry(void);
bool log_is_waiting(void);

/* The process is about to end: gives its last lines a second at the most. */
void log_finish(void);

/* What --quiet, --verbose and a terminal ask for. */
enum log_level log_level_of(const struct conf_shm *conf);

bool log_wants(enum log_level level);

/* log_warn appends ": " and the text of errno, log_warnx does not. */
void log_errorx(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warnx(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_event(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
