/*
 * refusal.h: why a connection is refused, or ends before it is answered.
 *
 * Role:     the protocol names the cause; worker/refuse.h counts and logs it; the master counts
 *           REFUSAL_LOST.
 * Context:  any thread.
 *
 * The counters refused_* of shm/counters.def are in this order, and their sum is clients_refused.
 */
#ifndef CRIER_PROTO_REFUSAL_H
#define CRIER_PROTO_REFUSAL_H

enum refusal {
    REFUSAL_MALFORMED,   /* 400, 414, 431, 501, 505: no HTTP request that can be understood */
    REFUSAL_METHOD,      /* 405, 413, 501: a method that is not for this server, or a body */
    REFUSAL_PATH,        /* 404: a path below the server's own prefix that does not exist */
    REFUSAL_PLAIN,       /* 426: asks for no WebSocket */
    REFUSAL_PROXY,       /* 426: a handshake that lacks what a proxy takes away */
    REFUSAL_HANDSHAKE,   /* 400, 426, 431: a handshake with a wrong header */
    REFUSAL_ORIGIN,      /* 403: a page of another site */
    REFUSAL_APPLICATION, /* 403, 500 */
    REFUSAL_TIMEOUT,     /* 408 */
    REFUSAL_LEFT,        /* the client has left before it was answered */
    REFUSAL_STOPPING,    /* 503 */
    REFUSAL_BUSY,        /* 500, 503: no room in the ring; no memory, no descriptor */
    REFUSAL_UNWATCHED,   /* 503: unwatched.h */
    REFUSAL_LOST,        /* its worker has died */
    REFUSAL_COUNT,
};

#endif
