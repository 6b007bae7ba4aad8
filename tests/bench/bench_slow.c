/*
 * bench_slow.c: what stalled clients cost the clients that read.
 *
 *   latency   from writing a line to the console until it has arrived, the median over 100 reading
 *             clients and all lines, beside 5,000 that never read (--slow skip) and without them,
 *             in turn. Lines of 10 KiB, 100 a second, so that the ring goes round every four
 *             seconds and stalled clients jump twice in that time.
 *
 * The readers are a process of their own. Everything stays on 127.0.0.1.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

#include "shm/clock.h"
#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    READERS = 100,
    STANDING = 5000,
    LINES = 100, /* of a round */
    LINE_BYTES = 10 * 1024,
    FRAME_BYTES = LINE_BYTES + 4, /* RFC 6455 section 5.2 */
    PERIOD_NS = 10 * 1000 * 1000,
    FILLING = 2000, /* lines after which every socket that is not read is full */
};

/* When each reader got the line that is under way, in memory shared with the readers' process. */
struct arrivals {
    int event; /* written when all have it */
    uint64_t ns[READERS];
};

static void
readers_read(struct arrivals *arrivals, const int *fds, int epoll)
{
    static char buffer[65536];
    static size_t got[READERS];
    struct epoll_event events[READERS];
    int arrived = 0;

    for (;;) {
        int count = epoll_wait(epoll, events, READERS, -1);

        for (int i = 0; i < count; i++) {
            uint32_t reader = events[i].data.u32;
            ssize_t bytes = recv(fds[reader], buffer, sizeof(buffer), MSG_DONTWAIT);
            if (bytes <= 0)
                _exit(0);
            got[reader] += (size_t)bytes;
            if (got[reader] < FRAME_BYTES)
                continue;
            got[reader] -= FRAME_BYTES;
            arrivals->ns[reader] = clock_ns(CLOCK_MONOTONIC);
            arrived++;
        }
        if (arrived == READERS) {
            arrived = 0;
            server_rig_tell(arrivals->event);
        }
    }
}

static pid_t
readers_start(struct arrivals *arrivals, uint16_t port)
{
    static int fds[READERS];
    pid_t pid = fork();

    if (pid == 0) {
        int epoll = epoll_create1(0);

        for (uint32_t i = 0; i < READERS; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
            fds[i] = server_rig_connect(port, true);
            epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        }
        server_rig_tell(arrivals->event);
        readers_read(arrivals, fds, epoll);
    }
    server_rig_await(arrivals->event, "readers");
    return pid;
}

/* --- a server with its clients --- */

struct scene {
    struct server_rig server;
    struct arrivals *arrivals;
    pid_t readers;
    int *standing;
    int standing_count;
};

/* Returns when the line was written; all readers have it by then. */
static uint64_t
scene_broadcast(struct scene *scene)
{
    static char line[LINE_BYTES + 1];
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);

    memset(line, 'x', LINE_BYTES);
    line[LINE_BYTES] = '\n';
    if (write(scene->server.console, line, sizeof(line)) != (ssize_t)sizeof(line))
        server_rig_fail("console");
    server_rig_await(scene->arrivals->event, "delivery");
    return begin_ns;
}

static void
scene_open(struct scene *scene, const char *program, int standing_count)
{
    static const char *const flags[] = {"--workers", "2",      "--ping", "0", "--slow",
                                        "skip",      "--ring", "4M",     NULL};

    scene->arrivals = mmap(NULL, sizeof(*scene->arrivals), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    scene->standing = calloc((size_t)standing_count + 1, sizeof(int));
    if (scene->arrivals == MAP_FAILED || !scene->standing)
        server_rig_fail("memory");
    scene->arrivals->event = eventfd(0, 0);
    scene->standing_count = standing_count;
    server_rig_start(&scene->server, program, flags);
    for (int i = 0; i < standing_count; i++)
        scene->standing[i] = server_rig_connect(scene->server.port, true);
    scene->readers = readers_start(scene->arrivals, scene->server.port);
    for (int i = 0; i < FILLING; i++)
        scene_broadcast(scene);
}

static void
scene_close(struct scene *scene)
{
    server_rig_stop(&scene->server);
    kill(scene->readers, SIGKILL);
    waitpid(scene->readers, NULL, 0);
    for (int i = 0; i < scene->standing_count; i++)
        close(scene->standing[i]);
    close(scene->arrivals->event);
    munmap(scene->arrivals, sizeof(*scene->arrivals));
    free(scene->standing);
}

/* The median over all lines and readers of a round. */
static double
scene_measure(struct scene *scene)
{
    static double us[LINES * READERS];
    static const struct itimerspec period = {.it_value.tv_nsec = PERIOD_NS,
                                             .it_interval.tv_nsec = PERIOD_NS};
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);

    timerfd_settime(timer, 0, &period, NULL);
    for (int line = 0; line < LINES; line++) {
        uint64_t begin_ns;

        server_rig_await(timer, "time to pass");
        begin_ns = scene_broadcast(scene);
        for (int i = 0; i < READERS; i++)
            us[line * READERS + i] = (double)(scene->arrivals->ns[i] - begin_ns) / 1e3;
    }
    close(timer);
    qsort(us, LINES * READERS, sizeof(us[0]), pairs_order);
    return us[LINES * READERS / 2];
}

/* Of crier on both sides: alone, and beside clients that stand still. */
static void
scenes_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    struct scene *scenes = context;

    us[first] = scene_measure(&scenes[first]);
    us[!first] = scene_measure(&scenes[!first]);
}

int
main(int argc, char **argv)
{
    struct pairs pairs = {.title = "100 reading clients beside 5,000 that stand still",
                          .what = "median latency",
                          .bare = "same clients alone",
                          .target = 1.2};
    const char *program = server_rig_open(argc, argv, STANDING + 100);
    struct scene scenes[PAIRS_SIDES];
    double warm_up[PAIRS_SIDES];

    scene_open(&scenes[PAIRS_BARE], program, 0);
    scene_open(&scenes[PAIRS_CRIER], program, STANDING);
    scenes_round(scenes, PAIRS_BARE, warm_up);
    pairs_compare(&pairs, scenes_round, scenes);
    scene_close(&scenes[PAIRS_CRIER]);
    scene_close(&scenes[PAIRS_BARE]);
    return 0;
}
