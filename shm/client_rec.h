/*
 * client_rec.h: the record of one connection (struct client_shm in layout.h).
 *
 * Role:     the state says which process may write, so that no process ever waits for another:
 *
 *             state      written by                          goes to
 *             FREE       master                              PASSED: accepted, address filled in
 *             PASSED     no process (descriptor in transit)  TAKEN by the worker that received it
 *                                                            (RETURNED if without a descriptor),
 *                                                            FREE by the master: lost on the way
 *             TAKEN      its worker                          OPEN before the 101; LEFT: no client
 *             OPEN       its worker                          LEFT: counted; its handler is to run
 *             LEFT       its worker                          RETURNED
 *             RETURNED   master                              FREE
 *
 *           A worker gives a connection back by the state alone, after close(), and counts it in
 *           its member's clients_returned; the master collects when it looks for free records. When
 *           a worker has died, the master frees its records, and counts what they were still due.
 * Reading:  state, next_seq, bytes_sent and what stands beside them are single words. The address and first_seq belong together
 *           with state and are guarded by `version` (client_rec_read), which is odd while they
 *           change.
 * Errors:   client_rec_read gives up (-EAGAIN) after a bounded number of attempts.
 * Context:  the owner's loop thread; client_rec_read from any process.
 */
#ifndef CRIER_SHM_CLIENT_REC_H
#define CRIER_SHM_CLIENT_REC_H

#include <stddef.h>
#include <sys/socket.h>

#include "shm/layout.h"

enum { CLIENT_ADDR_TEXT_BYTES = 64 };

const char *client_state_name(enum client_state state);

/* Names a connection, never two: the index of its record and how often that was used. */
static inline uint64_t
client_rec_id(uint32_t index, const struct client_shm *record)
{
    return (uint64_t)record->generation << 32 | index;
}

/* Changing the guarded words: begin, plain stores, end. One writer at a time, see the table. */
void client_rec_change_begin(struct client_shm *record);
void client_rec_change_end(struct client_shm *record);

/* Makes the version even again after its writer has died in between. Master. */
void client_rec_repair(struct client_shm *record);

/* A consistent copy, or -EAGAIN. */
int client_rec_read(const struct client_shm *record, struct client_shm *copy)
    __attribute__((warn_unused_result));

/* Sets the address from what accept4 returned; a unix peer is named by `pid`. An IPv4 address that
 * arrived through an IPv6 socket becomes an IPv4 one. Between change_begin and change_end. */
void client_rec_set_addr(struct client_shm *record, const struct sockaddr *addr, int32_t pid);

/* 127.0.0.1:50189, [::1]:50189, unix:4711. Returns the length. */
size_t client_rec_addr_text(const struct client_shm *record, char text[CLIENT_ADDR_TEXT_BYTES]);

#endif
