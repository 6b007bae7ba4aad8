/*
 * site.h: answers requests that ask for no WebSocket: the page, the health check, OPTIONS.
 *
 * Role:     worker.
 * Owns:     nothing: what it answers is static.
 * Errors:   none.
 * Context:  any thread.
 *
 *   request                     answer
 *   OPTIONS, any target         204 with Allow
 *   GET, HEAD /                 200, the page; not for a GET that wants a WebSocket
 *   GET, HEAD /_/healthz        200 "ok", which says that a worker serves
 *   GET, HEAD /_/...            404: the prefix is reserved for the server's own paths
 *   of these, with If-Match     412, unless it is "*": nothing here has an entity tag
 *   with If-None-Match: *       304 instead of 200
 *   any with a body             none of these
 *
 * handshake.h decides about all other requests, and refuses those that are no handshakes. A request for the
 * server's own paths never opens a WebSocket: Upgrade is ignored there, as RFC 9110 section 7.8 allows.
 */
#ifndef CRIER_WORKER_HTTP_SITE_H
#define CRIER_WORKER_HTTP_SITE_H

#include <stdbool.h>

#include "worker/proto/http1.h"

/* What answers a request. */
struct site_answer {
    int status;                 /* 200, 204, 304, 404 or 412 */
    const char *type;           /* of the content */
    const char *headers;        /* NULL: none */
    struct http1_slice content; /* as for GET; 404: the sentence, without a line feed */
};

/* False: it is not one of these requests. */
bool site_find(const struct http1_request *request, struct site_answer *answer);

#endif
