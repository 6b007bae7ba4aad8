/*
 * intake.h: connections from the master's channel.
 *
 * Role:     worker.
 * Context:  loop thread.
 */
#ifndef CRIER_WORKER_INTAKE_H
#define CRIER_WORKER_INTAKE_H

#include <stdbool.h>

struct worker;

/* What the channel held. */
enum intake_result {
    INTAKE_MORE,        /* a batch was taken, there may be more */
    INTAKE_EMPTY,       /* all is taken */
    INTAKE_MASTER_GONE, /* end of file: no process has the other end */
};

/* Is there time for more connections (budget.h)? The arriving connections that wait after a batch have
 * their turns before the next batch is taken. Connections for which there is no time stay in the
 * channel. */
bool intake_is_due(const struct worker *worker);

/* Takes a batch of those connections that wait in the channel; their requests, where they
 * are here already, are answered at once as long as there is time. */
enum intake_result intake_take(struct worker *worker);

#endif
