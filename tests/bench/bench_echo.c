/*
 * bench_echo.c: what a worker pays for the round trip of a short message, against a bare server.
 *
 * All clients are one process, and have one masked text message of 64 bytes outstanding each: a
 * client that has its whole echo sends the next. The bare server is one process that does what
 * cannot be left out: epoll_wait, recv, take the mask off, put the server's head before it, send. Both get the
 * same load from the same code, in turn. Where the memory of a process comes to lie makes a
 * difference of some percent for as long as it lives, so every round is one of new processes.
 *
 * The clients have a CPU of their own, and so have the servers. How many messages wait when a
 * server looks depends on how fast it is, and a look costs as much for one as for many, so the
 * round trips for each time that it slept are printed as well. A single client is the case in which
 * each message has a look of its own. Everything stays on 127.0.0.1.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    CLIENTS = 100,
    TURNS = 4,          /* of each server in a round; the first is to warm up */
    ECHOES_MANY = 100,  /* of each client in a turn, when there are many */
    ECHOES_ALONE = 500, /* when there is one */
    PAYLOAD = 64,
    SENT = 2 + 4 + PAYLOAD, /* a client's frame, RFC 6455 section 5.2 */
    ECHO = 2 + PAYLOAD,
    EVENTS_FIRST = 32, /* an epoll_wait takes: libevent begins so, and doubles when all are used */
    EVENTS_MAX = 4096,
};

struct load {
    uint32_t clients;
    uint32_t echoes; /* of each client in a turn */
    struct server_rig_load process;
};

/* A comparison, and the sleeps of all its rounds. */
struct scene {
    const char *program;
    const struct load *load;
    double round_trips; /* of a side in a round */
    uint64_t sleeps[PAIRS_SIDES];
};

/* What is measured of a server process. */
struct reading {
    uint64_t cpu_ns;
    uint64_t sleeps;
};

/* --- the clients --- */

static void
client_frames(uint8_t sent[SENT], uint8_t echo[ECHO])
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

    sent[0] = echo[0] = 0x81;
    sent[1] = 0x80 | PAYLOAD;
    echo[1] = PAYLOAD;
    memcpy(sent + 2, key, sizeof(key));
    for (int i = 0; i < PAYLOAD; i++) {
        echo[2 + i] = (uint8_t)('!' + i);
        sent[6 + i] = echo[2 + i] ^ key[i % 4];
    }
}

static void
load_turn(const struct load *load, int epoll, const int fds[CLIENTS], const uint8_t sent[SENT],
          const uint8_t echo[ECHO])
{
    uint32_t left[CLIENTS];
    uint32_t busy = load->clients;

    for (uint32_t i = 0; i < load->clients; i++) {
        left[i] = load->echoes;
        if (send(fds[i], sent, SENT, 0) != SENT)
            server_rig_fail("first message");
    }
    while (busy > 0) {
        struct epoll_event events[CLIENTS];
        int count = epoll_wait(epoll, events, CLIENTS, SERVER_RIG_DEADLINE_MS);

        if (count <= 0)
            server_rig_fail("no echo");
        for (int e = 0; e < count; e++) {
            uint32_t i = events[e].data.u32;
            uint8_t got[ECHO + 1];

            if (recv(fds[i], got, sizeof(got), 0) != ECHO || memcmp(got, echo, ECHO) != 0)
                server_rig_fail("not the echo");
            if (--left[i] == 0)
                busy--;
            else if (send(fds[i], sent, SENT, 0) != SENT)
                server_rig_fail("message");
        }
    }
}

static void
load_start(struct load *load, uint16_t port, bool handshake)
{
    load->process.begin = eventfd(0, 0);
    load->process.done = eventfd(0, 0);
    load->process.pid = fork();
    if (load->process.pid == 0) {
        uint8_t sent[SENT];
        uint8_t echo[ECHO];
        int fds[CLIENTS];
        int epoll = epoll_create1(0);
        uint64_t begun;

        client_frames(sent, echo);
        for (uint32_t i = 0; i < load->clients; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
            int one = 1;

            fds[i] = server_rig_connect(port, handshake);
            setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        }
        server_rig_tell(load->process.done);
        while (read(load->process.begin, &begun, sizeof(begun)) == sizeof(begun)) {
            load_turn(load, epoll, fds, sent, echo);
            server_rig_tell(load->process.done);
        }
        _exit(1);
    }
    server_rig_await(load->process.done, "clients");
}

/* --- the bare server --- */

static void
bare_echo(int fd)
{
    uint8_t in[4096];
    uint8_t out[ECHO] = {0x81, PAYLOAD};
    uint64_t key;

    if (recv(fd, in, sizeof(in), MSG_DONTWAIT) != SENT)
        _exit(0); /* the clients have gone */
    if (in[0] != 0x81 || in[1] != (0x80 | PAYLOAD))
        server_rig_fail("not a message of 64 bytes");
    memcpy(&key, in + 2, 4);
    memcpy((uint8_t *)&key + 4, in + 2, 4);
    for (int i = 0; i < PAYLOAD; i += 8) {
        uint64_t word;

        memcpy(&word, in + 6 + i, 8);
        word ^= key;
        memcpy(out + 2 + i, &word, 8);
    }
    if (send(fd, out, ECHO, MSG_NOSIGNAL | MSG_DONTWAIT) != ECHO)
        server_rig_fail("echo");
}

