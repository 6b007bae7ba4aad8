/*
 * fuzz_http1.c: a head that arrives in pieces is read as the same head at once; what is reported
 * lies in the buffer, in front of head_bytes; and what was found right is so by a second, plainer
 * reading of the same bytes.
 *
 *   input: the request
 */
#include <ctype.h>
#include <strings.h>

#include "tests/fuzz/fuzz.h"
#include "worker/proto/http1.h"

static void
require_inside(struct http1_slice slice, const char *buf, size_t bytes)
{
    REQUIRE(slice.at >= buf && slice.bytes <= bytes &&
            (size_t)(slice.at - buf) <= bytes - slice.bytes);
}

/* From here to there: those are two readings of the same text at two places. */
static void
require_same_slice(struct http1_slice a, const char *a_buf, struct http1_slice b, const char *b_buf)
{
    REQUIRE(http1_slice_equal(a, b) && !a.at == !b.at);
    REQUIRE(a.at - a_buf == b.at - b_buf);
}

/* "/" where the target has no path is not the buffer's. */
static bool
path_is_made_up(const struct http1_request *req)
{
    return req->target.bytes > 0 && req->target.at[0] != '/' && req->path.bytes == 1 &&
           (req->path.at < req->target.at || req->path.at >= req->target.at + req->target.bytes);
}

static void
check_slices(const struct http1_request *req, const char *buf)
{
    require_inside(req->method, buf, req->head_bytes);
    require_inside(req->target, buf, req->head_bytes);
    if (req->host.at)
        require_inside(req->host, buf, req->head_bytes);
    REQUIRE(req->path.bytes > 0 && req->path.at[0] == '/');
    if (!path_is_made_up(req))
        require_inside(req->path, req->target.at, req->target.bytes);
    if (req->query.at)
        require_inside(req->query, req->target.at, req->target.bytes);
    REQUIRE(req->header_count <= HTTP1_HEADERS_MAX);
    for (size_t i = 0; i < req->header_count; i++) {
        require_inside(req->headers[i].name, buf, req->head_bytes);
        require_inside(req->headers[i].value, buf, req->head_bytes);
    }
}

/* A line is "name: value" with one of the reported headers; RFC 9112 section 5. */
static void
check_header_line(const struct http1_header *header, const char *line, size_t bytes)
{
    const char *value = line + header->name.bytes + 1;
    const char *end = line + bytes;

    REQUIRE(header->name.at == line && header->name.bytes > 0 && value <= end);
    REQUIRE(value[-1] == ':');
    for (size_t i = 0; i < header->name.bytes; i++)
        REQUIRE(isgraph((unsigned char)line[i]) && !strchr("\"(),/:;<=>?@[\\]{}", line[i]));
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    REQUIRE(header->value.bytes == (size_t)(end - value));
    REQUIRE(header->value.bytes == 0 || header->value.at == value);
    for (; value < end; value++)
        REQUIRE(*value == '\t' || ((unsigned char)*value >= ' ' && *value != 0x7f));
}

/* The head line by line: each ends with CR LF, the last one is empty, none is unreported. */
static void
check_lines(const struct http1_request *req, const char *buf)
{
    size_t head_bytes = req->head_bytes;
    const char *line;
    size_t hosts = 0;

    if (memcmp(buf, "\r\n", 2) == 0)
        buf += 2, head_bytes -= 2;
    line = memchr(buf, '\n', head_bytes);
    REQUIRE(line && line - buf >= 11 && memcmp(line - 10, " HTTP/1.", 8) == 0);
    REQUIRE(line[-1] == '\r' && isdigit((unsigned char)line[-2]));
    REQUIRE(req->is_http10 == (line[-2] == '0'));
    REQUIRE(req->method.at == buf && req->target.at == buf + req->method.bytes + 1);
    REQUIRE(req->target.at + req->target.bytes == line - 10);
    for (size_t i = 0; i < req->header_count; i++) {
        const char *next = line + 1;

        line = memchr(next, '\n', head_bytes - (size_t)(next - buf));
        REQUIRE(line && line[-1] == '\r');
        check_header_line(&req->headers[i], next, (size_t)(line - 1 - next));
        hosts +=
            req->headers[i].name.bytes == 4 && strncasecmp(req->headers[i].name.at, "host", 4) == 0;
    }
    REQUIRE(hosts == 1 || (hosts == 0 && req->is_http10));
    REQUIRE(line + 3 == buf + head_bytes && line[1] == '\r' && line[2] == '\n');
}

static void
require_same_request(const struct http1_request *a, const char *a_buf,
                     const struct http1_request *b, const char *b_buf)
{
    REQUIRE(a->head_bytes == b->head_bytes && a->has_body == b->has_body);
    require_same_slice(a->method, a_buf, b->method, b_buf);
    require_same_slice(a->target, a_buf, b->target, b_buf);
    REQUIRE(!a->host.at == !b->host.at && a->is_http10 == b->is_http10);
    if (a->host.at)
        require_same_slice(a->host, a_buf, b->host, b_buf);
    REQUIRE(path_is_made_up(a) == path_is_made_up(b));
    REQUIRE(http1_slice_equal(a->path, b->path) && http1_slice_equal(a->query, b->query));
    REQUIRE(a->header_count == b->header_count);
    for (size_t i = 0; i < a->header_count; i++) {
        require_same_slice(a->headers[i].name, a_buf, b->headers[i].name, b_buf);
        require_same_slice(a->headers[i].value, a_buf, b->headers[i].value, b_buf);
    }
}

/* Feeds it `step` bytes at a time, up to a decision, which is what `whole` is. What has not
 * arrived yet reads as something else. */
static void
check_in_steps(const char *text, size_t bytes, size_t step, enum http1_status whole_status,
               const struct http1_request *whole)
{
    struct http1_request req = {0};
    enum http1_status status = HTTP1_NEED_MORE;
    char *grown = malloc(bytes + 1);

    REQUIRE(grown);
    memset(grown, '\n', bytes + 1);
    for (size_t there = 0; there < bytes && status == HTTP1_NEED_MORE;) {
        size_t more = step < bytes - there ? step : bytes - there;

        memcpy(grown + there, text + there, more);
        there += more;
        status = http1_parse(grown, there, &req);
        if (status == HTTP1_NEED_MORE)
            REQUIRE(there < HTTP1_HEAD_MAX_BYTES && req.scanned == there);
        if (status == HTTP1_OK)
            REQUIRE(req.head_bytes <= there && there - req.head_bytes < step);
    }
    REQUIRE(status == whole_status);
    if (status == HTTP1_FAIL)
        REQUIRE(req.fail_status == whole->fail_status && req.fail_sentence == whole->fail_sentence);
    if (status == HTTP1_OK)
        require_same_request(&req, grown, whole, text);
    free(grown);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    struct http1_request req = {0};
    enum http1_status status = http1_parse(text, bytes, &req);

    if (status == HTTP1_FAIL)
        REQUIRE(req.fail_status == 400 || req.fail_status == 414 || req.fail_status == 431 ||
                req.fail_status == 501 || req.fail_status == 505);
    if (status == HTTP1_OK) {
        REQUIRE(req.head_bytes <= bytes && req.head_bytes <= HTTP1_HEAD_MAX_BYTES);
        check_slices(&req, text);
        check_lines(&req, text);
    }
    check_in_steps(text, bytes, 1, status, &req);
    check_in_steps(text, bytes, bytes % 61 + 2, status, &req);
    return 0;
}
