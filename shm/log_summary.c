#include "shm/log_summary.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "shm/clock.h"

static struct log_summary *log_summary_first;

static bool
log_summary_is_due(const struct log_summary *summary, uint64_t now_ns)
{
    return summary->written_ns == 0 ||
           now_ns - summary->written_ns >= LOG_SUMMARY_MS * UINT64_C(1000000);
}

static void
log_summary_write(struct log_summary *summary, uint64_t now_ns)
{
    uint64_t events = summary->events;

    summary->events = 0;
    summary->written_ns = now_ns;
    if (summary->write)
        summary->write(events);
    else if (events == 1)
        log_line(summary->level, "%s", summary->text);
    else
        log_line(summary->level, "%s (and %" PRIu64 " more)", summary->text, events - 1);
}

void
log_summary_count(struct log_summary *summary)
{
    uint64_t now_ns;

    if (summary->events++ > 0)
        return;
    now_ns = clock_ns(CLOCK_MONOTONIC);
    if (log_summary_is_due(summary, now_ns)) {
        log_summary_write(summary, now_ns);
        return;
    }
    summary->next = log_summary_first;
    log_summary_first = summary;
}

void
log_summary_add(struct log_summary *summary, enum log_level level, const char *format, ...)
{
    va_list args;

    if (!log_wants(level))
        return;
    if (log_summary_is_new(summary)) {
        summary->level = level;
        va_start(args, format);
        vsnprintf(summary->text, sizeof(summary->text), format, args);
        va_end(args);
    }
    log_summary_count(summary);
}

/* Writes those of the list that are due, or all, and takes them off it. */
static void
log_summary_write_list(bool all)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    struct log_summary **at = &log_summary_first;

    while (*at) {
        struct log_summary *summary = *at;

        if (all || log_summary_is_due(summary, now_ns)) {
            *at = summary->next;
            log_summary_write(summary, now_ns);
        } else {
            at = &summary->next;
        }
    }
}

void
log_summary_write_due(void)
{
    if (log_summary_first)
        log_summary_write_list(false);
}

void
log_summary_write_all(void)
{
    if (log_summary_first)
        log_summary_write_list(true);
}

bool
log_summary_is_waiting(void)
{
    return log_summary_first != NULL;
}
