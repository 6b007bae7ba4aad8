/*
 * The parser works in two steps. As bytes arrive it only looks for the end of the head, each byte
 * once, and for what no head may hold. When the head is whole it is taken apart line by line, each
 * line known to end with CR LF.
 */
#include "worker/proto/http1.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <string.h>

/* tchar, RFC 9110 section 5.6.2. */
static const bool http1_token_chars[256] = {
    ['!'] = true,         ['#' ... '\''] = true, ['*' ... '+'] = true,
    ['-' ... '.'] = true, ['0' ... '9'] = true,  ['A' ... 'Z'] = true,
    ['^' ... 'z'] = true, ['|'] = true,          ['~'] = true,
};

/* unreserved, sub-delims and what an escape is made of: RFC 3986 section 3.2.2. */
static const bool http1_host_chars[256] = {
    ['!'] = true, ['$' ... '.'] = true, ['0' ... '9'] = true, [';'] = true, ['='] = true,
    ['_'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['~'] = true,
};

const char *
http1_status_name(enum http1_status status)
{
    switch (status) {
    case HTTP1_NEED_MORE: return "need more";
    case HTTP1_OK: return "ok";
    case HTTP1_FAIL: return "fail";
    }
    return "unknown";
}

bool
http1_is_token_char(char c)
{
    return http1_token_chars[(unsigned char)c];
}

static enum http1_status
http1_fail(struct http1_request *req, int status, const char *sentence)
{
    req->fail_status = status;
    req->fail_sentence = sentence;
    return HTTP1_FAIL;
}

/* ---- slices ---------------------------------------------------------------------------------- */

struct http1_slice
http1_slice_of(const char *text)
{
    return (struct http1_slice){text, strlen(text)};
}

bool
http1_slice_equal(struct http1_slice a, struct http1_slice b)
{
    return a.bytes == b.bytes && (!a.bytes || !memcmp(a.at, b.at, a.bytes));
}

static unsigned char
http1_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : (unsigned char)c;
}

bool
http1_slice_equal_nocase(struct http1_slice a, struct http1_slice b)
{
    if (a.bytes != b.bytes)
        return false;
    if (http1_slice_equal(a, b)) /* as most people write it */
        return true;
    for (size_t i = 0; i < a.bytes; i++)
        if (http1_lower(a.at[i]) != http1_lower(b.at[i]))
            return false;
    return true;
}

