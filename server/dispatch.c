#include "server/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/log.h"
#include "shm/member.h"

enum { DISPATCH_LATER_MS = 20 };

static struct dispatch_worker *
dispatch_worker(const struct dispatch *dispatch, uint32_t member)
{
    assert(member >= MEMBER_FIRST_WORKER && member - MEMBER_FIRST_WORKER < dispatch->count);
    return &dispatch->workers[member - MEMBER_FIRST_WORKER];
}

int
dispatch_channel(const struct dispatch *dispatch, uint32_t member)
{
    return dispatch_worker(dispatch, member)->channel[1];
}

/* --- sending --- */

static void
dispatch_close_batch(struct chan_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++)
        close(batch->fds[i]);
    batch->count = 0;
}

/* Neither a full channel nor anything else that is known: these connections cannot be served. */
static void
dispatch_drop(struct dispatch_worker *worker, int rc)
{
    errno = -rc;
    log_warn("cannot pass %u connections to worker %u; closing them", worker->batch.count,
             worker->member);
    for (uint32_t i = 0; i < worker->batch.count; i++)
        roster_put(&worker->dispatch->roster, worker->batch.clients[i]);
    worker->passed -= worker->batch.count;
    dispatch_close_batch(&worker->batch);
}

/* The records say PASSED before the worker can see them, and only while the channel has the
 * descriptors. */
static int
dispatch_send(struct dispatch_worker *worker)
{
    struct roster *roster = &worker->dispatch->roster;
    struct chan_batch *batch = &worker->batch;
    int rc;

    for (uint32_t i = 0; i < batch->count; i++)
        roster_pass(roster, batch->clients[i], worker->member);
    rc = chan_send(worker->channel[0], batch);
    if (rc == 0) {
        dispatch_close_batch(batch);
        return 0;
    }
    for (uint32_t i = 0; i < batch->count; i++)
        roster_keep(roster, batch->clients[i]);
    if (rc == -EAGAIN)
        return rc;
    dispatch_drop(worker, rc);
    return 0;
}

static void
dispatch_wait(struct dispatch_worker *worker, bool was_writable)
{
    static const struct timeval later = {.tv_usec = DISPATCH_LATER_MS * 1000};

    worker->waiting = true;
    if (was_writable)
        event_add(worker->later, &later);
    else
        event_add(worker->writable, NULL);
}

static void
dispatch_try_again(evutil_socket_t fd, short events, void *arg)
{
    struct dispatch_worker *worker = arg;
    struct dispatch *dispatch = worker->dispatch;

    (void)fd;
    worker->waiting = false;
    if (worker->batch.count && dispatch_send(worker) != 0)
        dispatch_wait(worker, events & EV_WRITE);
    else
        dispatch->on_room(dispatch->arg);
}

void
dispatch_flush(struct dispatch *dispatch)
{
    for (uint32_t i = 0; i < dispatch->count; i++) {
        struct dispatch_worker *worker = &dispatch->workers[i];
        if (worker->batch.count && !worker->waiting && dispatch_send(worker) != 0)
            dispatch_wait(worker, false);
    }
}

/* --- choosing --- */

static uint64_t
dispatch_load(const struct dispatch_worker *worker)
{
    const struct member_shm *member = &worker->dispatch->segment->members[worker->member];
    uint64_t returned = atomic_load_relaxed(&member->clients_returned);

    return worker->passed > returned ? worker->passed - returned : 0;
}

static bool
dispatch_has_place(const struct dispatch_worker *worker)
{
    return dispatch_load(worker) < worker->dispatch->segment->members[worker->member].capacity;
}

enum dispatch_room
dispatch_room(const struct dispatch *dispatch)
{
    enum dispatch_room room = DISPATCH_FULL;
    uint64_t load = 0;

    for (uint32_t i = 0; i < dispatch->count; i++) {
        const struct dispatch_worker *worker = &dispatch->workers[i];
        load += dispatch_load(worker);
        if (!dispatch_has_place(worker))
            continue;
        if (worker->batch.count < CHAN_BATCH)
            room = DISPATCH_ROOM;
        else if (room == DISPATCH_FULL)
            room = DISPATCH_BUSY;
    }
    return load < roster_clients(dispatch->segment->geometry.client_capacity) ? room
                                                                              : DISPATCH_FULL;
}

/* A dead worker's channel is as good as any, as its successor empties it; but a live one is
 * faster, and one whose loop stands still is the last to empty it. */
static unsigned
dispatch_rank(const struct dispatch_worker *worker)
{
    if (worker->stalled)
        return 0;
    return worker->alive ? 2 : 1;
}

