/*
 * bench_cores.c: what it costs to share the work among workers, and among publishers.
 *
 *   workers      the same broadcasts to the same number of clients by a server with one worker and
 *                by one with more: CPU time of all its processes per delivery, which shows what the
 *                sharing costs also where there are fewer CPUs than workers, with all servers on one
 *                CPU and all clients on another; then, where the scheduler puts them, deliveries per
 *                second
 *   publishers   16 clients that broadcast at the same time, on all workers, as fast as they can, and
 *                one that sends as much: time per broadcast, to those 16 alone, and to 1,000 more
 */
#include "shm/clock.h"
#include "tests/bench/audience.h"
#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    PAYLOAD_BYTES = 64,
    FRAME_BYTES = PAYLOAD_BYTES + 2,        /* from the server, RFC 6455 section 5.2 */
    CLIENT_FRAME_BYTES = PAYLOAD_BYTES + 6, /* masked, with zeroes */
    CLIENTS = 2000,
    BURST_MAX = 32,
    RATE_ROUNDS = 5,
    SET_UP_ROUNDS = 3, /* until all is set up anew */
    TALKERS = 16,
    TALK_FRAMES = 512, /* the most in one send */
    TALK_WORKERS = 4,
    LISTENERS = 1000,
    EVENTS = 64,
};

#define RING "16M"
#define RING_SMALL "256k" /* is full most of the time */

static void
server_start(struct server_rig *server, const char *program, unsigned workers, const char *mode,
             const char *ring)
{
    char text[16];
    const char *const flags[] = {"--workers", text,    "--ping", "0",  "--on-message",  mode,
                                 "--slow",    "block", "--ring", ring, "--max-message", "16k",
                                 NULL};

    snprintf(text, sizeof(text), "%u", workers);
    server_rig_start(server, program, flags);
}

/* --- workers --- */

struct house {
    struct server_rig server;
    struct audience *audience;
};

struct sharing {
    const char *program;
    uint32_t burst;  /* broadcasts that are on their way together */
    uint32_t bursts; /* in a round */
    int rounds;
    unsigned workers[PAIRS_SIDES];
    struct house houses[PAIRS_SIDES];
};

static void
house_burst(struct house *house, uint32_t burst)
{
    char lines[BURST_MAX * (PAYLOAD_BYTES + 1)];
    size_t bytes = burst * ((size_t)PAYLOAD_BYTES + 1);

    memset(lines, 'x', bytes);
    for (uint32_t i = 1; i <= burst; i++)
        lines[i * (PAYLOAD_BYTES + 1) - 1] = '\n';
    audience_expect(house->audience, (uint64_t)burst * FRAME_BYTES * CLIENTS);
    if (write(house->server.console, lines, bytes) != (ssize_t)bytes)
        server_rig_fail("console");
    server_rig_await(house->audience->event, "delivery");
}

static void
house_open(struct house *house, const char *program, unsigned workers)
{
    server_rig_pin(SERVER_RIG_SERVERS);
    server_start(&house->server, program, workers, "echo", RING);
    server_rig_pin(SERVER_RIG_CLIENTS);
    house->audience = audience_start(house->server.port, CLIENTS, true);
    server_rig_await(house->audience->event, "audience");
    server_rig_unpin(getpid());
}

static void
house_close(struct house *house)
{
    audience_stop(house->audience);
    server_rig_stop(&house->server);
}

static void
sharing_close(struct sharing *sharing)
{
    for (int i = 0; i < PAIRS_SIDES && sharing->rounds > 0; i++)
        house_close(&sharing->houses[i]);
}

/* What lies where in memory, and so in the caches, is settled then. */
static void
sharing_set_up(struct sharing *sharing)
{
    unsigned first = (unsigned)sharing->rounds / SET_UP_ROUNDS;

    sharing_close(sharing);
    for (unsigned i = first; i < first + PAIRS_SIDES; i++) {
        unsigned side = i % PAIRS_SIDES;
        house_open(&sharing->houses[side], sharing->program, sharing->workers[side]);
        house_burst(&sharing->houses[side], sharing->burst);
    }
}

