/*
 * disposition.h: what every signal does to a process, whatever the process has inherited.
 *
 * Role:     master and workers, once each, as the first thing in crier_run; the master also between
 *           the fork and the exec of a worker.
 * Owns:     the process's signal dispositions and the calling thread's signal mask.
 * Errors:   none.
 * Context:  async-signal-safe. Threads that start later inherit the empty mask.
 *
 * disposition.def has a row for each signal. A process inherits ignored signals and blocked ones
 * through exec; both are undone, except that HUP stays ignored in the master (nohup). A handler
 * cannot be inherited: the program itself or a library (a profiler, a sanitizer) has installed it
 * before crier_run, and keeps it, except for signals of DISPOSITION_STOP and DISPOSITION_REFUSE.
 */
#ifndef CRIER_SHM_DISPOSITION_H
#define CRIER_SHM_DISPOSITION_H

#include <signal.h>
#include <stddef.h>

enum disposition {
    DISPOSITION_DEFAULT, /* the default action */
    DISPOSITION_IGNORE,  /* ignored, unless the program has a handler */
    DISPOSITION_REFUSE,  /* ignored, even if the program has a handler */
    DISPOSITION_STOP,    /* stops the server (server/signals.h) */
    DISPOSITION_FOLLOW,  /* tells a worker that the master may have died (worker.c) */
    DISPOSITION_REPORT,  /* a crash report, then the default action (last_words.h) */
};

enum disposition_process { DISPOSITION_MASTER, DISPOSITION_WORKER };

enum { DISPOSITION_SIGNALS_MAX = NSIG };

/* Applies the table to this process, then unblocks all signals. `on_stop` becomes the handler of
 * DISPOSITION_STOP; DISPOSITION_FOLLOW and _REPORT are at their defaults until their owners install
 * handlers. */
void disposition_apply(enum disposition_process process, void (*on_stop)(int signal));

/* The same for a child that is about to execute a worker: no handler of the program is kept. */
void disposition_apply_before_exec(void);

/* Lists the signals of `disposition`. Returns how many. */
size_t disposition_list(enum disposition_process process, enum disposition disposition,
                        int signals[DISPOSITION_SIGNALS_MAX]);

#endif
