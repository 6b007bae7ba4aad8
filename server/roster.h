/*
 * roster.h: the client records, as the master hands them out and gets them back.
 *
 * Role:     master only. shm/client_rec.h says who may write a record in which state.
 * Owns:     the list of free records; the records themselves lie in the segment.
 * Errors:   -ENOBUFS: every record is in use.
 * Context:  loop thread.
 *
 * Records are used from the start of the array, the last one freed first, so that memory is touched
 * only as far as there were ever clients. A worker gives a record back by its state alone; the
 * master looks for those when its list is empty, and takes more of the array when it finds few.
 */
#ifndef CRIER_SERVER_ROSTER_H
#define CRIER_SERVER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shm/ring.h"
#include "shm/segment.h"

/* What the master goes by, and no worker can write. `worker` and `life` of the record in the segment
 * say the same, for tools. */
struct roster_owner {
    uint16_t life;  /* of the member when the descriptor was passed */
    uint8_t member; /* MEMBER_MASTER: it was passed to none */
    bool out;       /* is not in `free` */
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

/* And back: never fewer than roster_records was given. */
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

/* A record for a connection from `addr`; it stays CLIENT_FREE for everybody else until
 * roster_pass. */
int roster_get(struct roster *roster, const struct sockaddr *addr, int32_t pid, uint32_t *index)
    __attribute__((warn_unused_result));
void roster_put(struct roster *roster, uint32_t index);

/* The descriptor is about to be put into the channel of `member`. */
void roster_pass(struct roster *roster, uint32_t index, uint32_t member);
/* It was not, after all. */
void roster_keep(struct roster *roster, uint32_t index);

/* The master has received the descriptor from the channel of `member` itself. False when the record
 * does not say so: a worker has written where it must not. */
bool roster_take_back(struct roster *roster, uint32_t index, uint32_t member)
    __attribute__((warn_unused_result));

/* `member` was reaped: counts what its clients were due, frees its records but those in the
 * channel. */
struct roster_census roster_bury(struct roster *roster, uint32_t member, uint64_t tail);

/* The successor has emptied the channel: connections passed to earlier lives that it did not find
 * there died with them. Returns how many. */
uint32_t roster_sweep_lost(struct roster *roster, uint32_t member);

#endif
