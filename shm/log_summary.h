/*
 * log_summary.h: gives events that may come many times per second one line per second in the log.
 *
 * Role:     master and workers, for every event that input or clients can cause.
 * Owns:     nothing. A struct log_summary has static storage: it is on a list of the process while a line
 *           is due.
 * Errors:   none.
 * Context:  loop thread. log_tick writes the lines that are due, log_finish those that are left.
 *
 * An event gets its line at once when the last line of its kind is a second old. Further events are
 * counted; when that second is over, the next tick writes one line for all of them. So a line that stands
 * for one event is the same as a line without a summary, and every event is in a line.
 *
 *   static struct log_summary refused;
 *   log_summary_add(&refused, LOG_WARN, "%s refused: %s", addr, why);
 *
 * writes "ADDR refused: WHY" or, for 42 events, "ADDR refused: WHY (and 41 more)" with the text of the
 * first one. One struct per cause, so that a frequent one hides no other. When a line should say more of
 * the events than that, the caller gathers it and writes the line in a function of its own:
 *
 *   static struct log_summary broadcasts = {.write = console_write_broadcasts};
 *   if (log_summary_is_new(&broadcasts))
 *       bytes = 0;
 *   bytes += line_bytes;
 *   log_summary_count(&broadcasts);
 */
#ifndef CRIER_SHM_LOG_SUMMARY_H
#define CRIER_SHM_LOG_SUMMARY_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/log.h"

enum { LOG_SUMMARY_MS = 1000, LOG_SUMMARY_TEXT_BYTES = 512 };

struct log_summary {
    void (*write)(
        uint64_t events);     /* logs one line for so many events, at least one; NULL: `text` */
    uint64_t events;          /* without a line yet */
    uint64_t written_ns;      /* CLOCK_MONOTONIC; 0: never */
    struct log_summary *next; /* in the list of those with `events` */
    enum log_level level;     /* of `text` */
    char text[LOG_SUMMARY_TEXT_BYTES];
};

/* An event whose line is this text. Formats it only if it is going to be written. */
void log_summary_add(struct log_summary *summary, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* An event for `write`. */
void log_summary_count(struct log_summary *summary);

/* No event waits for a line: what the caller has gathered for `write` is in the log. */
static inline bool
log_summary_is_new(const struct log_summary *summary)
{
    return summary->events == 0;
}

/* Writes all lines, due or not: the line that the caller writes next has to stand behind them. */
void log_summary_write_all(void);

/* For log.c. */
void log_summary_write_due(void);
bool log_summary_is_waiting(void);

#endif
