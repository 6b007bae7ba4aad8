/*
 * master.h: the master process.
 *
 * Role:     the first process of a server. It owns the listening sockets, the segment and the
 *           workers; it never reads a byte that a client sent.
 * Errors:   enum master_exit; a sentence has been logged.
 * Context:  main thread.
 */
#ifndef CRIER_SERVER_MASTER_H
#define CRIER_SERVER_MASTER_H

#include "worker/api/crier.h"

enum master_exit {
    MASTER_EXIT_OK = 0,
    /* Cannot start, for a reason that has no code of its own; or, with --exit-on-eof, not all of the
     * input was read, broadcast and delivered. */
    MASTER_EXIT_FAILED = 1,
    MASTER_EXIT_USAGE = 2,
    MASTER_EXIT_LISTEN = 3,
    MASTER_EXIT_WORKERS = 4, /* cannot be forked, or repeatedly end before they are ready */
};

/* Serves until told to stop; returns the exit code. `app` is borrowed. */
int master_run(int argc, char **argv, const struct crier_app *app);

#endif