static void
bare_run(int listener, uint32_t clients)
{
    static struct epoll_event events[EVENTS_MAX];
    int epoll = epoll_create1(0);
    int room = EVENTS_FIRST;

    for (uint32_t i = 0; i < clients; i++) {
        int fd = accept(listener, NULL, NULL);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            server_rig_fail("accept");
    }
    for (;;) {
        int count = epoll_wait(epoll, events, room, -1);

        for (int i = 0; i < count; i++)
            bare_echo(events[i].data.fd);
        if (count == room && room < EVENTS_MAX)
            room *= 2;
    }
}

static pid_t
bare_start(uint32_t clients, uint16_t *port)
{
    int listener = server_rig_listen(port);
    pid_t pid = fork();

    if (pid == 0)
        bare_run(listener, clients);
    close(listener);
    return pid;
}

/* --- what is measured --- */

static struct reading
reading_take(pid_t pid)
{
    struct reading reading = {.cpu_ns = server_rig_cpu_ns(pid)};
    unsigned long long sleeps = 0;
    char path[64];
    char line[256];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    file = fopen(path, "r");
    if (!file)
        server_rig_fail(path);
    while (fgets(line, sizeof(line), file) &&
           sscanf(line, "voluntary_ctxt_switches: %llu", &sleeps) != 1)
        ;
    fclose(file);
    reading.sleeps = sleeps;
    return reading;
}

/* What server `pid` takes for one turn is added. */
static void
measure(pid_t pid, const struct load *load, struct reading *sum)
{
    struct reading before = reading_take(pid);
    struct reading after;

    server_rig_tell(load->process.begin);
    server_rig_await(load->process.done, "round trips");
    after = reading_take(pid);
    sum->cpu_ns += after.cpu_ns - before.cpu_ns;
    sum->sleeps += after.sleeps - before.sleeps;
}

/* One of new processes, whose turns alternate. */
static void
scene_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    static const char *const flags[] = {"--workers", "1", NULL};
    struct scene *scene = context;
    struct load loads[PAIRS_SIDES] = {*scene->load, *scene->load};
    struct reading sums[PAIRS_SIDES] = {0};
    struct server_rig server;
    pid_t pids[PAIRS_SIDES];
    uint16_t port;

    server_rig_pin(SERVER_RIG_SERVERS);
    server_rig_start(&server, scene->program, flags);
    pids[PAIRS_CRIER] = server.children[0];
    pids[PAIRS_BARE] = bare_start(scene->load->clients, &port);
    server_rig_pin(SERVER_RIG_CLIENTS);
    load_start(&loads[PAIRS_CRIER], server.port, true);
    load_start(&loads[PAIRS_BARE], port, false);
    for (int i = 0; i < PAIRS_SIDES * TURNS; i++) {
        unsigned side = ((unsigned)i ^ first) % PAIRS_SIDES;
        if (i == PAIRS_SIDES)
            memset(sums, 0, sizeof(sums));
        measure(pids[side], &loads[side], &sums[side]);
    }
    for (int side = 0; side < PAIRS_SIDES; side++) {
        server_rig_load_stop(&loads[side].process);
        us[side] = (double)sums[side].cpu_ns / 1e3 / scene->round_trips;
        scene->sleeps[side] += sums[side].sleeps;
    }
    waitpid(pids[PAIRS_BARE], NULL, 0);
    server_rig_stop(&server);
}

static void
bench(const char *program, const struct load *load, double target)
{
    char title[80];
    struct pairs pairs = {.title = title,
                          .what = "CPU per round trip",
                          .bare = "bare epoll server",
                          .target = target};
    struct scene scene = {.program = program,
                          .load = load,
                          .round_trips = (TURNS - 1.0) * load->clients * load->echoes};

    snprintf(title, sizeof(title), "echo of %d bytes, %u client%s with one outstanding", PAYLOAD,
             load->clients, load->clients == 1 ? "" : "s");
    pairs_compare(&pairs, scene_round, &scene);
    printf("  round trips for each sleep   bare %.1f, crier %.1f\n",
           pairs.count * scene.round_trips / (double)(scene.sleeps[PAIRS_BARE] + 1),
           pairs.count * scene.round_trips / (double)(scene.sleeps[PAIRS_CRIER] + 1));
}

int
main(int argc, char **argv)
{
    static const struct load many = {.clients = CLIENTS, .echoes = ECHOES_MANY};
    static const struct load alone = {.clients = 1, .echoes = ECHOES_ALONE};
    const char *program = server_rig_open(argc, argv, CLIENTS + 100);

    bench(program, &many, 1.05);
    bench(program, &alone, 0);
    return 0;
}
