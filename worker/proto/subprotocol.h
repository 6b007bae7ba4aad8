/*
 * subprotocol.h: which of the subprotocols that a client offers is agreed on. RFC 6455 sections 1.9,
 * 4.1, 4.2.2 and 11.3.4.
 *
 * Role:     the server side of the opening handshake; the master checks the option with it.
 * Owns:     nothing: the request and the option are borrowed, `*chosen` is a slice of the request.
 * Errors:   a header that a client must not send is reported; the handshake fails because of it.
 * Context:  any thread.
 *
 * `wanted` is the option --subprotocol: NULL or "" for none, "any", or names with commas between them. Names
 * are tokens and compared byte by byte. The first name of the client that is listed is chosen; with
 * "any" it is the client's first that does not begin with "crier." (reserved for this server), has at most
 * SUBPROTOCOL_NAME_MAX_BYTES, and does not look like a credential, which must not come back in an
 * answer: one of the words bearer, basic, authorization, token, jwt, key, secret and password, then a character
 * that is neither a letter nor a digit; or "eyJ" at the beginning. Only the last has a case. A credential
 * that looks like any other name is not recognised.
 */
#ifndef CRIER_PROTO_SUBPROTOCOL_H
#define CRIER_PROTO_SUBPROTOCOL_H

#include <stdbool.h>

#include "worker/proto/http1.h"

enum {
    SUBPROTOCOL_OFFERS_MAX = 64,      /* of one request: they are compared with each other */
    SUBPROTOCOL_NAME_MAX_BYTES = 255, /* of a name that is chosen: it is in the answer */
};

enum subprotocol_status {
    SUBPROTOCOL_OK,
    SUBPROTOCOL_MALFORMED, /* not a list of tokens, or an empty one */
    SUBPROTOCOL_REPEATED,  /* a name is there twice */
    SUBPROTOCOL_TOO_MANY,
};

const char *subprotocol_status_name(enum subprotocol_status status);

/* Reads all lines of Sec-WebSocket-Protocol, which are one list. Empty elements of the list are none
 * (RFC 9110 section 5.6.1). `chosen->bytes` is 0 when nothing is offered, wanted or in common. */
enum subprotocol_status subprotocol_choose(const struct http1_request *req, const char *wanted,
                                           struct http1_slice *chosen)
    __attribute__((warn_unused_result));

/* Is `wanted` "any", or a list of names without white space? */
bool subprotocol_wanted_valid(const char *wanted);

#endif
