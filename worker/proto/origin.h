/*
 * origin.h: origins of pages, as browsers send them. RFC 6454.
 *
 * Role:     handshake.h, which decides by them; the master, for the option --origin.
 * Owns:     nothing: slices and lists are borrowed for the call.
 * Errors:   none: what is no origin equals nothing but the same text.
 * Context:  any thread.
 *
 * An origin is a scheme, a host and a port (section 4): the case of the first two does not matter, and the
 * default port of http, https, ws and wss may be left out. Browsers send "null" for pages without one
 * (sandboxes, files), and some a scheme without a host ("file://"). One slash at the end, which is the path of
 * the page and no part of its origin (section 6.2), is ignored: users and some clients write it.
 */
#ifndef CRIER_PROTO_ORIGIN_H
#define CRIER_PROTO_ORIGIN_H

#include <stdbool.h>

#include "worker/proto/http1.h"

/* Is it the page's own server that it connects to? `own` is the Host that was asked for. Without a port it has
 * the default one of the origin's scheme: a proxy in front may have taken TLS off, and a browser leaves out
 * no other scheme's default. Only for http, https, ws and wss. */
bool origin_is_of_host(struct http1_slice origin, struct http1_slice own);

/* Is it one of a list with commas between origins? */
bool origin_is_listed(struct http1_slice origin, const char *list);

/* Can it be in such a list: scheme://host[:port]? */
bool origin_is_listable(struct http1_slice origin);

#endif
