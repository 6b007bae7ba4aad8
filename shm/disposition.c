#include "shm/disposition.h"

#include <stdbool.h>

struct disposition_row {
    int signal;
    enum disposition of[2]; /* by enum disposition_process */
};

static const struct disposition_row disposition_rows[] = {
#define DISPOSITION_TEXT(text)
#define DISPOSITION_REALTIME(master, worker)
#define DISPOSITION(signal, master, worker)                                                        \
    {SIG##signal, {DISPOSITION_##master, DISPOSITION_##worker}},
#include "shm/disposition.def"
#undef DISPOSITION
#undef DISPOSITION_REALTIME
};

enum { DISPOSITION_ROWS = sizeof(disposition_rows) / sizeof(disposition_rows[0]) };

static const enum disposition disposition_of_realtime[] = {
#define DISPOSITION(signal, master, worker)
#define DISPOSITION_REALTIME(master, worker) DISPOSITION_##master, DISPOSITION_##worker,
#include "shm/disposition.def"
#undef DISPOSITION
#undef DISPOSITION_REALTIME
#undef DISPOSITION_TEXT
};

static void
disposition_set(int signal, enum disposition disposition, void (*on_stop)(int), bool keep_handlers)
{
    struct sigaction before;
    struct sigaction after = {.sa_handler = SIG_DFL, .sa_flags = SA_RESTART};
    bool is_firm = disposition == DISPOSITION_STOP || disposition == DISPOSITION_REFUSE;

    if (sigaction(signal, NULL, &before) != 0)
        return;
    if (disposition == DISPOSITION_STOP && signal == SIGHUP && before.sa_handler == SIG_IGN)
        return;
    if (keep_handlers && !is_firm && before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        return;
    if (disposition == DISPOSITION_STOP)
        after.sa_handler = on_stop;
    else if (disposition == DISPOSITION_IGNORE || disposition == DISPOSITION_REFUSE)
        after.sa_handler = SIG_IGN;
    sigfillset(&after.sa_mask);
    (void)sigaction(signal, &after, NULL);
}

static void
disposition_set_all(enum disposition_process process, void (*on_stop)(int), bool keep_handlers)
{
    sigset_t none;

    for (size_t i = 0; i < DISPOSITION_ROWS; i++)
        disposition_set(disposition_rows[i].signal, disposition_rows[i].of[process], on_stop,
                        keep_handlers);
    for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++)
        disposition_set(signal, disposition_of_realtime[process], on_stop, keep_handlers);
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

void
disposition_apply(enum disposition_process process, void (*on_stop)(int signal))
{
    disposition_set_all(process, on_stop, true);
}

void
disposition_apply_before_exec(void)
{
    disposition_set_all(DISPOSITION_WORKER, SIG_IGN, false);
}

size_t
disposition_list(enum disposition_process process, enum disposition disposition,
                 int signals[DISPOSITION_SIGNALS_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < DISPOSITION_ROWS; i++) {
        if (disposition_rows[i].of[process] == disposition)
            signals[count++] = disposition_rows[i].signal;
    }
    return count;
}
