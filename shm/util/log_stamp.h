/*
 * log_stamp.h: the time in front of each line of the log, where the reader of descriptor 2 adds none.
 *
 * Role:     every process of the server. log.h and log_out.h are its only users.
 * Errors:   none.
 * Context:  any thread, also in a child between fork and exec: gmtime_r(3) takes a lock that another thread
 *           may have held during the fork, so the date is computed here.
 *
 * The one format is ISO 8601 in UTC with milliseconds and a space: "2026-11-28T15:04:05.123Z ". There is
 * no time on a terminal, which is read as it is written, nor in the journal of systemd, which notes the time
 * itself: the environment variable JOURNAL_STREAM then holds device and inode of descriptor 2
 * (systemd.exec(5)).
 */
#ifndef CRIER_SHM_UTIL_LOG_STAMP_H
#define CRIER_SHM_UTIL_LOG_STAMP_H

#include <stddef.h>
#include <stdint.h>

enum { LOG_STAMP_BYTES = 32 };

/* Whether descriptor 2 needs a time is decided with the first call. Returns the length, 0 without one. */
size_t log_stamp(char to[LOG_STAMP_BYTES]);

/* The time so many nanoseconds after 1970 began. Returns the length. */
size_t log_stamp_format(char to[LOG_STAMP_BYTES], uint64_t realtime_ns);

#endif
