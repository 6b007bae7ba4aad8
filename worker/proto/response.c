#include "worker/proto/response.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { RESPONSE_DATE_BYTES = 64 };

/* A reason phrase and the headers that only this status has. */
struct response_status {
    int status;
    const char *phrase;
    const char *connection;
    const char *headers;
};

static const struct response_status response_statuses[] = {
    {200, "OK", "close", ""},
    {204, "No Content", "close", "Allow: " RESPONSE_ALLOW "\r\n"},
    {304, "Not Modified", "close", ""},
    {400, "Bad Request", "close", ""},
    {403, "Forbidden", "close", ""},
    {404, "Not Found", "close", ""},
    {405, "Method Not Allowed", "close", "Allow: " RESPONSE_ALLOW "\r\n"},
    {408, "Request Timeout", "close", ""},
    {412, "Precondition Failed", "close", ""},
    {413, "Content Too Large", "close", ""},
    {414, "URI Too Long", "close", ""},
    /* Upgrade is hop-by-hop, so Connection names it: RFC 9110 section 7.8. */
    {426, "Upgrade Required", "close, Upgrade",
     "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"},
    {431, "Request Header Fields Too Large", "close", ""},
    {500, "Internal Server Error", "close", ""},
    {501, "Not Implemented", "close", ""},
    {503, "Service Unavailable", "close", "Retry-After: 1\r\n"},
    {505, "HTTP Version Not Supported", "close", ""},
};

static const struct response_status *
response_find(int status)
{
    for (size_t i = 0; i < sizeof(response_statuses) / sizeof(response_statuses[0]); i++)
        if (response_statuses[i].status == status)
            return &response_statuses[i];
    return NULL;
}

/* IMF-fixdate, RFC 9110 section 5.6.7: in English whatever the locale, so not with strftime. */
static void
response_date(time_t now, char out[RESPONSE_DATE_BYTES])
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;

    out[0] = '\0';
    if (gmtime_r(&now, &tm) && tm.tm_year >= 0 && tm.tm_year < 9999 - 1900)
        snprintf(out, RESPONSE_DATE_BYTES, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                 days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour,
                 tm.tm_min, tm.tm_sec);
}

/* What snprintf says, as a length: 0 if it was too long. */
static size_t
response_written(int written, size_t out_bytes)
{
    return written > 0 && (size_t)written < out_bytes ? (size_t)written : 0;
}

size_t
response_head(const struct response *response, char *out, size_t out_bytes)
{
    const struct response_status *status = response_find(response->status);
    char date[RESPONSE_DATE_BYTES];
    char content[128] = "";

    assert(status);
    response_date(response->now, date);
    if (response->status != 204 && response->status != 304) /* RFC 9110 sections 8.6 and 15.4.5 */
        snprintf(content, sizeof(content), "Content-Type: %s\r\nContent-Length: %zu\r\n",
                 response->type, response->content_bytes);
    return response_written(
        snprintf(out, out_bytes, "HTTP/1.1 %d %s\r\n%s%s%s%sConnection: %s\r\n\r\n", status->status,
                 status->phrase, date, content, status->headers,
                 response->headers ? response->headers : "", status->connection),
        out_bytes);
}

size_t
response_refusal(int status, const char *sentence, bool for_head, time_t now, char *out,
                 size_t out_bytes)
{
    size_t sentence_bytes = strlen(sentence);
    struct response response = {.status = status,
                                .type = "text/plain; charset=utf-8",
                                .content_bytes = sentence_bytes + 1,
                                .now = now};
    size_t head_bytes = response_head(&response, out, out_bytes);

    if (head_bytes == 0 || for_head)
        return head_bytes;
    if (out_bytes - head_bytes < sentence_bytes + 1)
        return 0;
    memcpy(out + head_bytes, sentence, sentence_bytes + 1);
    out[head_bytes + sentence_bytes] = '\n'; /* in the place of the NUL */
    return head_bytes + sentence_bytes + 1;
}