static bool
dispatch_is_better(const struct dispatch_worker *worker, const struct dispatch_worker *than)
{
    if (!than)
        return true;
    if (dispatch_rank(worker) != dispatch_rank(than))
        return dispatch_rank(worker) > dispatch_rank(than);
    return dispatch_load(worker) < dispatch_load(than);
}

static struct dispatch_worker *
dispatch_choose(struct dispatch *dispatch)
{
    struct dispatch_worker *best = NULL;

    for (uint32_t i = 0; i < dispatch->count; i++) {
        uint32_t at = (dispatch->turn + i) % dispatch->count;
        struct dispatch_worker *worker = &dispatch->workers[at];
        if (worker->batch.count < CHAN_BATCH && dispatch_has_place(worker) &&
            dispatch_is_better(worker, best))
            best = worker;
    }
    if (best)
        dispatch->turn = (best->member - MEMBER_FIRST_WORKER + 1) % dispatch->count;
    return best;
}

void
dispatch_put(struct dispatch *dispatch, int fd, const struct sockaddr *addr, int32_t pid)
{
    struct dispatch_worker *worker = dispatch_choose(dispatch);
    uint32_t index;

    /* dispatch_room has said that there is a place, but it believes what workers count. */
    if (!worker || roster_get(&dispatch->roster, addr, pid, &index) != 0) {
        close(fd);
        return;
    }
    worker->batch.clients[worker->batch.count] = index;
    worker->batch.fds[worker->batch.count] = fd;
    worker->batch.count++;
    worker->passed++;
}

/* --- lives of workers --- */

void
dispatch_worker_started(struct dispatch *dispatch, uint32_t member)
{
    dispatch_worker(dispatch, member)->alive = true;
}

void
dispatch_worker_ready(struct dispatch *dispatch, uint32_t member)
{
    dispatch_worker(dispatch, member)->passed -= roster_sweep_lost(&dispatch->roster, member);
}

void
dispatch_worker_stalled(struct dispatch *dispatch, uint32_t member, bool stalled)
{
    dispatch_worker(dispatch, member)->stalled = stalled;
}

uint32_t
dispatch_worker_died(struct dispatch *dispatch, uint32_t member, uint64_t tail)
{
    struct dispatch_worker *worker = dispatch_worker(dispatch, member);
    struct member_shm *shared = &dispatch->segment->members[member];
    struct roster_census census = roster_bury(&dispatch->roster, member, tail);

    worker->alive = false;
    worker->passed = census.passed + worker->batch.count;
    atomic_store_relaxed(&shared->clients_returned, (uint64_t)0);
    atomic_store_relaxed(&shared->clients_open, (uint64_t)0);
    atomic_store_relaxed(&shared->clients_deflate, (uint64_t)0);
    return census.lost;
}

/* --- start and end --- */

static int
dispatch_open_worker(struct dispatch *dispatch, struct event_base *base, uint32_t i)
{
    struct dispatch_worker *worker = &dispatch->workers[i];
    int rc = chan_open(worker->channel);

    if (rc)
        return rc;
    worker->dispatch = dispatch;
    worker->member = i + MEMBER_FIRST_WORKER;
    dispatch->count++;
    worker->writable = event_new(base, worker->channel[0], EV_WRITE, dispatch_try_again, worker);
    worker->later = event_new(base, -1, 0, dispatch_try_again, worker);
    return worker->writable && worker->later ? 0 : -ENOMEM;
}

int
dispatch_open(struct dispatch *dispatch, struct event_base *base, const struct segment *segment,
              void (*on_room)(void *arg), void *arg)
{
    uint32_t count = segment->geometry.member_count - MEMBER_FIRST_WORKER;
    int rc;

    *dispatch = (struct dispatch){.segment = segment, .on_room = on_room, .arg = arg};
    rc = roster_init(&dispatch->roster, segment);
    if (rc)
        return rc;
    dispatch->workers = calloc(count, sizeof(dispatch->workers[0]));
    if (!dispatch->workers)
        return -ENOMEM;
    for (uint32_t i = 0; i < count && !rc; i++)
        rc = dispatch_open_worker(dispatch, base, i);
    return rc;
}

void
dispatch_close(struct dispatch *dispatch)
{
    for (uint32_t i = 0; i < dispatch->count; i++) {
        struct dispatch_worker *worker = &dispatch->workers[i];
        if (worker->writable)
            event_free(worker->writable);
        if (worker->later)
            event_free(worker->later);
        dispatch_close_batch(&worker->batch);
        close(worker->channel[0]);
        close(worker->channel[1]);
    }
    free(dispatch->workers);
    roster_fini(&dispatch->roster);
    *dispatch = (struct dispatch){0};
}
