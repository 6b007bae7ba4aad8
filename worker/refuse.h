/*
 * refuse.h: counts and logs a connection that is refused, or that ends before it is answered.
 *
 * Role:     worker.
 * Owns:     a summary for each cause: one line per second and cause (log_summary.h).
 * Errors:   none.
 * Context:  loop thread.
 *
 * A line has the client's address, the status, the sentence that the client was answered, and the method
 * and target of its request. For a page of another site it has Origin and Host and the option or header to
 * set, since a proxy that replaces Host is the usual reason. Causes that an operator can end are warnings
 * (LOG_WARN). A client that leaves, or sends nothing, is a LOG_EVENT, because each TCP health check does
 * that; so is a client that is refused because the server stops. The others are LOG_STATUS.
 */
#ifndef CRIER_WORKER_REFUSE_H
#define CRIER_WORKER_REFUSE_H

#include "worker/proto/http1.h"
#include "worker/proto/refusal.h"

struct conn;
struct worker;

/* `status` and `sentence`: what it is answered; 0 and NULL: nothing. `request`: as far as it was read, or
 * NULL. */
void refuse_note(const struct conn *conn, enum refusal cause, int status, const char *sentence,
                 const struct http1_request *request);

/* Counts only: the caller has logged it. */
void refuse_count(struct worker *worker, enum refusal cause);

#endif