static bool
http1_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool
http1_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
http1_is_hex(char c)
{
    return http1_is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static struct http1_slice
http1_trim(struct http1_slice s)
{
    while (s.bytes && http1_is_blank(s.at[s.bytes - 1]))
        s.bytes--;
    while (s.bytes && http1_is_blank(s.at[0])) {
        s.at++;
        s.bytes--;
    }
    return s;
}

/* What is before the first `c` in `*rest`, which then begins behind it. All of it if there is none;
 * `*rest` is then at NULL. */
static struct http1_slice
http1_cut(struct http1_slice *rest, char c)
{
    struct http1_slice all = *rest;
    const char *found = all.bytes ? memchr(all.at, c, all.bytes) : NULL;

    if (!found) {
        *rest = (struct http1_slice){NULL, 0};
        return all;
    }
    *rest = (struct http1_slice){found + 1, (size_t)(all.at + all.bytes - found - 1)};
    return (struct http1_slice){all.at, (size_t)(found - all.at)};
}

bool
http1_list_next(struct http1_slice *list, struct http1_slice *element)
{
    while (list->bytes) {
        *element = http1_trim(http1_cut(list, ','));
        if (element->bytes)
            return true;
    }
    return false;
}

bool
http1_token_list_has(struct http1_slice list, const char *token)
{
    struct http1_slice element;

    while (http1_list_next(&list, &element))
        if (http1_slice_equal_nocase(element, http1_slice_of(token)))
            return true;
    return false;
}

/* ---- the method, and headers by name ---------------------------------------------------------- */

bool
http1_is_method(const struct http1_request *req, const char *method)
{
    return http1_slice_equal(req->method, http1_slice_of(method));
}

const struct http1_header *
http1_header_next(const struct http1_request *req, const struct http1_header *after,
                  const char *name)
{
    struct http1_slice wanted = http1_slice_of(name);
    const struct http1_header *end = req->headers + req->header_count;

    for (const struct http1_header *h = after ? after + 1 : req->headers; h < end; h++)
        if (http1_slice_equal_nocase(h->name, wanted))
            return h;
    return NULL;
}

const struct http1_header *
http1_header_find(const struct http1_request *req, const char *name)
{
    return http1_header_next(req, NULL, name);
}

bool
http1_header_repeated(const struct http1_request *req, const char *name)
{
    const struct http1_header *first = http1_header_find(req, name);

    return first && http1_header_next(req, first, name);
}

bool
http1_header_has_token(const struct http1_request *req, const char *name, const char *token)
{
    const struct http1_header *h = NULL;

    while ((h = http1_header_next(req, h, name)))
        if (http1_token_list_has(h->value, token))
            return true;
    return false;
}

/* ---- host and port --------------------------------------------------------------------------- */

/* An empty port is none, RFC 3986 section 3.2.3. */
static bool
http1_port_parse(struct http1_slice text, unsigned *port)
{
    unsigned value = 0;

    *port = 0;
    if (!text.bytes)
        return true;
    if (text.at[0] != ':')
        return false;
    for (size_t i = 1; i < text.bytes; i++) {
        if (!http1_is_digit(text.at[i]))
            return false;
        value = value * 10 + (unsigned)(text.at[i] - '0');
        if (value > UINT16_MAX)
            return false;
    }
    *port = value;
    return text.bytes == 1 || value;
}

/* Bytes of the IPv6 address in brackets that `text` begins with, brackets included; 0: it is none. A zone
 * has no meaning beyond the client's machine: RFC 6874 section 4. */
static size_t
http1_literal_bytes(struct http1_slice text)
{
    const char *end = memchr(text.at, ']', text.bytes);
    size_t bytes = end ? (size_t)(end - text.at) - 1 : 0;
    char address[INET6_ADDRSTRLEN];
    struct in6_addr unused;

    if (bytes >= sizeof(address))
        return 0;
    memcpy(address, text.at + 1, bytes);
    address[bytes] = '\0';
    return inet_pton(AF_INET6, address, &unused) == 1 ? bytes + 2 : 0;
}

/* Is it a '%' with two hexadecimal digits, that `text` begins with? */
static bool
http1_is_escape(struct http1_slice text)
{
    return text.bytes >= 3 && text.at[0] == '%' && http1_is_hex(text.at[1]) &&
           http1_is_hex(text.at[2]);
}

/* Bytes of the name or IPv4 address that `text` begins with; 0: it is none. */
static size_t
http1_name_bytes(struct http1_slice text)
{
    size_t bytes = 0;

    while (bytes < text.bytes && http1_host_chars[(unsigned char)text.at[bytes]]) {
        if (text.at[bytes] == '%' &&
            !http1_is_escape((struct http1_slice){text.at + bytes, text.bytes - bytes}))
            return 0;
        bytes++;
    }
    return bytes;
}

bool
http1_authority_split(struct http1_slice authority, struct http1_slice *host, unsigned *port)
{
    bool is_literal = authority.bytes && authority.at[0] == '[';
    size_t host_bytes = is_literal ? http1_literal_bytes(authority) : http1_name_bytes(authority);

    if (!host_bytes)
        return false;
    *host = (struct http1_slice){authority.at, host_bytes};
    return http1_port_parse(
        (struct http1_slice){authority.at + host_bytes, authority.bytes - host_bytes}, port);
}

/* ---- while bytes arrive ---------------------------------------------------------------------- */

/* RFC 9112 section 2.2: one empty line in front of the request line is ignored. */
static size_t
http1_blank_bytes(const char *buf, size_t bytes)
{
    return bytes >= 2 && buf[0] == '\r' && buf[1] == '\n' ? 2 : 0;
}

/* A client that wants TLS begins with a record of type 22, RFC 8446 section 5.1. */
static enum http1_status
http1_fail_at(struct http1_request *req, char first)
{
    return http1_fail(req, 400,
                      first == 0x16
                          ? "This is TLS, but the port speaks HTTP: connect with ws://, or "
                            "put a proxy for wss:// in front."
                          : "This is no HTTP request.");
}

/* Both versions of it, which proxies send in front of a connection's first bytes if they are told to. */
static enum http1_status
http1_fail_proxy(struct http1_request *req)
{
    return http1_fail(req, 400,
                      "This is the PROXY protocol, which this server does not read: the proxy in "
                      "front must not send it (haproxy: no send-proxy).");
}

/* What version 2 begins with, behind an empty line. Its first byte is also that of an empty line. */
static const char http1_proxy_signature[] = {'\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

/* Fails as soon as `buf` cannot begin with a method and a space. */
static enum http1_status
http1_find_method(const char *buf, size_t bytes, struct http1_request *req)
{
    size_t signature_bytes = sizeof(http1_proxy_signature);

    if (bytes &&
        !memcmp(buf, http1_proxy_signature, bytes < signature_bytes ? bytes : signature_bytes))
        return bytes < signature_bytes ? HTTP1_NEED_MORE : http1_fail_proxy(req);
    for (size_t i = 0; i < bytes; i++) {
        if (buf[i] == ' ' && i > 0) {
            req->method = (struct http1_slice){buf, i};
            return HTTP1_OK;
        }
        if (!http1_token_chars[(unsigned char)buf[i]])
            return http1_fail_at(req, buf[0]);
        if (i == HTTP1_METHOD_MAX_BYTES)
            return http1_fail(req, 501, "The method is longer than any that this server knows.");
    }
    return HTTP1_NEED_MORE;
}

/* Looks for the empty line that ends the head, behind the first `blank` bytes. */
static enum http1_status
http1_find_end(const char *buf, size_t bytes, size_t blank, struct http1_request *req)
{
    size_t limit = bytes < HTTP1_HEAD_MAX_BYTES ? bytes : HTTP1_HEAD_MAX_BYTES;
    const char *end = buf + limit;
    const char *lf;

    assert(req->scanned <= limit);
    for (const char *at = buf + (req->scanned < blank ? blank : req->scanned);
         (lf = memchr(at, '\n', (size_t)(end - at))); at = lf + 1) {
        /* A method and a space are in front of any LF that is found here. */
        if (lf[-1] != '\r')
            return http1_fail(req, 400, "A line of the request does not end with CR LF.");
        if (lf[-2] == '\n') {
            req->head_bytes = (size_t)(lf + 1 - buf);
            return HTTP1_OK;
        }
    }
    req->scanned = limit;
    if (limit < HTTP1_HEAD_MAX_BYTES)
        return HTTP1_NEED_MORE;
    if (memchr(buf + blank, '\n', limit - blank))
        return http1_fail(req, 431, "The head of the request is longer than 8192 bytes.");
    return http1_fail(req, 414, "The request target is longer than 8192 bytes.");
}

/* ---- the whole head -------------------------------------------------------------------------- */

/* The next line without its CR LF. */
static struct http1_slice
http1_line_next(struct http1_slice *rest)
{
    struct http1_slice line = http1_cut(rest, '\n');

    line.bytes--;
    return line;
}

static enum http1_status
http1_check_version(struct http1_request *req, struct http1_slice version)
{
    req->is_http10 = false;
    if (http1_slice_equal(version, http1_slice_of("HTTP/1.1")))
        return HTTP1_OK;
    if (version.bytes != 8 || memcmp(version.at, "HTTP/", 5) != 0 ||
        !http1_is_digit(version.at[5]) || version.at[6] != '.' || !http1_is_digit(version.at[7]))
        return http1_slice_equal(req->method, http1_slice_of("PROXY")) /* its version 1 */
                   ? http1_fail_proxy(req)
                   : http1_fail(req, 400, "The request line is malformed.");
    if (version.at[5] != '1')
        return http1_fail(req, 505, "This server speaks HTTP/1.1 and HTTP/1.0.");
    req->is_http10 = version.at[7] == '0'; /* a higher one is read as 1.1, RFC 9110 section 2.5 */
    return HTTP1_OK;
}

/* Takes "scheme://authority" off an absolute target, RFC 9112 section 3.2.2. */
static bool
http1_cut_authority(struct http1_slice *target, struct http1_slice *authority)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
    struct http1_slice host;
    unsigned port;

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        struct http1_slice scheme = http1_slice_of(schemes[i]);
        size_t end = scheme.bytes;

        if (target->bytes < scheme.bytes ||
            !http1_slice_equal_nocase((struct http1_slice){target->at, scheme.bytes}, scheme))
            continue;
        while (end < target->bytes && target->at[end] != '/' && target->at[end] != '?')
            end++;
        *authority = (struct http1_slice){target->at + scheme.bytes, end - scheme.bytes};
        *target = (struct http1_slice){target->at + end, target->bytes - end};
        return http1_authority_split(*authority, &host, &port);
    }
    return false;
}

