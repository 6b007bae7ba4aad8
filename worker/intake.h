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
    INTAKE_MORE,        /* a batch was taken, there may be more */
    INTAKE_EMPTY,       /* all is taken */
    INTAKE_MASTER_GONE, /* end of file: nobody has the other end */
};

/* Takes a batch of those connections that wait in the channel, so that a rush of newcomers does not
 * silence the others; their requests, where they are here already, are answered at once. */
enum intake_result intake_take(struct worker *worker);

#endif
