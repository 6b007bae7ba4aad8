/*
 * chan.h: the channel from the master to one worker, and what a worker finds when it starts.
 *
 * Role:     the master sends, the worker receives; nothing flows back (a worker gives a connection
 *           back through its client record, and is told to stop through the segment's phase).
 * Owns:     the master keeps both ends of each channel, so that the channel outlives the worker:
 *           connections that a dead worker has left in it are received by the master (dispatch.h) or
 *           by the successor. A worker's end reports the end of file when the master is gone.
 * Errors:   chan_send: -EAGAIN the channel (or the kernel's limit of descriptors in flight) is
 *           full, later. chan_recv: -EAGAIN empty, -EPIPE the master is gone.
 * Context:  loop threads; nothing blocks.
 *
 * The only message: up to CHAN_BATCH connections, each the index of its client record and a
 * descriptor (SCM_RIGHTS, unix(7)). It is a SOCK_SEQPACKET: messages arrive whole or not at all.
 */
#ifndef CRIER_SHM_CHAN_H
#define CRIER_SHM_CHAN_H

#include <stdint.h>

enum { CHAN_BATCH = 64 };

/* Descriptors of a worker at exec; its place is in the environment. */
enum {
    CHAN_FD_SEGMENT = 3,
    CHAN_FD_CHANNEL = 4,
    CHAN_FD_WAKE = 5, /* an eventfd per member from here on */
};
#define CHAN_ENV_MEMBER "_CRIER_MEMBER" /* no option is read from a name like this */

struct chan_batch {
    uint32_t count;
    uint32_t clients[CHAN_BATCH];
    int fds[CHAN_BATCH];
};

/* Both ends, non-blocking and close-on-exec: [0] the master writes, [1] the worker reads. */
int chan_open(int ends[2]) __attribute__((warn_unused_result));

/* Passes a whole batch; the descriptors stay open here, the caller closes them. */
int chan_send(int fd, const struct chan_batch *batch) __attribute__((warn_unused_result));

/* The number of connections in the next message, which stays in the channel; 0: the channel is empty. */
uint32_t chan_waiting(int fd);

/* Takes one batch; the descriptors are owned by the caller, close-on-exec. One that the descriptor
 * table had no room for (MSG_CTRUNC) is -1. Does not block, even if the description was made
 * blocking. */
int chan_recv(int fd, struct chan_batch *batch) __attribute__((warn_unused_result));

#endif
