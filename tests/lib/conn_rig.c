#include "tests/lib/conn_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/roster.h"
#include "shm/chan.h"
#include "shm/log.h"
#include "shm/segment_master.h"
#include "tests/lib/hand_clock.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_timeout.h"
#include "worker/fanout.h"

enum {
    RIG_MEMBERS = 2, /* the master and the worker */
    RIG_WORKER = 1,
    RIG_HIGH_FD = 32,      /* the rig's own descriptors are from here on; those below are counted */
    RIG_TICK_MS = 100,     /* as worker.c has it */
    RIG_TURNS_MAX = 10000, /* a worker that still finds something to do is spinning */
};

static struct segment segment; /* as the master has it mapped */
static struct roster roster;
static struct worker *worker;
static int channel; /* the master's end */
static int clients[CONN_RIG_CLIENTS];
static size_t client_count;
static size_t fds_when_idle; /* before the first client; others open some in between */

/* One system call, whatever their number. */
static size_t
rig_count_fds(void)
{
    struct pollfd fds[RIG_HIGH_FD];
    size_t count = 0;

    for (int fd = 0; fd < RIG_HIGH_FD; fd++)
        fds[fd] = (struct pollfd){.fd = fd};
    REQUIRE(poll(fds, RIG_HIGH_FD, 0) >= 0);
    for (int fd = 0; fd < RIG_HIGH_FD; fd++)
        count += !(fds[fd].revents & POLLNVAL);
    return count;
}

/* Out of the way of the numbers in chan.h. */
static int
rig_raise(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, RIG_HIGH_FD);

    REQUIRE(high >= 0);
    close(fd);
    return high;
}

/* What was inherited at that number is of no use here. */
static void
rig_place(int high, int fd)
{
    REQUIRE(dup2(high, fd) == fd);
    close(high);
}

void
conn_rig_open(const struct crier_app *app, const struct conf_shm *conf)
{
    struct segment_plan plan = {
        .member_count = RIG_MEMBERS,
        .arena_bytes = conf->ring_bytes,
        .client_capacity = roster_records(CONN_RIG_CLIENTS),
    };
    int segment_fd = segment_create(&segment, &plan);
    int wake_fds[RIG_MEMBERS];
    int ends[2];

    REQUIRE(segment_fd >= 0 && roster_init(&roster, &segment) == 0);
    segment.head->conf = *conf;
    segment_fd = rig_raise(segment_fd);
    REQUIRE(chan_open(ends) == 0);
    channel = rig_raise(ends[0]);
    ends[1] = rig_raise(ends[1]);
    for (size_t i = 0; i < RIG_MEMBERS; i++)
        wake_fds[i] = rig_raise(eventfd(0, EFD_NONBLOCK));
    rig_place(segment_fd, CHAN_FD_SEGMENT);
    rig_place(ends[1], CHAN_FD_CHANNEL);
    for (int i = 0; i < RIG_MEMBERS; i++)
        rig_place(wake_fds[i], CHAN_FD_WAKE + i);

    hand_clock_hold();
    worker = calloc(1, sizeof(*worker));
    REQUIRE(worker && worker_init(worker, app, RIG_WORKER) == 0);
    REQUIRE(fanout_init(worker) == 0);
    event_del(&worker->tick_event);
    log_warnx("a worker in the process of a test"); /* the first line opens descriptors */
}

void
conn_rig_pass(uint32_t client, int fd)
{
    struct chan_batch batch = {.count = 1, .clients = {client}, .fds = {fd}};

    REQUIRE(chan_send(channel, &batch) == 0);
    close(fd);
}

int
conn_rig_connect(int send_buffer_bytes)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    uint32_t client;
    int ends[2];

    REQUIRE(client_count < CONN_RIG_CLIENTS);
    if (client_count == 0)
        fds_when_idle = rig_count_fds();
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    if (send_buffer_bytes)
        REQUIRE(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes,
                           sizeof(send_buffer_bytes)) == 0);
    REQUIRE(roster_get(&roster, (const struct sockaddr *)&peer, 0, &client) == 0);
    roster_pass(&roster, client, RIG_WORKER);
    conn_rig_pass(client, ends[1]);
    clients[client_count++] = ends[0];
    return ends[0];
}

/* What is different as long as something happens. */
struct rig_view {
    uint64_t counters[COUNTER_COUNT];
    uint64_t tail;
    uint64_t sweep_end;
    uint64_t cursor;
    uint64_t pool_bytes;
    uint64_t conn_count;
    uint64_t sweep_left;
    const struct conn *gone;            /* to be reaped by the next turn */
    int unread_bytes[CONN_RIG_CLIENTS]; /* by the worker */
};

static void
rig_look(struct rig_view *view)
{
    memset(view, 0, sizeof(*view));
    memcpy(view->counters, worker->counters, sizeof(view->counters));
    view->counters[COUNTER_publish_again] = 0; /* trying again is waiting */
    view->counters[COUNTER_wakeups] = 0;
    view->tail = ring_tail(&worker->ring);
    view->sweep_end = worker->fanout.end;
    view->cursor = worker->fanout.cursor;
    view->pool_bytes = worker->pool.used_bytes;
    view->conn_count = worker->conn_count;
    view->sweep_left = worker->fanout.left;
    view->gone = TAILQ_FIRST(&worker->gone);
    for (size_t i = 0; i < client_count; i++)
        (void)ioctl(clients[i], SIOCOUTQ, &view->unread_bytes[i]);
}

