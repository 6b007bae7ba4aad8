/*
 * bench_latency.c: how long broadcasts and others wait.
 *
 *   large audience   one worker with 15,000 clients and broadcasts one after the other: its own CPU
 *                    time for a stretch of a sweep (the worker's histogram), and how much of it goes
 *                    by until one more client has its echo back, which may be two such stretches.
 *                    The CPU time of all sweeps is what a stretch would be, and what an echo would
 *                    wait for, were there no stretches.
 *   open loop        100 broadcasts a second to 1,000 clients, whatever becomes of those before:
 *                    the time from when one was due until a client's process has it, all clients
 *                    and broadcasts together, against a process that sends the same frame to each
 *                    of its sockets when it is due.
 *
 * The audience is a process of its own; another one writes to the console or sends to the sockets.
 * Everything stays on 127.0.0.1.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>

#include "shm/chan.h"
#include "shm/clock.h"
#include "shm/member.h"
#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    LARGE = 15000,
    STRETCH_MOST_US = 1000,
    STRETCHES_OF_AN_ECHO = 2,
    BURST_MAX = 32,
    PAYLOAD_MAX = 1024,
    READ_BYTES = 65536,
    ECHOES_MAX = 100000,

    AUDIENCE = 1000,
    BROADCASTS = 50, /* of a side in a round */
    PERIOD_NS = 10 * 1000 * 1000,
    PAYLOAD = 64,
    FRAME_BYTES = 2 + PAYLOAD, /* RFC 6455 section 5.2 */
};

/* Clients that read, in a process of their own, and what it shares with this one. */
struct audience {
    pid_t pid;
    int event;                        /* written when `left` has become 0 */
    uint64_t left;                    /* bytes, of all clients */
    uint64_t first_due_ns;            /* of the open loop's round */
    double us[BROADCASTS * AUDIENCE]; /* from when a broadcast was due until a client had it */
};

/* --- the audience --- */

/* `got` bytes before, `bytes` now: frames that are complete with these have arrived now. */
static void
audience_stamp(struct audience *audience, uint32_t client, uint64_t got, size_t bytes)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);

    for (uint64_t f = got / FRAME_BYTES; f < (got + bytes) / FRAME_BYTES; f++) {
        uint64_t number = f % BROADCASTS; /* of the round */
        uint64_t due_ns = audience->first_due_ns + number * PERIOD_NS;
        audience->us[number * AUDIENCE + client] = (double)(now_ns - due_ns) / 1e3;
    }
}

static void
audience_read(struct audience *audience, int epoll, const int *fds, bool stamps)
{
    static char buffer[READ_BYTES];
    static uint64_t got[LARGE];
    struct epoll_event events[256];

    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);

        for (int i = 0; i < count; i++) {
            uint32_t client = events[i].data.u32;
            ssize_t bytes = recv(fds[client], buffer, sizeof(buffer), MSG_DONTWAIT);
            if (bytes <= 0)
                _exit(0);
            if (stamps)
                audience_stamp(audience, client, got[client], (size_t)bytes);
            got[client] += (uint64_t)bytes;
            audience->left -= (uint64_t)bytes;
            if (audience->left == 0)
                server_rig_tell(audience->event);
        }
    }
}

static struct audience *
audience_start(uint16_t port, uint32_t count, bool handshake)
{
    struct audience *audience =
        mmap(NULL, sizeof(*audience), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static int fds[LARGE];
    pid_t pid;

    if (audience == MAP_FAILED)
        server_rig_fail("mmap");
    audience->event = eventfd(0, 0);
    pid = fork();
    if (pid == 0) {
        int epoll = epoll_create1(0);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint32_t i = 0; i < count; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
            fds[i] = server_rig_connect(port, handshake);
            epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        }
        server_rig_tell(audience->event);
        audience_read(audience, epoll, fds, count == AUDIENCE);
    }
    audience->pid = pid;
    return audience;
}

static void
audience_stop(struct audience *audience)
{
    kill(audience->pid, SIGKILL);
    waitpid(audience->pid, NULL, 0);
    close(audience->event);
    munmap(audience, sizeof(*audience));
}

/* --- an echo while others are sent broadcasts --- */

struct echo {
    int fd;
    uint8_t buffer[READ_BYTES]; /* what has come of a frame */
    size_t used;
    int count;
    pid_t worker;
    double us[ECHOES_MAX];
    double cpu_us[ECHOES_MAX]; /* of the worker meanwhile */
};

/* This process, which shares a CPU with the audience, has to see the answer at once: the worker's
 * clock goes on until it does. */
