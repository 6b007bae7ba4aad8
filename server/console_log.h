/*
 * console_log.h: what the log says of the lines of standard input.
 *
 * Role:     master.
 * Errors:   none.
 * Context:  loop thread.
 *
 * Input may have any number of lines per second, so each kind of event has a summary
 * (shm/log_summary.h).
 */
#ifndef CRIER_SERVER_CONSOLE_LOG_H
#define CRIER_SERVER_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "shm/segment.h"

enum console_fault {
    CONSOLE_TOO_LONG,
    CONSOLE_NOT_UTF8,
    CONSOLE_DAMAGED, /* another process has overwritten shared memory: the master continues */
    CONSOLE_FAULTS,
};

const char *console_fault_text(enum console_fault fault);

/* Broadcast `seq` was published. It is logged as an event (log.h), unless --log-broadcasts is off. */
void console_log_broadcast(const struct segment *segment, uint64_t seq, size_t bytes);

/* The line with this number was skipped. */
void console_log_skipped(uint64_t line, enum console_fault fault);

/* The input is not read before --wait-clients are connected. */
void console_log_waiting(const struct segment *segment);

/* The input has ended, or, if `why` is given, cannot be read for that reason. With --exit-on-eof the
 * end is not logged here, since announce_input_end logs it. */
void console_log_end(const struct segment *segment, const char *why);

/* A datagram was longer than what is read at once. */
void console_log_long_datagram(size_t longest_bytes);

#endif