/* The forms that are no URL: "*" of OPTIONS, and HOST:PORT of CONNECT, RFC 9112 sections 3.2.3 and
 * 3.2.4. */
static bool
http1_has_no_path(const struct http1_request *req)
{
    return http1_is_method(req, "CONNECT") ||
           (http1_is_method(req, "OPTIONS") && http1_slice_equal(req->target, http1_slice_of("*")));
}

static enum http1_status
http1_parse_target(struct http1_request *req)
{
    struct http1_slice rest = req->target;

    for (size_t i = 0; i < rest.bytes; i++)
        if (rest.at[i] <= ' ' || rest.at[i] >= 0x7f || rest.at[i] == '#')
            return http1_fail(req, 400, "The request target holds a character that it may not.");
    req->host = (struct http1_slice){NULL, 0};
    if (http1_has_no_path(req))
        rest = http1_slice_of("/");
    if ((!rest.bytes || rest.at[0] != '/') && !http1_cut_authority(&rest, &req->host))
        return http1_fail(req, 400, "The request target is neither a path nor a valid http URL.");
    req->path = http1_cut(&rest, '?');
    req->query = rest;
    if (!req->path.bytes) /* "http://host" */
        req->path = http1_slice_of("/");
    return HTTP1_OK;
}

static enum http1_status
http1_parse_request_line(struct http1_request *req, struct http1_slice line)
{
    enum http1_status status;

    (void)http1_cut(&line, ' '); /* http1_find_method has it */
    req->target = http1_cut(&line, ' ');
    status = http1_check_version(req, line);
    return status == HTTP1_OK ? http1_parse_target(req) : status;
}

