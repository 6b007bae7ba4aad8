/*
 * bench_server.c: what a delivery and an idle connection cost, against a bare loop in the same run.
 *
 *   delivery   CPU time of the worker per client and broadcast, to 1,000 and to 10,000 clients;
 *              one broadcast at a time, and 32 that are on their way together. Beside it a process
 *              that does nothing but send the same bytes to as many sockets, what is on its way in
 *              one send().
 *   memory     proportional set size of all processes with 10,000 idle connections less that
 *              with none, divided.
 *
 * Everything stays on 127.0.0.1.
 */
#include "tests/bench/audience.h"
#include "tests/bench/memory.h"
#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    SCENE_ROUNDS = 5, /* until everything is set up anew */
    IDLE = 10000,
    IDLE_MOST_BYTES = 300,
    BURST_MAX = 32,
    PAYLOAD_MAX = 1024,
    HEAD_MAX = 4, /* of a server's frame with such a payload, RFC 6455 section 5.2 */
};

/* What the clients are sent in a round. */
struct traffic {
    uint32_t clients;
    uint32_t payload_bytes;
    uint32_t burst;  /* broadcasts that are on their way together */
    uint32_t bursts; /* one after the other */
};

/* The bare program, and what it has measured of itself, in memory that it shares. */
struct bare {
    struct server_rig_load process;
    uint64_t cpu_ns; /* of all its sends */
};

/* Both sides, each with its audience. */
struct scene {
    const char *program;
    const struct traffic *traffic;
    int rounds;
    struct server_rig server;
    struct bare *bare;
    struct audience *audiences[PAIRS_SIDES];
};

/* The frames of one burst, end to end. */
static size_t
traffic_frames(const struct traffic *traffic, uint8_t *frames)
{
    uint32_t payload = traffic->payload_bytes;
    size_t used = 0;

    for (uint32_t i = 0; i < traffic->burst; i++) {
        frames[used++] = 0x81;
        frames[used++] = payload < 126 ? (uint8_t)payload : 126;
        if (payload >= 126) {
            frames[used++] = (uint8_t)(payload >> 8);
            frames[used++] = (uint8_t)payload;
        }
        memset(frames + used, 'x', payload);
        used += payload;
    }
    return used;
}

/* --- the bare program --- */

static void
bare_burst(struct bare *bare, const struct traffic *traffic, const int *fds)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    size_t bytes = traffic_frames(traffic, frames);
    uint64_t begin_ns = server_rig_cpu_ns(getpid());

    for (uint32_t i = 0; i < traffic->clients; i++) {
        if (send(fds[i], frames, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)bytes)
            server_rig_fail("bare send");
    }
    bare->cpu_ns += server_rig_cpu_ns(getpid()) - begin_ns;
}

static void
bare_run(struct bare *bare, const struct traffic *traffic, int listener)
{
    int *fds = calloc(traffic->clients, sizeof(fds[0]));
    uint64_t begun;

    for (uint32_t i = 0; fds && i < traffic->clients; i++) {
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0)
            server_rig_fail("accept");
    }
    while (fds && read(bare->process.begin, &begun, sizeof(begun)) == sizeof(begun))
        bare_burst(bare, traffic, fds);
    _exit(1);
}

static struct bare *
bare_start(const struct traffic *traffic, uint16_t *port)
{
    struct bare *bare = server_rig_shared(sizeof(*bare));
    int listener = server_rig_listen(port);
    pid_t pid;

    bare->process.begin = eventfd(0, 0);
    bare->process.done = eventfd(0, 0);
    pid = fork();
    if (pid == 0)
        bare_run(bare, traffic, listener);
    bare->process.pid = pid;
    close(listener);
    return bare;
}

static void
bare_stop(struct bare *bare)
{
    server_rig_load_stop(&bare->process);
    munmap(bare, sizeof(*bare));
}

static void
crier_write(const struct scene *scene)
{
    static char lines[BURST_MAX * (PAYLOAD_MAX + 1)];
    const struct traffic *traffic = scene->traffic;
    size_t bytes = traffic->burst * ((size_t)traffic->payload_bytes + 1);

    memset(lines, 'x', bytes);
    for (uint32_t i = 1; i <= traffic->burst; i++)
        lines[i * (traffic->payload_bytes + 1) - 1] = '\n';
    if (write(scene->server.console, lines, bytes) != (ssize_t)bytes)
        server_rig_fail("console");
}

/* --- both sides --- */

static void
scene_open_side(struct scene *scene, enum pairs_side side)
{
    static const char *const flags[] = {"--workers", "1", "--ping", "0", NULL};
    uint16_t port;

    server_rig_pin(SERVER_RIG_SERVERS);
    if (side == PAIRS_BARE)
        scene->bare = bare_start(scene->traffic, &port);
    else {
        server_rig_start(&scene->server, scene->program, flags);
        port = scene->server.port;
    }
    server_rig_pin(SERVER_RIG_CLIENTS);
    scene->audiences[side] = audience_start(port, scene->traffic->clients, side == PAIRS_CRIER);
    server_rig_await(scene->audiences[side]->event, "audience");
}

