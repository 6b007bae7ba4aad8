/*
 * dispatch.h: which worker gets a connection, and the way there.
 *
 * Role:     master only; the workers' side is shm/chan.h.
 * Owns:     both ends of every channel (they outlive the workers), and the descriptor of a
 *           connection from dispatch_put until a worker's channel has it.
 * Errors:   negative errno at start. Later none: what cannot be sent now waits for the channel.
 * Context:  loop thread; nothing blocks.
 *
 * A worker's load is what it was passed less what it says it has given back; it never gets more
 * than its descriptor table holds, because the kernel drops what does not fit there without an
 * error. Connections are gathered per worker and go out with dispatch_flush, many to a message.
 */
#ifndef CRIER_SERVER_DISPATCH_H
#define CRIER_SERVER_DISPATCH_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/roster.h"
#include "shm/chan.h"

enum dispatch_room {
    DISPATCH_ROOM, /* a worker takes the next connection */
    DISPATCH_BUSY, /* the channels are full: `on_room` tells when one is not */
    DISPATCH_FULL, /* every worker holds what it can: ask again later */
};

struct dispatch_worker {
    struct dispatch *dispatch;
    uint32_t member;
    int channel[2]; /* [0] is written here, [1] is inherited by the worker */
    bool alive;
    bool stalled;    /* alive, and does not take what it is passed */
    uint64_t passed; /* in this life, and what earlier ones left in the channel */
    struct chan_batch batch;
    bool waiting;           /* the channel was full: `writable` or `later` is on */
    struct event *writable; /* the usual case */
    struct event *later;    /* when it is writable, and yet refuses: too many in flight */
};

struct dispatch {
    const struct segment *segment;
    struct roster roster;
    struct dispatch_worker *workers; /* of member 1 and on */
    uint32_t count;
    uint32_t turn; /* who is asked first, so that equals take turns */
    void (*on_room)(void *arg);
    void *arg;
};

/* Opens a channel per worker. `segment` and `base` are borrowed; `on_room` is called from the loop
 * when a full channel has room again. */
int dispatch_open(struct dispatch *dispatch, struct event_base *base, const struct segment *segment,
                  void (*on_room)(void *arg), void *arg) __attribute__((warn_unused_result));

/* Closes the channels and whatever was not sent. */
void dispatch_close(struct dispatch *dispatch);

/* The end that the worker of this place inherits. Borrowed. */
int dispatch_channel(const struct dispatch *dispatch, uint32_t member);

enum dispatch_room dispatch_room(const struct dispatch *dispatch);

/* Takes `fd`, a connection from `addr`; dispatch_room has said DISPATCH_ROOM. */
void dispatch_put(struct dispatch *dispatch, int fd, const struct sockaddr *addr, int32_t pid);

/* Sends what was gathered. */
void dispatch_flush(struct dispatch *dispatch);

/* A process was started in this place. */
void dispatch_worker_started(struct dispatch *dispatch, uint32_t member);

/* It has taken all that its predecessors left in the channel. */
void dispatch_worker_ready(struct dispatch *dispatch, uint32_t member);

/* Its loop stands still, or does so no more. */
void dispatch_worker_stalled(struct dispatch *dispatch, uint32_t member, bool stalled);

/* It was reaped; `tail` is where the ring stands. Returns how many of its clients are lost. */
uint32_t dispatch_worker_died(struct dispatch *dispatch, uint32_t member, uint64_t tail);

#endif
