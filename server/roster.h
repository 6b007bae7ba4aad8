/*
 * roster.h: the client records, as the master hands them out and gets them back.
 *
 * Role:     master only. shm/client_rec.h has the writer of a record in each state.
 * Owns:     the list of free records; the records themselves lie in the segment.
 * Errors:   -ENOBUFS: every record is in use.
 * Context:  loop thread.
 *
 * Records are allocated from the start of the array, and the one freed last is reused first, so that
 * only as many are ever touched as there were clients at the peak. A worker returns a record by
 * setting its state to CLIENT_RETURNED; it sends no message. When its list is empty, the master
 * collects returned records, and extends the used part of the array if it finds few.
 */
#ifndef CRIER_SERVER_ROSTER_H
#define CRIER_SERVER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shm/ring.h"
#include "shm/segment.h"

/* The master's own copy, which no worker can write. For tools, `worker` and `life` of the record in
 * the segment have the same values. */
struct roster_owner {
    uint16_t life;  /* of the member when the descriptor was passed */
    uint8_t member; /* that the descriptor was passed to; MEMBER_MASTER: to none */
    bool out;       /* the record is not in `free` */
};

struct roster {
    const struct segment *segment;
    uint64_t *counters;          /* the master's: for what dead workers cannot count any more */
    uint32_t *free;              /* indices, a stack */
    struct roster_owner *owners; /* by index */
    uint16_t *lives;             /* by member: deaths so far, low bits */
    uint32_t free_count;
    uint32_t used; /* records below were in use at some time */
};

/* Records for so many connections at once. One in nine is spare, so that looking for those that
 * were returned costs a few steps per connection even when the server is full. */
enum { ROSTER_STEP = 64, ROSTER_SPARE = 8 };

static inline uint64_t
roster_records(uint64_t clients)
{
    return clients + clients / ROSTER_SPARE + ROSTER_STEP;
}

/* The inverse: roster_clients(roster_records(n)) >= n. */
static inline uint64_t
roster_clients(uint64_t records)
{
    return records / (ROSTER_SPARE + 1) * ROSTER_SPARE;
}

/* What a dead worker's place holds. */
struct roster_census {
    uint32_t lost;   /* clients past the handshake that died with it */
    uint32_t passed; /* connections in its channel, for the successor */
};

int roster_init(struct roster *roster, const struct segment *segment)
    __attribute__((warn_unused_result));
void roster_fini(struct roster *roster);

/* Allocates a record for a connection from `addr`. Its state stays CLIENT_FREE until roster_pass. */
int roster_get(struct roster *roster, const struct sockaddr *addr, int32_t pid, uint32_t *index)
    __attribute__((warn_unused_result));
void roster_put(struct roster *roster, uint32_t index);

/* Call before the descriptor is sent to the channel of `member`. */
void roster_pass(struct roster *roster, uint32_t index, uint32_t member);
/* Undoes roster_pass: the descriptor could not be sent. */
void roster_keep(struct roster *roster, uint32_t index);

/* The master itself has received the descriptor from the channel of `member`. False if no descriptor
 * of this record is in that channel: another process has overwritten shared memory. */
bool roster_take_back(struct roster *roster, uint32_t index, uint32_t member)
    __attribute__((warn_unused_result));

/* `member` was reaped: counts what its clients were due, frees its records but those in the
 * channel. */
struct roster_census roster_bury(struct roster *roster, uint32_t member, uint64_t tail);

/* Clients past the handshake that have not been sent all broadcasts below `seq`. */
uint32_t roster_count_behind(const struct roster *roster, uint64_t seq);

/* Call when the successor has emptied the channel: connections that were passed to predecessors and
 * not found there were lost with them. Frees their records and returns their number. */
uint32_t roster_sweep_lost(struct roster *roster, uint32_t member);

#endif