static void
echo_hurry(int policy, int priority)
{
    struct sched_param param = {.sched_priority = priority};

    if (sched_setscheduler(0, policy, &param) != 0)
        fprintf(stderr, "no real-time priority (%s): echoes seem to take longer\n",
                strerror(errno));
}

static void
echo_open(struct echo *echo, const struct server_rig *server)
{
    echo->fd = server_rig_connect(server->port, true);
    echo->worker = server->children[0];
    echo->used = 0;
    echo->count = 0;
    echo_hurry(SCHED_FIFO, 1);
}

static void
echo_close(struct echo *echo)
{
    echo_hurry(SCHED_OTHER, 0);
    close(echo->fd);
}

/* Takes whole frames off the buffer, broadcasts that come between as well; true: one was the echo,
 * the only one with a single byte. */
static bool
echo_take_frames(struct echo *echo)
{
    bool found = false;
    size_t at = 0;

    for (;;) {
        const uint8_t *frame = echo->buffer + at;
        size_t left = echo->used - at;
        size_t bytes;

        if (left < 4 && !(left == 3 && frame[1] == 1))
            break;
        bytes = frame[1] < 126 ? 2U + frame[1] : 4U + (frame[2] << 8 | frame[3]);
        if (left < bytes)
            break;
        found |= frame[1] == 1;
        at += bytes;
    }
    echo->used -= at;
    memmove(echo->buffer, echo->buffer + at, echo->used);
    return found;
}

static void
echo_once(struct echo *echo)
{
    static const uint8_t message[] = {0x81, 0x81, 0, 0, 0, 0, 'x'};
    uint64_t cpu_ns = server_rig_cpu_ns(echo->worker);
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);

    if (send(echo->fd, message, sizeof(message), 0) != sizeof(message))
        server_rig_fail("echo");
    do {
        ssize_t bytes =
            recv(echo->fd, echo->buffer + echo->used, sizeof(echo->buffer) - echo->used, 0);
        if (bytes <= 0)
            server_rig_fail("answer");
        echo->used += (size_t)bytes;
    } while (!echo_take_frames(echo));
    if (echo->count == ECHOES_MAX)
        return;
    echo->cpu_us[echo->count] = (double)(server_rig_cpu_ns(echo->worker) - cpu_ns) / 1e3;
    echo->us[echo->count++] = (double)(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1e3;
}

/* --- a large audience --- */

struct traffic {
    uint32_t payload_bytes;
    uint32_t burst;  /* broadcasts that are on their way together */
    uint32_t bursts; /* one after the other */
};

static void
large_burst(const struct traffic *traffic, const struct server_rig *server,
            struct audience *audience, struct echo *echo)
{
    static char lines[BURST_MAX * (PAYLOAD_MAX + 1)];
    size_t line_bytes = traffic->payload_bytes + 1;
    size_t frame_bytes = (traffic->payload_bytes < 126 ? 2 : 4) + traffic->payload_bytes;
    struct pollfd done = {.fd = audience->event, .events = POLLIN};

    memset(lines, 'x', sizeof(lines));
    for (uint32_t i = 1; i <= traffic->burst; i++)
        lines[i * line_bytes - 1] = '\n';
    audience->left = LARGE * frame_bytes * traffic->burst;
    if (write(server->console, lines, line_bytes * traffic->burst) !=
        (ssize_t)(line_bytes * traffic->burst))
        server_rig_fail("console");
    while (poll(&done, 1, 0) == 0)
        echo_once(echo);
    server_rig_await(audience->event, "delivery");
}

/* From the segment, which a worker has open. */
static struct histogram_shm
server_histogram(const struct server_rig *server, enum histogram histogram)
{
    struct histogram_shm sum;
    struct segment segment;
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", server->children[0], CHAN_FD_SEGMENT);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    errno = fd < 0 ? errno : -segment_attach(&segment, fd, true);
    if (errno)
        server_rig_fail("segment");
    close(fd);
    member_histogram_sum(&segment, histogram, &sum);
    segment_detach(&segment);
    return sum;
}

static void
print_verdict(double value_us, double target_us)
{
    printf("   at most %.0f at p99: %s\n", target_us, value_us <= target_us ? "met" : "MISSED");
}

static void
large_print(const struct traffic *traffic, const struct server_rig *server, double cpu_us,
            struct echo *echo)
{
    struct histogram_shm stretch = server_histogram(server, HISTOGRAM_sweep_stretch);
    struct histogram_shm last = server_histogram(server, HISTOGRAM_broadcast_last_client);
    double stretch_us = (double)histogram_value_at(&stretch, 0.99) / 1e3;
    int n = echo->count;

