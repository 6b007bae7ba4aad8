/*
 * dispatch.h: chooses the worker of each connection, and passes the connection to it.
 *
 * Role:     master only; the workers' side is shm/chan.h.
 * Owns:     both ends of every channel (they outlive the workers), and the descriptor of a
 *           connection from dispatch_put until a worker's channel has it.
 * Errors:   negative errno at start. Later none: what a full channel does not take is sent later.
 * Context:  loop thread; nothing blocks.
 *
 * Connections go to workers that are ready. A worker whose loop is stalled gets one only if every
 * ready worker is stalled or full. While no worker is ready, connections stay in the kernel's listen
 * queue.
 *
 *   DISPATCH_WORKER_NOT_READY --ready--> DISPATCH_WORKER_READY <--stalled--> DISPATCH_WORKER_STALLED
 *               ^                                |                                   |
 *               +------------ died --------------+-----------------------------------+
 *
 * A worker's load is the number of connections passed to it minus the number that it reports as
 * finished. It is never passed more than its descriptor limit, because the kernel discards
 * descriptors that exceed it without an error. Connections are gathered per worker and sent by
 * dispatch_flush, many to a message.
 *
 * Connections that a dead worker has not received are still in its channel, of which the master owns
 * both ends. The master receives them and passes them to ready workers, so that no connection waits
 * for a successor that takes long to start. While no worker is ready, or the master's descriptor
 * table has no room, connections stay in the channel until the successor receives them or another
 * worker becomes ready. That time does not count for --handshake-timeout, which begins when a worker
 * receives the connection.
 */
#ifndef CRIER_SERVER_DISPATCH_H
#define CRIER_SERVER_DISPATCH_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/roster.h"
#include "shm/chan.h"

enum dispatch_room {
    DISPATCH_ROOM, /* a worker takes the next connection */
    DISPATCH_NONE, /* no worker is ready: `on_room` is called when one is */
    DISPATCH_BUSY, /* the channels are full: `on_room` is called when one has room */
    DISPATCH_FULL, /* every ready worker has as many as it can hold: ask again later */
};

enum dispatch_worker_state {
    DISPATCH_WORKER_NOT_READY, /* no process, or it starts */
    DISPATCH_WORKER_STALLED,   /* was ready, and its loop does not turn */
    DISPATCH_WORKER_READY,
};

struct dispatch_worker {
    struct dispatch *dispatch;
    uint32_t member;
    int channel[2]; /* [0] is written here, [1] is inherited by the worker */
    enum dispatch_worker_state state;
    uint32_t capacity;       /* connections that its descriptor table can hold */
    uint64_t passed;         /* connections, with those that its predecessors left unread */
    struct chan_batch batch; /* to be sent; of a worker that is not ready: to other workers */
    bool waiting;            /* the channel was full: `writable` or `later` is on */
    struct event *writable;  /* the channel has room again */
    struct event *later;     /* it has room, but too many descriptors are in flight: retry */
};

struct dispatch {
    const struct segment *segment;
    struct roster roster;
    struct dispatch_worker *workers; /* of member 1 and on */
    uint32_t count;
    uint32_t turn; /* where the next choice begins, so that workers with equal loads take turns */
    void (*on_room)(void *arg);
    void *arg;
};

const char *dispatch_worker_state_name(enum dispatch_worker_state state);

/* Opens a channel per worker. `segment` and `base` are borrowed; `on_room` is called when a full
 * channel has room again, and when a worker becomes ready. */
int dispatch_open(struct dispatch *dispatch, struct event_base *base, const struct segment *segment,
                  void (*on_room)(void *arg), void *arg) __attribute__((warn_unused_result));

/* Closes the channels, and the connections that were not sent. */
void dispatch_close(struct dispatch *dispatch);

/* The end of the channel that the worker `member` inherits. Borrowed. */
int dispatch_channel(const struct dispatch *dispatch, uint32_t member);

enum dispatch_room dispatch_room(const struct dispatch *dispatch);

/* Takes `fd`, a connection from `addr`. Call only after dispatch_room has returned DISPATCH_ROOM. */
void dispatch_put(struct dispatch *dispatch, int fd, const struct sockaddr *addr, int32_t pid);

/* Sends the connections that were gathered, and passes on those left by workers that are not ready. */
void dispatch_flush(struct dispatch *dispatch);

/* The number of connections that were put and not yet sent: each holds a descriptor. */
uint32_t dispatch_gathered(const struct dispatch *dispatch);

/* Sets how many connections the worker's descriptor table can hold. */
void dispatch_worker_holds(struct dispatch *dispatch, uint32_t member, uint32_t capacity);

/* The worker serves, and has received every connection that its predecessors left in the channel. */
void dispatch_worker_ready(struct dispatch *dispatch, uint32_t member);

/* The loop of this worker is stalled, or no longer is. Without effect before the worker is ready. */
void dispatch_worker_stalled(struct dispatch *dispatch, uint32_t member, bool stalled);

/* The worker was reaped; `tail` is the ring's tail. Returns the number of its clients that are lost. */
uint32_t dispatch_worker_died(struct dispatch *dispatch, uint32_t member, uint64_t tail);

#endif