static void
sharing_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    struct sharing *sharing = context;
    uint64_t cpu_ns[PAIRS_SIDES];

    if (sharing->rounds % SET_UP_ROUNDS == 0)
        sharing_set_up(sharing);
    sharing->rounds++;
    for (int i = 0; i < PAIRS_SIDES; i++)
        cpu_ns[i] = server_rig_tree_cpu_ns(&sharing->houses[i].server);
    for (uint32_t i = 0; i < PAIRS_SIDES * sharing->bursts; i++)
        house_burst(&sharing->houses[(i ^ first) % PAIRS_SIDES], sharing->burst);
    for (int i = 0; i < PAIRS_SIDES; i++)
        us[i] = (double)(server_rig_tree_cpu_ns(&sharing->houses[i].server) - cpu_ns[i]) / 1e3 /
                sharing->bursts / sharing->burst / CLIENTS;
}

/* Wherever the scheduler puts the processes. */
static double
house_rate(struct house *house, uint32_t burst, uint32_t bursts)
{
    uint64_t begin_ns;

    server_rig_unpin(house->server.pid);
    for (int i = 0; i < house->server.child_count; i++)
        server_rig_unpin(house->server.children[i]);
    server_rig_unpin(house->audience->pid);
    house->audience->sleeps = true;
    house_burst(house, burst);
    begin_ns = clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < bursts; i++)
        house_burst(house, burst);
    return (double)burst * bursts * CLIENTS * 1e9 / (double)(clock_ns(CLOCK_MONOTONIC) - begin_ns);
}

static void
bench_workers(const char *program, unsigned workers, uint32_t burst, uint32_t bursts)
{
    struct sharing sharing = {.program = program,
                              .burst = burst,
                              .bursts = bursts,
                              .workers = {[PAIRS_BARE] = 1, [PAIRS_CRIER] = workers}};
    char title[112];
    char name[32];
    struct pairs pairs = {
        .title = title,
        .what = "CPU per delivery",
        .bare = "server with 1 worker",
        .crier = name,
        .target = 1.1,
    };

    snprintf(name, sizeof(name), "server with %u workers", workers);
    snprintf(title, sizeof(title), "%u workers, %d bytes to %d clients, %u at a time", workers,
             PAYLOAD_BYTES, CLIENTS, burst);
    pairs_compare(&pairs, sharing_round, &sharing);
    for (int i = 0; i < PAIRS_SIDES; i++)
        printf("  %.0f deliveries per second with %u worker%s\n",
               house_rate(&sharing.houses[i], burst, RATE_ROUNDS * bursts), sharing.workers[i],
               sharing.workers[i] == 1 ? "" : "s");
    sharing_close(&sharing);
}

/* --- publishers --- */

/* Clients in a process of their own. The first of them broadcast, each as much as the others, as
 * fast as their sockets take it. */
struct talk {
    struct server_rig_load load;
    uint16_t port;
    uint32_t talkers;
    uint64_t said_all; /* bytes of a talker in a turn */
    uint64_t heard_all;
    int epoll; /* in the process, as all below */
    int fds[TALKERS];
    uint64_t said[TALKERS];
    uint64_t heard[TALKERS];
    uint8_t frames[TALK_FRAMES * CLIENT_FRAME_BYTES];
};

static void
talk_watch(const struct talk *talk, uint32_t who, int how)
{
    bool speaks = who < talk->talkers && talk->said[who] < talk->said_all;
    struct epoll_event event = {.events = speaks ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.u32 = who};

    if (epoll_ctl(talk->epoll, how, talk->fds[who], &event) != 0)
        server_rig_fail("epoll_ctl");
}

