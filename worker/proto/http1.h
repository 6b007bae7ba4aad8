/*
 * http1.h: the head of an HTTP/1.0 or HTTP/1.1 request, strictly. RFC 9112.
 *
 * Role:     the server side of the opening handshake.
 * Owns:     nothing: a request is slices of the caller's buffer and dies with it.
 * Errors:   HTTP1_FAIL with the status and the sentence to answer with; close then.
 * Context:  any thread, one at a time per request.
 *
 * A server that reads a request differently than a proxy in front of it can be made to see two requests
 * where there is one (RFC 9112 section 11.2). So nothing is repaired that RFC 9112 lets a server repair (a
 * lone LF, folded lines, blanks before a colon), except that one empty line in front of the request is
 * ignored (section 2.2), and a head that gives the length of its body in two ways, or in none that is
 * valid, is refused (section 6). A body is not read, only reported (has_body): what follows such a head
 * must not be taken for anything else.
 */
#ifndef CRIER_PROTO_HTTP1_H
#define CRIER_PROTO_HTTP1_H

#include <stdbool.h>
#include <stddef.h>

enum {
    HTTP1_HEAD_MAX_BYTES = 8192,
    HTTP1_HEADERS_MAX = 64,
    HTTP1_METHOD_MAX_BYTES = 32,
};

enum http1_status {
    HTTP1_NEED_MORE,
    HTTP1_OK,
    HTTP1_FAIL,
};

/* Bytes in the caller's buffer, not terminated. */
struct http1_slice {
    const char *at;
    size_t bytes;
};

struct http1_header {
    struct http1_slice name;
    struct http1_slice value; /* without the white space around it */
};

struct http1_request {
    size_t scanned;            /* in, out: the end of the head is not before here; 0 at first */
    size_t head_bytes;         /* OK: what follows here is not part of the request */
    int fail_status;           /* FAIL: 400, 414, 431, 501 or 505 */
    const char *fail_sentence; /* FAIL: static */
    struct http1_slice method; /* FAIL: without bytes, unless it was read */
    struct http1_slice target; /* as it was sent; FAIL: the same */
    struct http1_slice host;   /* host[:port] of an absolute target, else of the Host header */
    struct http1_slice
        path; /* begins with a slash; nothing is decoded. "/" for OPTIONS * and CONNECT */
    struct http1_slice query; /* what is behind the question mark; at == NULL: there is none */
    bool is_http10;
    bool has_body; /* Transfer-Encoding, or a Content-Length other than 0 */
    size_t header_count;
    struct http1_header headers[HTTP1_HEADERS_MAX];
};

const char *http1_status_name(enum http1_status status);

/* Reads the head that begins at `buf`; called again, with more bytes behind the same beginning,
 * until it does not need more. Of `req` only `scanned` is read: 0, or what the call before has left
 * there, which saves looking for the end of the head where it was not. What cannot become a request
 * is refused at once: by the first byte if it begins no method (the PROXY protocol's version 2 by its
 * signature of twelve), by a request line that is wrong, or by a lone LF. */
enum http1_status http1_parse(const char *buf, size_t bytes, struct http1_request *req)
    __attribute__((warn_unused_result));

/* Is that the method? Case matters, RFC 9110 section 9.1. */
bool http1_is_method(const struct http1_request *req, const char *method);

/* The first header of that name behind `after` (NULL: of all), or NULL. Case does not matter. */
const struct http1_header *http1_header_next(const struct http1_request *req,
                                             const struct http1_header *after, const char *name);

/* The first header of that name, or NULL. */
const struct http1_header *http1_header_find(const struct http1_request *req, const char *name);

/* Is there more than one header of that name? */
bool http1_header_repeated(const struct http1_request *req, const char *name);

/* Is `token` in a header of that name? Several lines are one list, RFC 9110 section 5.3. */
bool http1_header_has_token(const struct http1_request *req, const char *name, const char *token);

/* Takes the first element that is not empty off a comma-separated list, without the white space
 * around it; false at the end. Quoted strings are not understood. RFC 9110 section 5.6.1. */
bool http1_list_next(struct http1_slice *list, struct http1_slice *element);

/* Is `token` an element of the list? Case does not matter. */
bool http1_token_list_has(struct http1_slice list, const char *token);

/* Splits host[:port]; `*port` is 0 when there is none. False: it is not of that form, or has no
 * host. RFC 3986 section 3.2, without user information. */
bool http1_authority_split(struct http1_slice authority, struct http1_slice *host, unsigned *port);

/* May `c` be in a token? RFC 9110 section 5.6.2. */
bool http1_is_token_char(char c);

/* The slice of a string, which is borrowed. */
struct http1_slice http1_slice_of(const char *text);

bool http1_slice_equal(struct http1_slice a, struct http1_slice b);

/* The same for any case of the letters A to Z, whatever the locale. */
bool http1_slice_equal_nocase(struct http1_slice a, struct http1_slice b);

#endif
