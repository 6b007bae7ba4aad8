/*
 * liveness.h: pings, and the end of clients that are not there any more. RFC 6455 section 5.5.2.
 *
 * Role:     worker.
 * Context:  loop thread.
 *
 * A client that was silent for --ping is pinged; one that stays silent for --ping-timeout is cut
 * off. Every byte from it is a sign of life; so is every byte of ours, the ping apart, that its
 * kernel has acknowledged (tcp(7): TCP_INFO): a client that is busy reading may be late to answer.
 * While the server itself does not read it (conn_may_read), the clock of its silence stands still.
 * A client whose socket is full cannot be pinged: it is cut off when its socket has taken nothing
 * for the sum of both. The times are by the worker's clock, which does not run while the worker is
 * stalled (run_clock.h); when they are over, what is on the socket and was not read yet counts.
 *
 * Each open client is in a bucket of a wheel; there is no timer. A sign of life only makes a client
 * due later, so it stays in its bucket until the time of that bucket has come, and is checked then: an
 * active client costs one check an interval. Due times are spread over a quarter of the interval, so
 * that clients that came, or spoke, at the same time are not due at the same time.
 */
#ifndef CRIER_WORKER_LIVENESS_H
#define CRIER_WORKER_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/conn.h"

enum {
    LIVENESS_BUCKET_MS = 128, /* a later moment than the wheel holds is waited for in pieces */
    LIVENESS_CHUNK = 128,     /* clients between two turns of the event loop */
};

void liveness_init(struct worker *worker);

/* NULL: clients are not watched (--ping 0). */
struct conn_list *liveness_bucket(struct worker *worker, uint8_t bucket);

/* Chooses conn->bucket, for when it may fall due. The connection is in no list. */
void liveness_schedule(struct conn *conn);

/* It was heard; its socket took something, or has just become full. */
static inline void
liveness_heard(struct conn *conn)
{
    conn->heard_ms = conn->unheard ? 0 : worker_now_ms(conn->worker);
    conn->pinged = false;
}

void liveness_took(struct conn *conn);

/* The server reads it, or stops to. */
void liveness_stop_clock(struct conn *conn, bool stop);

/* Checks the clients that are due. True: call again soon. */
bool liveness_run(struct worker *worker);

#endif
