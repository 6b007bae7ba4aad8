/*
 * handshake.h: the server's side of the opening handshake. RFC 6455 section 4.2.
 *
 * Role:     decides about a request that http1.h has read, and writes the answer that opens the WebSocket;
 *           others are written by response.h.
 * Owns:     nothing; the policy is borrowed for the call, sentences are static.
 * Errors:   a verdict with a status other than 101 and a sentence for the body of the response.
 * Context:  one thread at a time: all handshakes share one digest context.
 */
#ifndef CRIER_PROTO_HANDSHAKE_H
#define CRIER_PROTO_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/proto/extension.h"
#include "worker/proto/http1.h"
#include "worker/proto/refusal.h"
#include "worker/proto/response.h"
#include "worker/proto/subprotocol.h"

enum {
    HANDSHAKE_KEY_BYTES = 24,         /* 16 bytes in base64 */
    HANDSHAKE_ACCEPT_BYTES = 28,      /* SHA-1 in base64 */
    HANDSHAKE_ANSWER_MAX_BYTES = 768, /* 101 with the longest subprotocol */
};

/* Which pages may connect. A request without Origin does not come from a page and is let in. */
enum handshake_origin {
    HANDSHAKE_ORIGIN_SAME, /* those of the host that is connected to */
    HANDSHAKE_ORIGIN_ANY,
    HANDSHAKE_ORIGIN_LIST,
};

struct handshake_policy {
    enum handshake_origin origin;
    const char
        *origin_list; /* for LIST: "https://a.example,http://b:8080", as browsers write them */
    bool deflate;     /* permessage-deflate is given to clients that offer it */
    const char *subprotocols; /* which ones are agreed on, subprotocol.h */
};

struct handshake_verdict {
    int status; /* 101, 400, 403, 405, 413, 426, 431, 501, or 500 when SHA-1 is not to be had */
    enum refusal cause;                      /* unless 101 */
    const char *sentence;                    /* unless 101 */
    char accept[HANDSHAKE_ACCEPT_BYTES + 1]; /* 101: Sec-WebSocket-Accept, a string */
    struct extension_deflate deflate;        /* 101: what was agreed about compression */
    struct http1_slice subprotocol;          /* 101: of the request; no bytes: none is agreed on */
};

const char *handshake_origin_name(enum handshake_origin origin);

/* Can this process answer handshakes, that is, compute what RFC 6455 section 1.3 shows? Asked once,
 * at start: what OpenSSL needs for the first SHA-1 is there afterwards. */
bool handshake_ready(void);

/* What Sec-WebSocket-Key is to be answered with, a string. RFC 6455 section 4.2.2, step 5.4. False:
 * OpenSSL was set up without SHA-1, or has no memory. */
bool handshake_accept_of(const char key[HANDSHAKE_KEY_BYTES],
                         char accept[HANDSHAKE_ACCEPT_BYTES + 1]);

/* Does the client want a WebSocket, though its request may be wrong? A proxy that does not know WebSockets
 * takes Upgrade away and lets the other headers through. */
bool handshake_is_meant(const struct http1_request *req);

/* The method first, then what makes it a handshake, then whether that is right, the policy last. */
void handshake_check(const struct http1_request *req, const struct handshake_policy *policy,
                     struct handshake_verdict *v);

/* The answer that opens the connection. Bytes written, not terminated; 0: they do not fit. */
size_t handshake_answer_101(const struct handshake_verdict *v, char *out, size_t out_bytes);

#endif