static void
scene_close(struct scene *scene)
{
    for (int side = 0; side < PAIRS_SIDES; side++)
        audience_stop(scene->audiences[side]);
    bare_stop(scene->bare);
    server_rig_stop(&scene->server);
}

static void
scene_burst(const struct scene *scene, enum pairs_side side)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    const struct traffic *traffic = scene->traffic;

    audience_expect(scene->audiences[side], traffic->clients * traffic_frames(traffic, frames));
    if (side == PAIRS_BARE)
        server_rig_tell(scene->bare->process.begin);
    else
        crier_write(scene);
    server_rig_await(scene->audiences[side]->event, "delivery");
}

/* The side that is set up first has other memory in the kernel than the second: a difference of some
 * percent for as long as it lives. So everything is set up anew now and then, in either order. */
static void
scene_renew(struct scene *scene)
{
    enum pairs_side first = scene->rounds / SCENE_ROUNDS % PAIRS_SIDES;

    if (scene->rounds > 0)
        scene_close(scene);
    scene_open_side(scene, first);
    scene_open_side(scene, !first);
    for (int side = 0; side < PAIRS_SIDES; side++)
        scene_burst(scene, side);
}

/* Burst by burst in turn, since what disturbs the machine may last for some bursts only. */
static void
scene_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    struct scene *scene = context;
    const struct traffic *traffic = scene->traffic;
    double deliveries = (double)traffic->bursts * traffic->burst * traffic->clients;
    uint64_t crier_ns;

    if (scene->rounds % SCENE_ROUNDS == 0)
        scene_renew(scene);
    scene->rounds++;
    crier_ns = server_rig_cpu_ns(scene->server.children[0]);
    scene->bare->cpu_ns = 0;
    for (uint32_t i = 0; i < PAIRS_SIDES * traffic->bursts; i++)
        scene_burst(scene, (i ^ first) % PAIRS_SIDES);
    crier_ns = server_rig_cpu_ns(scene->server.children[0]) - crier_ns;
    us[PAIRS_BARE] = (double)scene->bare->cpu_ns / 1e3 / deliveries;
    us[PAIRS_CRIER] = (double)crier_ns / 1e3 / deliveries;
}

static void
bench_delivery(const char *program, const struct traffic *traffic)
{
    struct scene scene = {.program = program, .traffic = traffic};
    char title[80];
    struct pairs pairs = {
        .title = title, .what = "CPU per delivery", .bare = "bare send() loop", .target = 1.05};

    snprintf(title, sizeof(title), "%u bytes, %u at a time, to %u clients", traffic->payload_bytes,
             traffic->burst, traffic->clients);
    pairs_compare(&pairs, scene_round, &scene);
    scene_close(&scene);
}

/* --- memory --- */

static void
bench_memory(const char *program)
{
    static const char *const flags[] = {"--no-welcome", "--workers", "2", "--ping", "0", NULL};
    struct server_rig server;
    struct audience *audience;
    uint64_t before;
    uint64_t after;
    double each;

    server_rig_start(&server, program, flags);
    before = memory_server_kib(&server);
    audience = audience_start(server.port, IDLE, true);
    server_rig_await(audience->event, "audience");
    after = memory_server_kib(&server);
    printf("memory of %d idle connections, PSS of all processes:\n", IDLE);
    each = (double)(after - before) * 1024 / IDLE;
    printf("  %llu KiB without, %llu KiB with: %.0f bytes per connection      at most %d: %s\n",
           (unsigned long long)before, (unsigned long long)after, each, IDLE_MOST_BYTES,
           each <= IDLE_MOST_BYTES ? "met" : "MISSED");
    audience_stop(audience);
    server_rig_stop(&server);
}

int
main(int argc, char **argv)
{
    static const struct traffic traffics[] = {
        {.clients = 1000, .payload_bytes = 64, .burst = 1, .bursts = 40},
        {.clients = 1000, .payload_bytes = 64, .burst = BURST_MAX, .bursts = 20},
        {.clients = 1000, .payload_bytes = PAYLOAD_MAX, .burst = 1, .bursts = 40},
        {.clients = 1000, .payload_bytes = PAYLOAD_MAX, .burst = BURST_MAX, .bursts = 10},
        {.clients = 10000, .payload_bytes = 64, .burst = 1, .bursts = 4},
        {.clients = 10000, .payload_bytes = 64, .burst = BURST_MAX, .bursts = 3},
        {.clients = 10000, .payload_bytes = PAYLOAD_MAX, .burst = 1, .bursts = 4},
        {.clients = 10000, .payload_bytes = PAYLOAD_MAX, .burst = BURST_MAX, .bursts = 1},
    };
    const char *program = server_rig_open(argc, argv, IDLE + 100);

    for (size_t i = 0; i < sizeof(traffics) / sizeof(traffics[0]); i++)
        bench_delivery(program, &traffics[i]);
    bench_memory(program);
    return 0;
}
