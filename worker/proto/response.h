/*
 * response.h: a response that ends its connection. RFC 9110, RFC 9112.
 *
 * Role:     writes heads of responses; the status line, Date, Content-Length and Connection, and what RFC
 *           9110 demands with a status: Allow with 405, Upgrade with 426.
 * Owns:     nothing: texts are borrowed for the call.
 * Errors:   0: it does not fit.
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_RESPONSE_H
#define CRIER_PROTO_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum {
    RESPONSE_HEAD_MAX_BYTES = 768,     /* any head that this server writes */
    RESPONSE_SENTENCE_MAX_BYTES = 256, /* of a refusal */
    RESPONSE_MAX_BYTES = RESPONSE_HEAD_MAX_BYTES + RESPONSE_SENTENCE_MAX_BYTES + 1,
};

/* The methods that a resource of this server may have. */
#define RESPONSE_ALLOW "GET, HEAD, OPTIONS"

struct response {
    int status; /* 200, 204, 304, 400, 403, 404, 405, 408, 412, 413, 414, 426, 431, 500, 501, 503, 505 */
    const char *type;     /* of the content */
    const char *headers;  /* more of them, each with CR LF; NULL: none */
    size_t content_bytes; /* as for GET, whether or not the content follows; not for 204 and 304 */
    time_t now;
};

/* Writes the head, with the empty line. Bytes written, not terminated; 0: they do not fit. */
size_t response_head(const struct response *response, char *out, size_t out_bytes);

/* A whole refusal: the sentence and a line feed are its content, which is left out for HEAD (RFC 9110
 * section 9.3.2). */
size_t response_refusal(int status, const char *sentence, bool for_head, time_t now, char *out,
                        size_t out_bytes);

#endif
