#include "server/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/log_summary.h"
#include "shm/member.h"

enum {
    DISPATCH_LATER_MS = 20,
    DISPATCH_SPARE_FDS =
        16, /* stay free when the master takes connections back, and one per worker */
};

static struct dispatch_worker *
dispatch_worker(const struct dispatch *dispatch, uint32_t member)
{
    assert(member >= MEMBER_FIRST_WORKER && member - MEMBER_FIRST_WORKER < dispatch->count);
    return &dispatch->workers[member - MEMBER_FIRST_WORKER];
}

const char *
dispatch_worker_state_name(enum dispatch_worker_state state)
{
    switch (state) {
    case DISPATCH_WORKER_NOT_READY: return "not ready";
    case DISPATCH_WORKER_STALLED: return "stalled";
    case DISPATCH_WORKER_READY: return "ready";
    }
    return "unknown";
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
    static struct log_summary dropped;
    uint64_t *counters = worker->dispatch->roster.counters;

    counter_add(counters, clients_accepted, worker->batch.count);
    counter_add(counters, clients_refused, worker->batch.count);
    counter_add(counters, refused_busy, worker->batch.count);
    log_summary_add(&dropped, LOG_WARN, "cannot pass %u connections to worker %u; closing them: %s",
                    worker->batch.count, worker->member, strerror(-rc));
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
    if (was_writable ||
        event_add(worker->writable, NULL) != 0) /* the kernel may refuse to watch it */
        event_add(worker->later, &later);
}

uint32_t
dispatch_gathered(const struct dispatch *dispatch)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < dispatch->count; i++)
        count += dispatch->workers[i].batch.count;
    return count;
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
    return dispatch_load(worker) < worker->capacity;
}

enum dispatch_room
dispatch_room(const struct dispatch *dispatch)
{
    enum dispatch_room room = DISPATCH_NONE;
    uint64_t load = 0;

    for (uint32_t i = 0; i < dispatch->count; i++) {
        const struct dispatch_worker *worker = &dispatch->workers[i];
        load += dispatch_load(worker);
        if (worker->state == DISPATCH_WORKER_NOT_READY)
            continue;
        if (room == DISPATCH_NONE)
            room = DISPATCH_FULL;
        if (!dispatch_has_place(worker))
            continue;
        if (worker->batch.count < CHAN_BATCH)
            room = DISPATCH_ROOM;
        else if (room == DISPATCH_FULL)
            room = DISPATCH_BUSY;
    }
    if (room == DISPATCH_NONE)
        return room;
    return load < roster_clients(dispatch->segment->geometry.client_capacity) ? room
                                                                              : DISPATCH_FULL;
}

static bool
dispatch_takes_one(const struct dispatch_worker *worker)
{
    return worker->state != DISPATCH_WORKER_NOT_READY && worker->batch.count < CHAN_BATCH &&
           dispatch_has_place(worker);
}

static bool
dispatch_is_better(const struct dispatch_worker *worker, const struct dispatch_worker *than)
{
    if (!than)
        return true;
    if (worker->state != than->state)
        return worker->state == DISPATCH_WORKER_READY;
    return dispatch_load(worker) < dispatch_load(than);
}

/* NULL: none takes one. */
static struct dispatch_worker *
dispatch_choose(const struct dispatch *dispatch)
{
    struct dispatch_worker *best = NULL;

    for (uint32_t i = 0; i < dispatch->count; i++) {
        uint32_t at = (dispatch->turn + i) % dispatch->count;
        struct dispatch_worker *worker = &dispatch->workers[at];
        if (dispatch_takes_one(worker) && dispatch_is_better(worker, best))
            best = worker;
    }
    return best;
}

static void
dispatch_add(struct dispatch_worker *worker, int fd, uint32_t index)
{
    struct dispatch *dispatch = worker->dispatch;

    worker->batch.clients[worker->batch.count] = index;
    worker->batch.fds[worker->batch.count] = fd;
    worker->batch.count++;
    worker->passed++;
    dispatch->turn = (worker->member - MEMBER_FIRST_WORKER + 1) % dispatch->count;
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
    dispatch_add(worker, fd, index);
}

/* --- what workers that are not ready have left --- */