static void
talk_say(struct talk *talk, uint32_t who)
{
    size_t at = talk->said[who] % sizeof(talk->frames);
    uint64_t bytes = talk->said_all - talk->said[who];
    ssize_t sent;

    if (bytes > sizeof(talk->frames) - at)
        bytes = sizeof(talk->frames) - at;
    sent = send(talk->fds[who], talk->frames + at, bytes, MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN)
        server_rig_fail("publish");
    talk->said[who] += sent < 0 ? 0 : (uint64_t)sent;
    if (talk->said[who] == talk->said_all)
        talk_watch(talk, who, EPOLL_CTL_MOD);
}

/* Has it heard everything? */
static bool
talk_hear(struct talk *talk, uint32_t who)
{
    static uint8_t buffer[65536];
    ssize_t bytes = recv(talk->fds[who], buffer, sizeof(buffer), MSG_DONTWAIT);

    if (bytes <= 0)
        server_rig_fail("a talker was disconnected");
    talk->heard[who] += (uint64_t)bytes;
    return talk->heard[who] == talk->heard_all;
}

static void
talk_turn(struct talk *talk)
{
    uint32_t done = 0;

    memset(talk->said, 0, sizeof(talk->said));
    memset(talk->heard, 0, sizeof(talk->heard));
    for (uint32_t i = 0; i < talk->talkers; i++)
        talk_watch(talk, i, EPOLL_CTL_MOD);
    while (done < TALKERS) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(talk->epoll, events, EVENTS, SERVER_RIG_DEADLINE_MS);

        if (count <= 0)
            server_rig_fail("no broadcast");
        for (int e = 0; e < count; e++) {
            uint32_t who = events[e].data.u32;
            if (events[e].events & EPOLLOUT)
                talk_say(talk, who);
            if (events[e].events & EPOLLIN)
                done += talk_hear(talk, who);
        }
    }
}

static void
talk_start(struct talk *talk)
{
    uint64_t begun;

    talk->load = (struct server_rig_load){.begin = eventfd(0, 0), .done = eventfd(0, 0)};
    talk->load.pid = fork();
    if (talk->load.pid != 0)
        return;
    talk->epoll = epoll_create1(EPOLL_CLOEXEC);
    memset(talk->frames, 'x', sizeof(talk->frames));
    for (size_t at = 0; at < sizeof(talk->frames); at += CLIENT_FRAME_BYTES)
        memcpy(&talk->frames[at], (const uint8_t[]){0x81, 0x80 | PAYLOAD_BYTES, 0, 0, 0, 0}, 6);
    for (uint32_t i = 0; i < TALKERS; i++) {
        talk->fds[i] = server_rig_connect(talk->port, true);
        talk->said[i] = talk->said_all;
        talk_watch(talk, i, EPOLL_CTL_ADD);
    }
    server_rig_tell(talk->load.done);
    while (read(talk->load.begin, &begun, sizeof(begun)) == sizeof(begun)) {
        talk_turn(talk);
        server_rig_tell(talk->load.done);
    }
    _exit(1);
}

/* Workers have the CPUs by turns: some schedulers put all that wake each other onto one. */
static void
server_spread(const struct server_rig *server)
{
    int worker = 0;

    while (worker < server->child_count) {
        for (int cpu = 0; cpu < CPU_SETSIZE && worker < server->child_count; cpu++) {
            cpu_set_t one;

            if (!CPU_ISSET(cpu, &server_rig_cpus))
                continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (sched_setaffinity(server->children[worker++], sizeof(one), &one) != 0)
                server_rig_fail("sched_setaffinity");
        }
    }
}

/* One talker on one server, all of them on the other. */
struct debate {
    const char *program;
    const char *ring;
    int rounds;
    uint32_t listeners;
    uint32_t broadcasts; /* in a round */
    struct server_rig servers[PAIRS_SIDES];
    struct audience *audiences[PAIRS_SIDES];
    struct talk talks[PAIRS_SIDES];
};

static uint64_t
debate_talk(const struct debate *debate, enum pairs_side side)
{
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);

    if (debate->listeners)
        audience_expect(debate->audiences[side],
                        (uint64_t)debate->broadcasts * FRAME_BYTES * debate->listeners);
    server_rig_tell(debate->talks[side].load.begin);
    server_rig_await(debate->talks[side].load.done, "broadcasts to talkers");
    if (debate->listeners)
        server_rig_await(debate->audiences[side]->event, "broadcasts to listeners");
    return clock_ns(CLOCK_MONOTONIC) - begin_ns;
}

