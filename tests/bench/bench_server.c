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
 * The audience is a process of its own that reads and counts. Everything stays on 127.0.0.1.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    AUDIENCE_MAX = 10000,
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

/* What the audience has received, in memory that it shares with this process. */
struct audience {
    pid_t pid;
    int event; /* written when `received` has reached `target` */
    uint64_t received;
    uint64_t target;
};

/* Both sides, each with its audience. */
struct scene {
    const struct traffic *traffic;
    struct server_rig server;
    struct audience *crier_audience;
    struct audience *bare_audience;
    int bare_fds[AUDIENCE_MAX];
};

/* --- the audience --- */

static void
audience_read(struct audience *audience, int epoll)
{
    static char buffer[65536];
    struct epoll_event events[256];

    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);

        for (int i = 0; i < count; i++) {
            ssize_t bytes = recv(events[i].data.fd, buffer, sizeof(buffer), MSG_DONTWAIT);
            if (bytes <= 0)
                _exit(0);
            audience->received += (uint64_t)bytes;
        }
        if (audience->target && audience->received >= audience->target) {
            audience->target = 0;
            server_rig_tell(audience->event);
        }
    }
}

static struct audience *
audience_start(uint16_t port, uint32_t count, bool handshake)
{
    struct audience *audience =
        mmap(NULL, sizeof(*audience), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid;

    if (audience == MAP_FAILED)
        server_rig_fail("mmap");
    audience->event = eventfd(0, 0);
    pid = fork();
    if (pid == 0) {
        int epoll = epoll_create1(0);

        for (uint32_t i = 0; i < count; i++) {
            int fd = server_rig_connect(port, handshake);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
        server_rig_tell(audience->event);
        audience_read(audience, epoll);
    }
    audience->pid = pid;
    return audience;
}

static void
audience_expect(struct audience *audience, uint64_t bytes)
{
    audience->target = audience->received + bytes;
}

static void
audience_stop(struct audience *audience)
{
    kill(audience->pid, SIGKILL);
    waitpid(audience->pid, NULL, 0);
    close(audience->event);
    munmap(audience, sizeof(*audience));
}

/* --- what is measured --- */

static uint64_t
pss_kib(pid_t pid)
{
    char path[64];
    char line[256];
    unsigned long long kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    file = fopen(path, "r");
    if (!file)
        server_rig_fail(path);
    while (fgets(line, sizeof(line), file) && sscanf(line, "Pss: %llu", &kib) != 1)
        ;
    fclose(file);
    return kib;
}

static uint64_t
server_pss_kib(const struct server_rig *server)
{
    uint64_t sum = pss_kib(server->pid);

    for (int i = 0; i < server->child_count; i++)
        sum += pss_kib(server->children[i]);
    return sum;
}

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

/* Sends what it is told to, to each of its sockets. Returns the CPU time. */
static uint64_t
bare_burst(const struct scene *scene)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    size_t bytes = traffic_frames(scene->traffic, frames);
    uint64_t ns;

    audience_expect(scene->bare_audience, scene->traffic->clients * bytes);
    ns = server_rig_cpu_ns(getpid());
    for (uint32_t i = 0; i < scene->traffic->clients; i++) {
        if (send(scene->bare_fds[i], frames, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)bytes)
            server_rig_fail("bare send");
    }
    ns = server_rig_cpu_ns(getpid()) - ns;
    server_rig_await(scene->bare_audience->event, "bare delivery");
    return ns;
}

static void
crier_burst(const struct scene *scene)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    static char lines[BURST_MAX * (PAYLOAD_MAX + 1)];
    const struct traffic *traffic = scene->traffic;
    size_t bytes = traffic->burst * ((size_t)traffic->payload_bytes + 1);

    memset(lines, 'x', bytes);
    for (uint32_t i = 1; i <= traffic->burst; i++)
        lines[i * (traffic->payload_bytes + 1) - 1] = '\n';
    audience_expect(scene->crier_audience, traffic->clients * traffic_frames(traffic, frames));
    if (write(scene->server.console, lines, bytes) != (ssize_t)bytes)
        server_rig_fail("console");
    server_rig_await(scene->crier_audience->event, "delivery");
}

/* Burst by burst in turn, since what disturbs the machine may last for some bursts only. */
static void
scene_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    const struct scene *scene = context;
    const struct traffic *traffic = scene->traffic;
    double deliveries = (double)traffic->bursts * traffic->burst * traffic->clients;
    uint64_t crier_ns = server_rig_cpu_ns(scene->server.children[0]);
    uint64_t bare_ns = 0;

    for (uint32_t i = 0; i < PAIRS_SIDES * traffic->bursts; i++) {
        if ((i ^ first) % PAIRS_SIDES == PAIRS_BARE)
            bare_ns += bare_burst(scene);
        else
            crier_burst(scene);
    }
    crier_ns = server_rig_cpu_ns(scene->server.children[0]) - crier_ns;
    us[PAIRS_BARE] = (double)bare_ns / 1e3 / deliveries;
    us[PAIRS_CRIER] = (double)crier_ns / 1e3 / deliveries;
}

/* crier first: its audience must not inherit the bare program's sockets, there are not so many
 * descriptors. */
static void
scene_open(struct scene *scene, const char *program, const struct traffic *traffic)
{
    static const char *const flags[] = {"--workers", "1", "--ping", "0", NULL};
    double warm_up[PAIRS_SIDES];
    uint16_t port;
    int listener;

    scene->traffic = traffic;
    server_rig_pin(SERVER_RIG_SERVERS);
    server_rig_start(&scene->server, program, flags);
    server_rig_pin(SERVER_RIG_CLIENTS);
    scene->crier_audience = audience_start(scene->server.port, traffic->clients, true);
    server_rig_await(scene->crier_audience->event, "audience");
    listener = server_rig_listen(&port);
    scene->bare_audience = audience_start(port, traffic->clients, false);
    for (uint32_t i = 0; i < traffic->clients; i++) {
        scene->bare_fds[i] = accept(listener, NULL, NULL);
        if (scene->bare_fds[i] < 0)
            server_rig_fail("accept");
    }
    server_rig_await(scene->bare_audience->event, "bare audience");
    close(listener);
    server_rig_pin(SERVER_RIG_SERVERS); /* this process is the bare program */
    scene_round(scene, PAIRS_BARE, warm_up);
}

static void
scene_close(struct scene *scene)
{
    audience_stop(scene->crier_audience);
    audience_stop(scene->bare_audience);
    server_rig_stop(&scene->server);
    for (uint32_t i = 0; i < scene->traffic->clients; i++)
        close(scene->bare_fds[i]);
}

static void
bench_delivery(const char *program, const struct traffic *traffic)
{
    static struct scene scene;
    char title[80];
    struct pairs pairs = {
        .title = title, .what = "CPU per delivery", .bare = "bare send() loop", .target = 1.05};

    snprintf(title, sizeof(title), "%u bytes, %u at a time, to %u clients", traffic->payload_bytes,
             traffic->burst, traffic->clients);
    scene_open(&scene, program, traffic);
    pairs_compare(&pairs, scene_round, &scene);
    scene_close(&scene);
}

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
    before = server_pss_kib(&server);
    audience = audience_start(server.port, IDLE, true);
    server_rig_await(audience->event, "audience");
    after = server_pss_kib(&server);
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