    qsort(echo->us, (size_t)n, sizeof(echo->us[0]), pairs_order);
    qsort(echo->cpu_us, (size_t)n, sizeof(echo->cpu_us[0]), pairs_order);
    printf("%u bytes, %u at a time, to %d clients of one worker, microseconds:\n",
           traffic->payload_bytes, traffic->burst, LARGE);
    printf("  %-34s %9.0f\n", "CPU time of the sweeps of a burst", cpu_us / traffic->bursts);
    printf("  %-34s p50 %9.1f  p99 %9.1f  max %9.1f  of %llu", "stretch of a sweep, CPU time",
           (double)histogram_value_at(&stretch, 0.5) / 1e3, stretch_us,
           (double)stretch.max_ns / 1e3, (unsigned long long)histogram_count(&stretch));
    print_verdict(stretch_us, STRETCH_MOST_US);
    printf("  %-34s p50 %9.1f  p99 %9.1f  max %9.1f  of %d", "CPU time until an echo is back",
           echo->cpu_us[n / 2], echo->cpu_us[n * 99 / 100], echo->cpu_us[n - 1], n);
    print_verdict(echo->cpu_us[n * 99 / 100], STRETCHES_OF_AN_ECHO * stretch_us);
    printf("  %-34s p50 %9.1f  p99 %9.1f  max %9.1f\n", "until an echo is back", echo->us[n / 2],
           echo->us[n * 99 / 100], echo->us[n - 1]);
    printf("  %-34s p50 %9.0f  p99 %9.0f\n", "until the last client was written to",
           (double)histogram_value_at(&last, 0.5) / 1e3,
           (double)histogram_value_at(&last, 0.99) / 1e3);
}

static void
bench_large(const char *program, const struct traffic *traffic)
{
    static const char *const flags[] = {"--workers", "1", "--ping", "0", NULL};
    static struct echo echo;
    struct server_rig server;
    struct audience *audience;
    uint64_t cpu_ns;

    server_rig_pin(SERVER_RIG_SERVERS);
    server_rig_start(&server, program, flags);
    server_rig_pin(SERVER_RIG_CLIENTS);
    audience = audience_start(server.port, LARGE, true);
    server_rig_await(audience->event, "audience");
    echo_open(&echo, &server);
    cpu_ns = server_rig_cpu_ns(server.children[0]);
    for (uint32_t i = 0; i < traffic->bursts; i++)
        large_burst(traffic, &server, audience, &echo);
    cpu_ns = server_rig_cpu_ns(server.children[0]) - cpu_ns;
    large_print(traffic, &server, (double)cpu_ns / 1e3, &echo);
    echo_close(&echo);
    audience_stop(audience);
    server_rig_stop(&server);
}

/* --- an open loop --- */

/* One side of the comparison: the broadcaster, a process of its own, and the clients. */
struct side {
    struct audience *audience;
    pid_t sender;
    int begin;         /* written when a round is to begin */
    int console;       /* crier's, */
    int fds[AUDIENCE]; /* the bare program's */
};

struct scene {
    struct server_rig server;
    struct side sides[PAIRS_SIDES];
};

static void
sender_broadcast(const struct side *side, enum pairs_side which)
{
    static uint8_t frame[FRAME_BYTES] = {0x81, PAYLOAD};
    static char line[PAYLOAD + 1];

    memset(frame + 2, 'x', PAYLOAD);
    memset(line, 'x', PAYLOAD);
    line[PAYLOAD] = '\n';
    if (which == PAIRS_CRIER && write(side->console, line, sizeof(line)) != sizeof(line))
        server_rig_fail("console");
    for (int i = 0; i < AUDIENCE && which == PAIRS_BARE; i++) {
        if (send(side->fds[i], frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(frame))
            server_rig_fail("bare send");
    }
}

static void
sender_run(const struct side *side, enum pairs_side which)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);

    for (;;) {
        uint64_t due_ns;

        server_rig_await(side->begin, "the next round");
        due_ns = side->audience->first_due_ns;
        for (int i = 0; i < BROADCASTS; i++, due_ns += PERIOD_NS) {
            struct itimerspec due = {.it_value = {.tv_sec = (time_t)(due_ns / 1000000000U),
                                                  .tv_nsec = (long)(due_ns % 1000000000U)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &due, NULL);
            server_rig_await(timer, "time to pass");
            sender_broadcast(side, which);
        }
    }
}