/* Its own eventfd wakes the worker, so that the turn does not sleep. */
void
conn_rig_turn(void)
{
    static const uint64_t one = 1;

    worker->budget.awake = false; /* it has slept until now */
    worker->budget.slept = true;
    budget_wake(worker);
    REQUIRE(write(CHAN_FD_WAKE + RIG_WORKER, &one, sizeof(one)) == sizeof(one));
    worker_turn(worker);
    (void)run_clock_ms(&worker->clock); /* as a tick does */
    if (worker->budget.steps > 0)       /* as the next turn does, before the test lets time pass */
        budget_read(worker);
    REQUIRE(!worker->done && worker->pool.used_bytes <= worker->pool.limit_bytes);
}

/* Their moment is over, whatever the clock says. */
static void
rig_hurry_parting(void)
{
    struct conn *conn;

    for (conn = TAILQ_FIRST(&worker->parting); conn; conn = TAILQ_NEXT(conn, link))
        conn->since_ms = worker_now_ms(worker) - CONN_PARTING_MS;
}

/* A signal may take a turn away from what was ready: libFuzzer has a timer. */
void
conn_rig_settle(void)
{
    struct rig_view before, after;
    unsigned turns = 0;
    unsigned quiet_turns = 0;

    rig_look(&after);
    while (quiet_turns < 2) {
        before = after;
        rig_hurry_parting();
        conn_rig_turn();
        rig_look(&after);
        REQUIRE(++turns < RIG_TURNS_MAX);
        if (memcmp(&before, &after, sizeof(before)) != 0 || conn_is_queued(worker) ||
            worker->watch.next < worker->watch.count || !TAILQ_EMPTY(&worker->parting))
            quiet_turns = 0;
        else
            quiet_turns++;
    }
}

void
conn_rig_pass_time(int64_t ms)
{
    for (; ms > 0; ms -= RIG_TICK_MS) {
        hand_clock_turn(ms < RIG_TICK_MS ? ms : RIG_TICK_MS);
        conn_rig_turn();
    }
}

void
conn_rig_skip_time(int64_t ms)
{
    worker->clock.lost_ns -= (uint64_t)ms * 1000000;
}

int
conn_rig_open_client(int send_buffer_bytes, const char *more)
{
    char text[1024];
    int fd = conn_rig_connect(send_buffer_bytes);
    int bytes = snprintf(text, sizeof(text), CONN_RIG_REQUEST "%s\r\n", more);

    REQUIRE(send(fd, text, (size_t)bytes, 0) == bytes);
    conn_rig_settle();
    REQUIRE(recv(fd, text, sizeof(text), 0) > 12 && memcmp(text, "HTTP/1.1 101", 12) == 0);
    return fd;
}

struct conn *
conn_rig_last_conn(void)
{
    return worker->fanout.conns[worker->fanout.count - 1];
}

uint64_t
conn_rig_publish(const void *data, size_t bytes)
{
    uint64_t seq;

    REQUIRE(ring_publish(&worker->ring, RECORD_BINARY, data, bytes, 0, RECORD_NO_ORIGIN, &seq) ==
            0);
    return seq;
}

void
conn_rig_close(int client_fd)
{
    for (size_t i = 0; i < client_count; i++) {
        if (clients[i] == client_fd)
            clients[i] = clients[--client_count];
    }
    close(client_fd);
}

void
conn_rig_hang_up(int client_fd)
{
    conn_rig_close(client_fd);
    conn_rig_settle();
}

struct worker *
conn_rig_worker(void)
{
    return worker;
}

struct conf_shm *
conn_rig_conf(void)
{
    return &worker->own_conf;
}

uint64_t
conn_rig_counter(enum counter counter)
{
    return worker->counters[counter];
}

void
conn_rig_require_idle(void)
{
    const uint64_t *counters = worker->counters;
    const uint32_t *held = worker->fanout.held_at;

    REQUIRE(client_count == 0 && worker->conn_count == 0 && worker->fanout.count == 0);
    REQUIRE(worker->pool.used_bytes == 0 && worker->pool.block_bytes == 0);
    REQUIRE(worker->fanout.capacity <= FANOUT_CHUNK);
    REQUIRE(TAILQ_EMPTY(&worker->handshaking) && TAILQ_EMPTY(&worker->waiting) &&
            TAILQ_EMPTY(&worker->held) && TAILQ_EMPTY(&worker->parting) &&
            TAILQ_EMPTY(&worker->closing) && TAILQ_EMPTY(&worker->unwatched) &&
            TAILQ_EMPTY(&worker->gone));
    REQUIRE(worker->me->clients_open == 0 &&
            worker->me->clients_returned == counter_get(counters, clients_accepted));
    REQUIRE(worker->fanout.cursor == ring_tail(&worker->ring));
    /* All are as the one before, and the first is 0. */
    REQUIRE(held[0] == 0 &&
            memcmp(held, held + 1, worker->fanout.held_mask * sizeof(held[0])) == 0);
    REQUIRE(counter_get(counters, clients_opened) == counter_get(counters, clients_left));
    REQUIRE(counter_get(counters, broadcasts_due) ==
            counter_get(counters, broadcasts_delivered) +
                counter_get(counters, broadcasts_skipped) +
                counter_get(counters, broadcasts_not_addressed) +
                counter_get(counters, broadcasts_undeliverable));
    REQUIRE(counter_get(counters, broadcasts_undeliverable) <=
            counter_get(counters, broadcasts_due));
    REQUIRE(rig_count_fds() == fds_when_idle);
}