/* The kernel closes, without an error, descriptors for which the table has no room (unix(7)). */
static bool
dispatch_has_descriptors(int fd, uint32_t count)
{
    int fds[CHAN_BATCH + RING_OWNERS_MAX + DISPATCH_SPARE_FDS];
    uint32_t free = 0;

    assert(count <= sizeof(fds) / sizeof(fds[0]));
    while (free < count && (fds[free] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0)
        free++;
    for (uint32_t i = 0; i < free; i++)
        close(fds[i]);
    return free == count;
}

/* Into the batch of `worker`, which is empty: the next message of its channel. A successor that
 * starts may receive at the same time; each message has one receiver. */
static void
dispatch_take_back(struct dispatch_worker *worker)
{
    struct chan_batch *batch = &worker->batch;
    uint32_t waiting = chan_waiting(worker->channel[1]);
    uint32_t spare = worker->dispatch->count + DISPATCH_SPARE_FDS; /* to start a worker meanwhile */
    uint32_t kept = 0;

    if (waiting == 0 || !dispatch_has_descriptors(worker->channel[1], waiting + spare) ||
        chan_recv(worker->channel[1], batch) != 0)
        return;
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->fds[i] < 0) /* its record is counted as lost when a successor is ready */
            continue;
        if (!roster_take_back(&worker->dispatch->roster, batch->clients[i], worker->member)) {
            close(batch->fds[i]);
            continue;
        }
        batch->clients[kept] = batch->clients[i];
        batch->fds[kept++] = batch->fds[i];
    }
    batch->count = kept;
}

/* As many as ready workers take without a flush. Returns the number. */
static uint32_t
dispatch_move(struct dispatch_worker *from)
{
    struct chan_batch *batch = &from->batch;
    struct dispatch_worker *to;
    uint32_t moved = 0;

    while ((to = dispatch_choose(from->dispatch))) {
        if (batch->count == 0)
            dispatch_take_back(from);
        if (batch->count == 0)
            break;
        batch->count--;
        from->passed--;
        dispatch_add(to, batch->fds[batch->count], batch->clients[batch->count]);
        moved++;
    }
    return moved;
}

void
dispatch_flush(struct dispatch *dispatch)
{
    uint32_t moved;

    do {
        moved = 0;
        for (uint32_t i = 0; i < dispatch->count; i++) {
            struct dispatch_worker *worker = &dispatch->workers[i];
            if (worker->state == DISPATCH_WORKER_NOT_READY)
                moved += dispatch_move(worker);
        }
        for (uint32_t i = 0; i < dispatch->count; i++) {
            struct dispatch_worker *worker = &dispatch->workers[i];
            if (worker->state != DISPATCH_WORKER_NOT_READY && worker->batch.count &&
                !worker->waiting && dispatch_send(worker) != 0)
                dispatch_wait(worker, false);
        }
    } while (moved > 0);
}

static void
dispatch_try_again(evutil_socket_t fd, short events, void *arg)
{
    struct dispatch_worker *worker = arg;
    struct dispatch *dispatch = worker->dispatch;

    (void)fd;
    worker->waiting = false;
    if (worker->batch.count && dispatch_send(worker) != 0) {
        dispatch_wait(worker, events & EV_WRITE);
        return;
    }
    dispatch_flush(dispatch);
    dispatch->on_room(dispatch->arg);
}

/* --- lives of workers --- */

void
dispatch_worker_holds(struct dispatch *dispatch, uint32_t member, uint32_t capacity)
{
    dispatch_worker(dispatch, member)->capacity = capacity;
    dispatch->segment->members[member].capacity = capacity;
}

void
dispatch_worker_ready(struct dispatch *dispatch, uint32_t member)
{
    struct dispatch_worker *worker = dispatch_worker(dispatch, member);

    worker->state = DISPATCH_WORKER_READY;
    worker->passed -= roster_sweep_lost(&dispatch->roster, member);
    dispatch_flush(dispatch);
    dispatch->on_room(dispatch->arg);
}

void
dispatch_worker_stalled(struct dispatch *dispatch, uint32_t member, bool stalled)
{
    struct dispatch_worker *worker = dispatch_worker(dispatch, member);

    if (worker->state != DISPATCH_WORKER_NOT_READY)
        worker->state = stalled ? DISPATCH_WORKER_STALLED : DISPATCH_WORKER_READY;
}

uint32_t
dispatch_worker_died(struct dispatch *dispatch, uint32_t member, uint64_t tail)
{
    struct dispatch_worker *worker = dispatch_worker(dispatch, member);
    struct member_shm *shared = &dispatch->segment->members[member];
    struct roster_census census = roster_bury(&dispatch->roster, member, tail);

    worker->state = DISPATCH_WORKER_NOT_READY;
    worker->waiting = false;
    event_del(worker->writable);
    event_del(worker->later);
    worker->passed = census.passed + worker->batch.count;
    atomic_store_relaxed(&shared->clients_returned, (uint64_t)0);
    atomic_store_relaxed(&shared->clients_open, (uint64_t)0);
    atomic_store_relaxed(&shared->clients_deflate, (uint64_t)0);
    dispatch_flush(dispatch);
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