static void
side_start(struct side *side, enum pairs_side which)
{
    side->begin = eventfd(0, 0);
    server_rig_pin(SERVER_RIG_SERVERS);
    side->sender = fork();
    if (side->sender == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sender_run(side, which);
    }
    server_rig_pin(SERVER_RIG_CLIENTS);
}

static void
side_stop(struct side *side)
{
    kill(side->sender, SIGKILL);
    waitpid(side->sender, NULL, 0);
    close(side->begin);
    audience_stop(side->audience);
}

/* Of all broadcasts and clients. */
static void
side_round(struct side *side, double *p50_us, double *p99_us)
{
    struct audience *audience = side->audience;

    audience->first_due_ns = clock_ns(CLOCK_MONOTONIC) + PERIOD_NS;
    audience->left = (uint64_t)AUDIENCE * BROADCASTS * FRAME_BYTES;
    server_rig_tell(side->begin);
    server_rig_await(audience->event, "delivery");
    qsort(audience->us, BROADCASTS * AUDIENCE, sizeof(audience->us[0]), pairs_order);
    *p50_us = audience->us[BROADCASTS * AUDIENCE / 2];
    *p99_us = audience->us[BROADCASTS * AUDIENCE * 99 / 100];
}

static void
scene_round(struct scene *scene, enum pairs_side first, double p50_us[PAIRS_SIDES],
            double p99_us[PAIRS_SIDES])
{
    for (int i = 0; i < PAIRS_SIDES; i++) {
        enum pairs_side which = i == 0 ? first : !first;
        side_round(&scene->sides[which], &p50_us[which], &p99_us[which]);
    }
}

static void
scene_open(struct scene *scene, const char *program)
{
    static const char *const flags[] = {"--workers", "1", "--ping", "0", NULL};
    struct side *crier = &scene->sides[PAIRS_CRIER];
    struct side *bare = &scene->sides[PAIRS_BARE];
    uint16_t port;
    int listener;

    server_rig_pin(SERVER_RIG_SERVERS);
    server_rig_start(&scene->server, program, flags);
    server_rig_pin(SERVER_RIG_CLIENTS);
    crier->console = scene->server.console;
    crier->audience = audience_start(scene->server.port, AUDIENCE, true);
    server_rig_await(crier->audience->event, "audience");
    side_start(crier, PAIRS_CRIER);
    listener = server_rig_listen(&port);
    bare->audience = audience_start(port, AUDIENCE, false);
    for (int i = 0; i < AUDIENCE; i++) {
        bare->fds[i] = accept(listener, NULL, NULL);
        if (bare->fds[i] < 0)
            server_rig_fail("accept");
    }
    server_rig_await(bare->audience->event, "bare audience");
    close(listener);
    side_start(bare, PAIRS_BARE);
}

static void
scene_close(struct scene *scene)
{
    for (int i = 0; i < PAIRS_SIDES; i++)
        side_stop(&scene->sides[i]);
    server_rig_stop(&scene->server);
    for (int i = 0; i < AUDIENCE; i++)
        close(scene->sides[PAIRS_BARE].fds[i]);
}

static void
bench_open_loop(const char *program)
{
    static const char title[] = "100 broadcasts a second to 1000 clients";
    static struct scene scene;
    struct pairs p50 = {.title = title, .what = "p50", .bare = "bare send() loop", .target = 1.1};
    struct pairs p99 = {.title = title, .what = "p99", .bare = "bare send() loop", .target = 1.5};
    double p50_us[PAIRS_SIDES];
    double p99_us[PAIRS_SIDES];

    scene_open(&scene, program);
    scene_round(&scene, PAIRS_BARE, p50_us, p99_us); /* to warm up */
    while (!pairs_is_enough(&p50) || !pairs_is_enough(&p99)) {
        scene_round(&scene, p50.count % 2 ? PAIRS_CRIER : PAIRS_BARE, p50_us, p99_us);
        pairs_add(&p50, p50_us);
        pairs_add(&p99, p99_us);
    }
    pairs_print(&p50);
    pairs_print(&p99);
    scene_close(&scene);
}

int
main(int argc, char **argv)
{
    static const struct traffic traffics[] = {
        {.payload_bytes = 64, .burst = 1, .bursts = 20},
        {.payload_bytes = PAYLOAD_MAX, .burst = BURST_MAX, .bursts = 5},
    };
    const char *program = server_rig_open(argc, argv, LARGE + 100);

    for (size_t i = 0; i < sizeof(traffics) / sizeof(traffics[0]); i++)
        bench_large(program, &traffics[i]);
    bench_open_loop(program);
    return 0;
}
