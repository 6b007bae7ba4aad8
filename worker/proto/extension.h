/*
 * extension.h: what a client offers in Sec-WebSocket-Extensions, and what is taken of it. RFC 6455
 * section 9.1 (the grammar), RFC 7692 sections 5 and 7.1 (permessage-deflate).
 *
 * Role:     the server side of the opening handshake.
 * Owns:     nothing: the request is borrowed for the call.
 * Errors:   a header that does not follow the grammar is reported; the handshake fails of it.
 * Context:  any thread.
 *
 * All lines of that name are one list. Its offers of permessage-deflate are tried in order, the
 * first one that this server can keep is the one that counts; extensions of other names are passed
 * over. An offer is declined, which is no error, when a parameter of it is unknown, occurs twice,
 * has a value that it may not have or lacks one that it must have, and when it asks to be sent a
 * window of 8 bits: zlib cannot make that one. Values in quotes are as good as those without. The
 * work is linear in the length of the header.
 */
#ifndef CRIER_PROTO_EXTENSION_H
#define CRIER_PROTO_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/proto/http1.h"

enum {
    EXTENSION_ANSWER_MAX_BYTES = 160, /* the longest answer, with the 0 behind it */
};

/* What was agreed. Both sides forget their window after each message, always: this is not in here.
 */
struct extension_deflate {
    bool agreed;                /* permessage-deflate is in the answer */
    bool server_bits_asked;     /* the offer had server_max_window_bits: the answer repeats it */
    uint8_t server_window_bits; /* 9 to 15: the window of what this client is sent compressed; 15
                                   unless its offer asked for less */
    uint8_t client_window_bits; /* 8 to 15 when the offer gave client_max_window_bits a value: the
                                   answer repeats it; 0: it did not, and the answer has none */
};

/* Reads all the lines; `*deflate` is all zero unless one of the offers is taken. False: a line is
 * not what RFC 6455 section 9.1 allows, of which sections 4.2.1 and 9.1 say that the handshake must
 * fail; nothing is agreed then. Empty elements of the list are none. */
bool extension_negotiate(const struct http1_request *req, struct extension_deflate *deflate);

/* The value of the answer's header, a string. Its bytes; 0: nothing was agreed, or it does not fit
 * into `out_bytes`. */
size_t extension_answer(const struct extension_deflate *deflate, char *out, size_t out_bytes);

#endif
