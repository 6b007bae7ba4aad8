#include "server/console_log.h"

#include <inttypes.h>

#include "shm/log_summary.h"
#include "shm/member.h"

/* Broadcasts that have no line yet. */
static struct {
    uint64_t first_seq;
    uint64_t last_seq;
    uint64_t bytes;
    uint64_t clients; /* when the last was published */
} news;

static void
console_write_broadcasts(uint64_t events)
{
    const char *clients_end = news.clients == 1 ? "" : "s";
    const char *bytes_end = news.bytes == 1 ? "" : "s";

    if (events == 1)
        log_event("broadcast #%" PRIu64 " to %" PRIu64 " client%s: %" PRIu64 " byte%s",
                  news.last_seq, news.clients, clients_end, news.bytes, bytes_end);
    else
        log_event("%" PRIu64 " broadcasts, #%" PRIu64 " to #%" PRIu64 ", to %" PRIu64
                  " client%s: %" PRIu64 " byte%s",
                  events, news.first_seq, news.last_seq, news.clients, clients_end, news.bytes,
                  bytes_end);
}

void
console_log_broadcast(const struct segment *segment, uint64_t seq, size_t bytes)
{
    static struct log_summary broadcasts = {.write = console_write_broadcasts};

    if (!log_wants(LOG_EVENT) || segment->conf->log_broadcasts == CONF_LOG_BROADCASTS_OFF)
        return;
    if (log_summary_is_new(&broadcasts)) {
        news.first_seq = seq;
        news.bytes = 0;
    }
    news.last_seq = seq;
    news.bytes += bytes;
    news.clients = member_clients_open(segment);
    log_summary_count(&broadcasts);
}

const char *
console_fault_text(enum console_fault fault)
{
    switch (fault) {
    case CONSOLE_TOO_LONG: return "longer than --max-message";
    case CONSOLE_NOT_UTF8: return "not valid UTF-8";
    case CONSOLE_DAMAGED: return "shared memory was overwritten";
    case CONSOLE_FAULTS: break;
    }
    return "unknown";
}

void
console_log_skipped(uint64_t line, enum console_fault fault)
{
    static struct log_summary faults[CONSOLE_FAULTS];

    log_summary_add(&faults[fault], LOG_WARN, "standard input, line %" PRIu64 ": %s; skipped", line,
                    console_fault_text(fault));
}

void
console_log_waiting(const struct segment *segment)
{
    uint64_t clients = segment->conf->wait_clients;

    log_status("standard input is not read until %" PRIu64 " client%s connected", clients,
               clients == 1 ? " is" : "s are");
}

void
console_log_end(const struct segment *segment, const char *why)
{
    const char *next = segment->conf->exit_on_eof ? "stopping"
                       : log_is_watched()         ? "still serving, Ctrl-C stops"
                                                  : "still serving";

    log_summary_write_all(); /* the lines came before the end */
    if (why)
        log_warnx("cannot read standard input: %s; %s", why, next);
    else if (!segment->conf->exit_on_eof)
        log_warnx("standard input has ended; %s", next);
}

void
console_log_long_datagram(size_t longest_bytes)
{
    static struct log_summary datagrams;

    log_summary_add(&datagrams, LOG_WARN,
                    "standard input: a datagram longer than %zu bytes; skipped", longest_bytes);
}
