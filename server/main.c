/*
 * main.c: crier_run, where every process of the server begins.
 *
 * A program calls crier_run from its own main. The first process becomes the master; the workers
 * that it starts execute the same program and come back here, with their place in the environment.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "server/master.h"
#include "shm/chan.h"
#include "shm/disposition.h"
#include "shm/log.h"
#include "shm/ring.h"
#include "shm/util/program.h"
#include "worker/worker.h"

/* 0 when `text` names no place of a worker. */
static uint32_t
main_member(const char *text)
{
    char *end;
    unsigned long member;

    errno = 0;
    member = strtoul(text, &end, 10);
    return errno || end == text || *end || member >= RING_OWNERS_MAX ? 0 : (uint32_t)member;
}

int
crier_run(int argc, char **argv, const struct crier_app *app)
{
    const char *place = getenv(CHAN_ENV_MEMBER);
    uint32_t member;
    int code;

    program_open(argv, app->name ? app->name : "crier");
    if (!place) {
        code = master_run(argc, argv, app);
        log_finish();
        return code;
    }
    member = main_member(place);
    if (member == 0) {
        disposition_apply(DISPOSITION_WORKER, SIG_DFL); /* printing may raise PIPE, or TTOU */
        program_complain(CHAN_ENV_MEMBER " is set for workers by the server itself: unset it");
        return MASTER_EXIT_USAGE;
    }
    unsetenv(CHAN_ENV_MEMBER); /* what the worker's application starts is no worker */
    code = worker_main(app, member);
    log_finish();
    return code;
}