static bool
http1_value_valid(struct http1_slice value)
{
    for (size_t i = 0; i < value.bytes; i++) {
        unsigned char c = (unsigned char)value.at[i];

        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* RFC 9112 section 5. */
static enum http1_status
http1_parse_header(struct http1_request *req, struct http1_slice line)
{
    struct http1_header header;

    if (http1_is_blank(line.at[0]))
        return http1_fail(req, 400, "A header is folded over several lines.");
    header.name = http1_cut(&line, ':');
    if (!line.at || !header.name.bytes)
        return http1_fail(req, 400, "A header line has no name or no colon.");
    for (size_t i = 0; i < header.name.bytes; i++)
        if (!http1_is_token_char(header.name.at[i]))
            return http1_fail(req, 400, "The name of a header holds a character that it may not.");
    if (!http1_value_valid(line))
        return http1_fail(req, 400, "The value of a header holds a control character.");
    header.value = http1_trim(line);
    if (req->header_count == HTTP1_HEADERS_MAX)
        return http1_fail(req, 431, "The request has more than 64 headers.");
    req->headers[req->header_count++] = header;
    return HTTP1_OK;
}

/* RFC 9112 section 3.2: exactly one, and valid, even where an absolute target takes its place. Only
 * HTTP/1.0 does without it. */
static enum http1_status
http1_check_host(struct http1_request *req)
{
    const struct http1_header *header = http1_header_find(req, "Host");
    struct http1_slice host;
    unsigned port;

    if (!header && req->is_http10)
        return HTTP1_OK;
    if (!header)
        return http1_fail(req, 400, "The request has no Host header.");
    if (http1_header_repeated(req, "Host"))
        return http1_fail(req, 400, "The request has more than one Host header.");
    if (!http1_authority_split(header->value, &host, &port))
        return http1_fail(req, 400,
                          "The Host header is malformed (an IPv6 address stands in brackets, "
                          "without a zone).");
    if (!req->host.at)
        req->host = header->value;
    return HTTP1_OK;
}

/* A body whose length is given by the chunks of this, the only coding: RFC 9112 sections 6.1 and 6.3. */
static enum http1_status
http1_check_coding(struct http1_request *req)
{
    const struct http1_header *header = NULL;
    struct http1_slice last = {NULL, 0};
    size_t count = 0;

    while ((header = http1_header_next(req, header, "Transfer-Encoding"))) {
        struct http1_slice list = header->value;

        while (http1_list_next(&list, &last))
            count++;
    }
    if (req->is_http10)
        return http1_fail(req, 400, "HTTP/1.0 has no Transfer-Encoding.");
    if (!count || !http1_slice_equal_nocase(last, http1_slice_of("chunked")))
        return http1_fail(req, 400, "The last Transfer-Encoding is not chunked.");
    if (count > 1)
        return http1_fail(req, 501, "This server knows no Transfer-Encoding but chunked.");
    req->has_body = true;
    return HTTP1_OK;
}

/* A request whose body may end in several places may be two requests for a proxy: RFC 9112 section 6.3. */
static enum http1_status
http1_check_body(struct http1_request *req)
{
    const struct http1_header *length = http1_header_find(req, "Content-Length");
    bool is_valid = !length || length->value.bytes > 0;

    req->has_body = false;
    if (http1_header_find(req, "Transfer-Encoding"))
        return length ? http1_fail(req, 400, "Content-Length and Transfer-Encoding are both there.")
                      : http1_check_coding(req);
    for (size_t i = 0; length && i < length->value.bytes; i++) {
        is_valid &= http1_is_digit(length->value.at[i]);
        req->has_body |= length->value.at[i] != '0';
    }
    if (!is_valid || http1_header_repeated(req, "Content-Length"))
        return http1_fail(req, 400, "The Content-Length header is malformed.");
    return HTTP1_OK;
}

/* The head begins at `buf`. */
static enum http1_status
http1_parse_head(const char *buf, size_t bytes, struct http1_request *req)
{
    struct http1_slice rest = {buf, bytes - 2}; /* without the empty line */
    enum http1_status status = http1_parse_request_line(req, http1_line_next(&rest));

    while (status == HTTP1_OK && rest.bytes)
        status = http1_parse_header(req, http1_line_next(&rest));
    if (status == HTTP1_OK)
        status = http1_check_host(req);
    return status == HTTP1_OK ? http1_check_body(req) : status;
}

/* Fails if the bytes behind `scanned` have ended a request line that is wrong: that is said at once, also to
 * a client of HTTP/0.9, which sends nothing else, and before what is wrong behind that line. */
static enum http1_status
http1_check_first_line(const char *buf, size_t bytes, size_t blank, size_t scanned,
                       struct http1_request *req)
{
    const char *start = buf + blank;
    const char *lf = memchr(start, '\n', bytes - blank);

    if (!lf || lf < buf + scanned || lf[-1] != '\r')
        return HTTP1_OK;
    return http1_parse_request_line(req, (struct http1_slice){start, (size_t)(lf - 1 - start)});
}

enum http1_status
http1_parse(const char *buf, size_t bytes, struct http1_request *req)
{
    size_t blank = http1_blank_bytes(buf, bytes);
    size_t scanned = req->scanned;
    enum http1_status status;

    req->method = req->target = (struct http1_slice){NULL, 0};
    req->header_count = 0;
    status = http1_find_method(buf + blank, bytes - blank, req);
    if (status != HTTP1_OK) {
        req->scanned = bytes;
        return status;
    }
    status = http1_find_end(buf, bytes, blank, req);
    if (status == HTTP1_OK)
        return http1_parse_head(buf + blank, req->head_bytes - blank, req);
    if (bytes > HTTP1_HEAD_MAX_BYTES)
        bytes = HTTP1_HEAD_MAX_BYTES;
    if (http1_check_first_line(buf, bytes, blank, scanned, req) == HTTP1_FAIL)
        return HTTP1_FAIL;
    return status;
}
