/*
 * overlap.h: whether two sockets cannot listen side by side because one takes the other's connections.
 *
 * Role:     master.
 * Owns:     nothing.
 * Errors:   none.
 * Context:  any.
 */
#ifndef CRIER_SERVER_OVERLAP_H
#define CRIER_SERVER_OVERLAP_H

#include <stdbool.h>
#include <sys/socket.h>

/* `listening` listens; `fd` is to be bound to `addr`, an address of TCP. True if the ports are the same and
 * the addresses are equal or one of them is a wildcard that includes the other. */
bool overlap_is(int listening, int fd, const struct sockaddr *addr);

#endif
