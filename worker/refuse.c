#include "worker/refuse.h"

#include <stdio.h>
#include <string.h>

#include "shm/log_summary.h"
#include "shm/util/escape.h"
#include "worker/conn.h"
#include "worker/proto/origin.h"

enum {
    REFUSE_SHOWN_BYTES = 120, /* of a target or a header, at most */
    REFUSE_DETAIL_BYTES = 480,
};

_Static_assert(COUNTER_refused_lost - COUNTER_refused_malformed == REFUSAL_COUNT - 1 &&
                   (int)REFUSAL_LOST == (int)REFUSAL_COUNT - 1,
               "a counter for each cause, in the same order");

static enum log_level
refuse_level(const struct conn *conn, enum refusal cause)
{
    switch (cause) {
    case REFUSAL_PROXY:
    case REFUSAL_ORIGIN:
    case REFUSAL_BUSY: return LOG_WARN;
    case REFUSAL_LEFT:
    case REFUSAL_STOPPING: return LOG_EVENT;
    case REFUSAL_TIMEOUT:
        if (conn->state == CONN_HANDSHAKE && conn->head_scanned == 0)
            return LOG_EVENT;
        break;
    default: break;
    }
    return LOG_STATUS;
}

/* ", for \"GET /chat\"": as much as is known of the request. */
static void
refuse_describe(const struct http1_request *request, char out[REFUSE_DETAIL_BYTES])
{
    char method[4 * HTTP1_METHOD_MAX_BYTES + 1];
    char target[REFUSE_SHOWN_BYTES];

    out[0] = '\0';
    if (!request || !request->method.bytes)
        return;
    escape_text(method, sizeof(method), request->method.at, request->method.bytes, ESCAPE_QUOTED);
    escape_text(target, sizeof(target), request->target.at, request->target.bytes, ESCAPE_QUOTED);
    snprintf(out, REFUSE_DETAIL_BYTES, ", for \"%s%s%s\"", method, *target ? " " : "", target);
}

/* Both sides of the comparison, and what makes them equal. */
static void
refuse_describe_origin(const struct conn *conn, const struct http1_request *request,
                       char out[REFUSE_DETAIL_BYTES])
{
    const struct http1_header *header = http1_header_find(request, "Origin");
    char origin[REFUSE_SHOWN_BYTES];
    char host[REFUSE_SHOWN_BYTES];

    escape_text(origin, sizeof(origin), header->value.at, header->value.bytes, ESCAPE_QUOTED);
    escape_text(host, sizeof(host), request->host.at, request->host.bytes, ESCAPE_QUOTED);
    if (!origin_is_listable(header->value))
        snprintf(out, REFUSE_DETAIL_BYTES,
                 "its page is from Origin \"%s\" (Host \"%s\"), which no list can name: only "
                 "--origin any lets such pages in",
                 origin, host);
    else if (conn->worker->policy.origin == HANDSHAKE_ORIGIN_SAME)
        snprintf(
            out, REFUSE_DETAIL_BYTES,
            "its page is from Origin \"%s\" and not from this Host, \"%s\": give --origin that "
            "origin, or, if a proxy in front replaces Host, let it pass Host on (nginx: "
            "proxy_set_header Host $http_host)",
            origin, host);
    else
        snprintf(
            out, REFUSE_DETAIL_BYTES,
            "its page is from Origin \"%s\" (Host \"%s\"), which --origin does not list: add it "
            "there to let such pages in",
            origin, host);
}

static void
refuse_log(const struct conn *conn, enum refusal cause, int status, const char *sentence,
           const struct http1_request *request)
{
    static struct log_summary summaries[REFUSAL_COUNT];
    enum log_level level = refuse_level(conn, cause);
    char addr[CLIENT_ADDR_TEXT_BYTES];
    char detail[REFUSE_DETAIL_BYTES];

    if (!log_wants(level))
        return;
    client_rec_addr_text(conn->record, addr);
    if (cause == REFUSAL_ORIGIN) {
        refuse_describe_origin(conn, request, detail);
        log_summary_add(&summaries[cause], level, "%s refused with %d: %s", addr, status, detail);
    } else if (sentence) {
        size_t bytes = strlen(sentence);

        bytes -= bytes > 0 && sentence[bytes - 1] == '.';
        refuse_describe(request, detail);
        log_summary_add(&summaries[cause], level, "%s refused with %d%s: %.*s", addr, status,
                        detail, (int)bytes, sentence);
    } else {
        log_summary_add(&summaries[cause], level, "%s %s before its handshake was complete", addr,
                        cause == REFUSAL_LEFT ? "has left" : "was disconnected");
    }
}

void
refuse_count(struct worker *worker, enum refusal cause)
{
    counter_add(worker->counters, clients_refused, 1);
    atomic_bump(&worker->counters[COUNTER_refused_malformed + (int)cause], 1);
}

void
refuse_note(const struct conn *conn, enum refusal cause, int status, const char *sentence,
            const struct http1_request *request)
{
    refuse_count(conn->worker, cause);
    if (cause != REFUSAL_UNWATCHED)
        refuse_log(conn, cause, status, sentence, request);
}
