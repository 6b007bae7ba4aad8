#define _GNU_SOURCE
#include "server/announce.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/clock.h"
#include "shm/log_summary.h"
#include "shm/member.h"

enum {
    ANNOUNCE_MS = 1000,
    ANNOUNCE_URL_BYTES = LISTEN_URL_BYTES + 32,
    ANNOUNCE_MISSED_BYTES = 256,
    ANNOUNCE_SKIPPED_BYTES = 64
};

static struct {
    int signal;        /* 0: the end of the input */
    uint64_t since_ns; /* the last line, or the stop; 0: is not stopping */
    uint64_t reading;  /* in the last line */
    uint64_t closing;
} stop;

static const char *
announce_s(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* --- the start --- */

static const char *
announce_page(const struct listeners *listeners, char text[ANNOUNCE_URL_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < listeners->count && !text[0]; i++) {
        const char *url = listeners->list[i].url;
        if (strncmp(url, "ws:", 3) == 0)
            snprintf(text, ANNOUNCE_URL_BYTES, "open http:%s in a browser, ", url + 3);
    }
    return text;
}

void
announce_start(const struct options *options, const struct listeners *listeners,
               bool reads_terminal)
{
    char ring[OPTIONS_SIZE_TEXT_BYTES];
    char page[ANNOUNCE_URL_BYTES];

    log_status("crier %s, pid %d, %u worker%s, ring %s per publisher", CRIER_VERSION, (int)getpid(),
               options->workers, announce_s(options->workers),
               options_size_text(options->conf.ring_bytes, ring));
    for (size_t i = 0; i < listeners->count; i++)
        log_status("listening on %s%s", listeners->list[i].url, listeners->list[i].scope);
    if (log_is_watched())
        log_status("%s%sCtrl-C stops the server", announce_page(listeners, page),
                   reads_terminal ? "type a line to send it to all clients, " : "");
}

/* --- stopping --- */

static void
announce_stop_for(const char *prefix, const char *reason)
{
    log_summary_write_all();
    stop.since_ns = clock_ns(CLOCK_MONOTONIC);
    log_status("%s%s: stopping when what is published is delivered", prefix, reason);
}

void
announce_stop(int signal)
{
    stop.signal = signal;
    announce_stop_for("SIG", sigabbrev_np(signal));
}

void
announce_input_end(bool broken)
{
    announce_stop_for("", broken ? "input error" : "end of input");
}

void
announce_abort(int signal)
{
    log_status("SIG%s: stopping at once", sigabbrev_np(signal));
}

static const char *
announce_remedy(void)
{
    if (log_is_watched())
        return stop.signal == SIGINT ? "Ctrl-C again stops at once" : "Ctrl-C stops at once";
    return stop.signal == SIGINT || stop.signal == SIGTERM ? "a second TERM or INT stops at once"
                                                           : "TERM or INT stops at once";
}

void
announce_waiting(const struct segment *segment, const struct roster *roster, uint64_t end_seq)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    uint64_t reading;
    uint64_t closing;

    if (now_ns - stop.since_ns < ANNOUNCE_MS * UINT64_C(1000000))
        return;
    reading = roster_count_behind(roster, end_seq);
    closing = reading ? 0 : member_clients_open(segment);
    if (reading == stop.reading && closing == stop.closing)
        return;
    stop.since_ns = now_ns;
    stop.reading = reading;
    stop.closing = closing;
    if (reading)
        log_status("waiting for %" PRIu64 " client%s to read; %s", reading, announce_s(reading),
                   announce_remedy());
    else if (closing)
        log_status("waiting for %" PRIu64 " client%s to answer the Close; %s", closing,
                   announce_s(closing), announce_remedy());
}

/* --- the end --- */

/* A client's own broadcast that went to all others was not due to it: it is in no number here. */
void
announce_end(const struct segment *segment, uint64_t skipped_lines)
{
    uint64_t due = member_counter_sum(segment, COUNTER_broadcasts_due) -
                   member_counter_sum(segment, COUNTER_broadcasts_not_addressed);
    uint64_t skipped = member_counter_sum(segment, COUNTER_broadcasts_skipped);
    uint64_t unsent = member_counter_sum(segment, COUNTER_broadcasts_undeliverable);
    char missed[ANNOUNCE_MISSED_BYTES] = "no client missed a broadcast";
    char lines[ANNOUNCE_SKIPPED_BYTES] = "";

    log_summary_write_all(); /* this line is the last */
    if (skipped + unsent)
        snprintf(missed, sizeof(missed),
                 "%" PRIu64 " missed: %" PRIu64 " skipped by slow clients, %" PRIu64
                 " not delivered before the client was gone",
                 skipped + unsent, skipped, unsent);
    if (skipped_lines)
        snprintf(lines, sizeof(lines), ", lines of input skipped: %" PRIu64, skipped_lines);
    log_status("stopped; clients served: %" PRIu64 ", broadcasts published: %" PRIu64
               "%s, deliveries: %" PRIu64 " of %" PRIu64 "; %s",
               member_counter_sum(segment, COUNTER_clients_opened),
               member_counter_sum(segment, COUNTER_broadcasts_published), lines,
               member_counter_sum(segment, COUNTER_broadcasts_delivered), due, missed);
}