static void
debate_open(struct debate *debate, enum pairs_side side)
{
    uint32_t talkers = side == PAIRS_BARE ? 1 : TALKERS;
    struct server_rig *server = &debate->servers[side];
    struct talk *talk = &debate->talks[side];

    server_start(server, debate->program, TALK_WORKERS, "broadcast", debate->ring);
    server_spread(server);
    *talk = (struct talk){
        .port = server->port,
        .talkers = talkers,
        .said_all = (uint64_t)debate->broadcasts / talkers * CLIENT_FRAME_BYTES,
        .heard_all = (uint64_t)debate->broadcasts * FRAME_BYTES,
    };
    talk_start(talk);
    server_rig_await(talk->load.done, "talkers");
    if (debate->listeners) {
        debate->audiences[side] = audience_start(server->port, debate->listeners, true);
        server_rig_await(debate->audiences[side]->event, "listeners");
        debate->audiences[side]->sleeps = true; /* or it takes a CPU from the working processes */
    }
    (void)debate_talk(debate, side);
}

static void
debate_close(struct debate *debate)
{
    for (int i = 0; i < PAIRS_SIDES && debate->rounds > 0; i++) {
        server_rig_load_stop(&debate->talks[i].load);
        if (debate->listeners)
            audience_stop(debate->audiences[i]);
        server_rig_stop(&debate->servers[i]);
    }
}

static void
debate_set_up(struct debate *debate)
{
    unsigned first = (unsigned)debate->rounds / SET_UP_ROUNDS;

    debate_close(debate);
    for (unsigned i = first; i < first + PAIRS_SIDES; i++)
        debate_open(debate, (enum pairs_side)(i % PAIRS_SIDES));
}

static void
debate_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    struct debate *debate = context;

    if (debate->rounds % SET_UP_ROUNDS == 0)
        debate_set_up(debate);
    debate->rounds++;
    for (int i = 0; i < PAIRS_SIDES; i++) {
        enum pairs_side side = (enum pairs_side)(((unsigned)i ^ first) % PAIRS_SIDES);
        us[side] = (double)debate_talk(debate, side) / 1e3 / debate->broadcasts;
    }
}

static void
bench_publishers(const char *program, uint32_t listeners, uint32_t broadcasts, const char *ring)
{
    static struct debate debate;
    char title[112];
    struct pairs pairs = {
        .title = title,
        .what = "time per broadcast",
        .bare = "single publisher",
        .crier = "16 publishers",
        .target = 1.0,
    };

    snprintf(title, sizeof(title), "%d publishers on %d workers, %d bytes to %u clients, --ring %s",
             TALKERS, TALK_WORKERS, PAYLOAD_BYTES, TALKERS + listeners, ring);
    debate = (struct debate){
        .program = program, .ring = ring, .listeners = listeners, .broadcasts = broadcasts};
    pairs_compare(&pairs, debate_round, &debate);
    for (int i = 0; i < PAIRS_SIDES; i++)
        printf("  %.0f deliveries per second with %u publisher%s\n",
               (TALKERS + listeners) * 1e6 / pairs_side_median(&pairs, (enum pairs_side)i),
               debate.talks[i].talkers, i == PAIRS_BARE ? "" : "s");
    debate_close(&debate);
}

int
main(int argc, char **argv)
{
    const char *program = server_rig_open(argc, argv, CLIENTS + 100);

    for (unsigned workers = 2; workers <= 4; workers *= 2) {
        bench_workers(program, workers, 1, 10);
        bench_workers(program, workers, BURST_MAX, 5);
    }
    bench_publishers(program, 0, 48000, RING);
    bench_publishers(program, 0, 48000, RING_SMALL);
    bench_publishers(program, LISTENERS, 1600, RING);
    return 0;
}
