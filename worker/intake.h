/*
 * intake.h: connections from the master's channel.
 *
 * Role:     worker.
 * Context:  loop thread.
 */
#ifndef CRIER_WORKER_INTAKE_H
#define CRIER_WORKER_INTAKE_H

struct worker;

/* What the channel held. */
enum intake_result {
    INTAKE_MORE,        /* a bounded number was taken, there may be more */
    INTAKE_EMPTY,       /* all is taken */
    INTAKE_MASTER_GONE, /* end of file: nobody has the other end */
};

/* Takes some of the connections that wait in the channel. */
enum intake_result intake_take(struct worker *worker);

#endif
