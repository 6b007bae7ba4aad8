/*
 * bench_server.c: what a delivery and an idle connection cost, against a bare loop in the same run.
 *
 *   delivery   CPU time of the worker per client and broadcast, to 1,000 clients; one broadcast at
 *              a time, and 32 that are on their way together. Beside it a process that does nothing
 *              but send the same bytes to as many sockets, what is on its way in one send().
 *   memory     proportional set size of all processes with 10,000 idle connections less that
 *              with none, divided.
 *
 * The audience is a process of its own that reads and counts. Everything stays on 127.0.0.1.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/bench/server_rig.h"

enum {
    AUDIENCE = 1000,
    IDLE = 10000,
    IDLE_MOST_BYTES = 300,
    ROUNDS = 15,
    BURST_MAX = 32,
    PAYLOAD_MAX = 1024,
    HEAD_MAX = 4, /* of a server's frame with such a payload, RFC 6455 section 5.2 */
};

/* What the clients are sent in a round. */
struct traffic {
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

static double
traffic_us_each(const struct traffic *traffic, uint64_t ns)
{
    return (double)ns / 1e3 / traffic->bursts / traffic->burst / AUDIENCE;
}

/* A process that sends what it is told to, to each of its sockets. */
static double
bare_round(const struct traffic *traffic, const int *fds, struct audience *audience)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    size_t bytes = traffic_frames(traffic, frames);
    uint64_t sum_ns = 0;

    for (uint32_t b = 0; b < traffic->bursts; b++) {
        uint64_t before_ns;

        audience_expect(audience, AUDIENCE * bytes);
        before_ns = server_rig_cpu_ns(getpid());
        for (int i = 0; i < AUDIENCE; i++) {
            if (send(fds[i], frames, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)bytes)
                server_rig_fail("bare send");
        }
        sum_ns += server_rig_cpu_ns(getpid()) - before_ns;
        server_rig_await(audience->event, "bare delivery");
    }
    return traffic_us_each(traffic, sum_ns);
}

static double
crier_round(const struct traffic *traffic, const struct server_rig *server,
            struct audience *audience)
{
    static uint8_t frames[BURST_MAX * (HEAD_MAX + PAYLOAD_MAX)];
    static char lines[BURST_MAX * (PAYLOAD_MAX + 1)];
    size_t bytes = traffic_frames(traffic, frames);
    size_t lines_bytes = traffic->burst * ((size_t)traffic->payload_bytes + 1);
    uint64_t before_ns = server_rig_cpu_ns(server->children[0]);

    memset(lines, 'x', lines_bytes);
    for (uint32_t i = 1; i <= traffic->burst; i++)
        lines[i * (traffic->payload_bytes + 1) - 1] = '\n';
    for (uint32_t b = 0; b < traffic->bursts; b++) {
        audience_expect(audience, AUDIENCE * bytes);
        if (write(server->console, lines, lines_bytes) != (ssize_t)lines_bytes)
            server_rig_fail("console");
        server_rig_await(audience->event, "delivery");
    }
    return traffic_us_each(traffic, server_rig_cpu_ns(server->children[0]) - before_ns);
}

static struct audience *
bare_start(int fds[AUDIENCE])
{
    uint16_t port;
    int listener = server_rig_listen(&port);
    struct audience *audience = audience_start(port, AUDIENCE, false);

    for (int i = 0; i < AUDIENCE; i++) {
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0)
            server_rig_fail("accept");
    }
    server_rig_await(audience->event, "bare audience");
    close(listener);
    return audience;
}

static void
bench_delivery(const char *program, const struct traffic *traffic)
{
    static const char *const flags[] = {"--workers", "1", "--ping", "0", NULL};
    static int fds[AUDIENCE];
    static struct server_rig_rounds rounds = {.count = ROUNDS};
    struct server_rig server;
    struct audience *bare_audience = bare_start(fds);
    struct audience *audience;

    server_rig_start(&server, program, flags);
    audience = audience_start(server.port, AUDIENCE, true);
    server_rig_await(audience->event, "audience");
    for (int r = -1; r < ROUNDS; r++) { /* one to warm up */
        rounds.bare_us[r < 0 ? 0 : r] = bare_round(traffic, fds, bare_audience);
        rounds.crier_us[r < 0 ? 0 : r] = crier_round(traffic, &server, audience);
    }
    printf("delivery of %u bytes to %d clients, %u broadcast%s at a time, CPU per delivery:\n",
           traffic->payload_bytes, AUDIENCE, traffic->burst, traffic->burst == 1 ? "" : "s");
    server_rig_report(&rounds, "bare send() loop", 1.05);
    audience_stop(audience);
    audience_stop(bare_audience);
    server_rig_stop(&server);
    for (int i = 0; i < AUDIENCE; i++)
        close(fds[i]);
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
        {.payload_bytes = 64, .burst = 1, .bursts = 40},
        {.payload_bytes = 64, .burst = BURST_MAX, .bursts = 20},
        {.payload_bytes = PAYLOAD_MAX, .burst = BURST_MAX, .bursts = 10},
    };
    const char *program = server_rig_open(argc, argv, IDLE + 100);

    for (size_t i = 0; i < sizeof(traffics) / sizeof(traffics[0]); i++)
        bench_delivery(program, &traffics[i]);
    bench_memory(program);
    return 0;
}
