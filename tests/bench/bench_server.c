/*
 * bench_server.c: what a delivery and an idle connection cost, against a bare loop in the same run.
 *
 *   delivery   CPU time of the worker per client and broadcast, 64 bytes to 1,000 clients, one
 *   broadcast at
 *              a time; beside it a process that does nothing but send() the same bytes to as many
 *              sockets. Rounds alternate; figures are medians, to be compared with each other only.
 *   memory     proportional set size of all processes with 10,000 idle connections less that
 *              with none, divided.
 *
 * The audience is a process of its own that reads and counts. Everything stays on 127.0.0.1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    AUDIENCE = 1000,
    IDLE = 10000,
    ROUNDS = 15,
    MESSAGES = 40, /* in a round, one after the other */
    PAYLOAD = 64,
    FRAME = PAYLOAD + 2,
    DEADLINE_MS = 20000,
    CHILDREN_MAX = 64,
};

/* What the audience has received, in memory that it shares with this process. */
struct audience {
    pid_t pid;
    int event; /* written when `received` has reached `target` */
    uint64_t received;
    uint64_t target;
    uint32_t connected;
};

static void
fail(const char *what)
{
    fprintf(stderr, "bench_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
await(int fd, const char *what)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t count;

    if (poll(&p, 1, DEADLINE_MS) != 1 || read(fd, &count, sizeof(count)) < 0) {
        errno = ETIMEDOUT;
        fail(what);
    }
}

/* --- the audience --- */

static int
audience_connect(uint16_t port, bool handshake)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[512] = {0};
    size_t used = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        fail("connect");
    if (!handshake)
        return fd;
    if (send(fd, request, sizeof(request) - 1, 0) != (ssize_t)sizeof(request) - 1)
        fail("handshake");
    while (used < 4 || memcmp(answer + used - 4, "\r\n\r\n", 4) != 0) {
        if (used == sizeof(answer) || recv(fd, answer + used, 1, 0) != 1)
            fail("answer to the handshake");
        used++;
    }
    return fd;
}

static void
audience_read(struct audience *audience, int epoll)
{
    static char buffer[65536];
    struct epoll_event events[256];

    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        uint64_t one = 1;

        for (int i = 0; i < count; i++) {
            ssize_t bytes = recv(events[i].data.fd, buffer, sizeof(buffer), MSG_DONTWAIT);
            if (bytes <= 0)
                _exit(0);
            audience->received += (uint64_t)bytes;
        }
        if (audience->target && audience->received >= audience->target) {
            audience->target = 0;
            if (write(audience->event, &one, sizeof(one)) < 0)
                _exit(1);
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
        fail("mmap");
    audience->event = eventfd(0, 0);
    pid = fork();
    if (pid == 0) {
        int epoll = epoll_create1(0);
        uint64_t one = 1;

        for (uint32_t i = 0; i < count; i++) {
            int fd = audience_connect(port, handshake);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
        if (write(audience->event, &one, sizeof(one)) < 0)
            _exit(1);
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

/* --- the server --- */

struct server {
    pid_t pid;
    int console;
    uint16_t port;
    pid_t children[CHILDREN_MAX];
    int child_count;
};

static uint16_t
server_port(FILE *log)
{
    char line[1024];

    while (fgets(line, sizeof(line), log)) {
        const char *url = strstr(line, "ws://127.0.0.1:");
        if (url)
            return (uint16_t)strtoul(url + strlen("ws://127.0.0.1:"), NULL, 10);
    }
    errno = EPROTO;
    fail("the server did not say where it listens");
    return 0;
}

static void
server_start(struct server *server, const char *program, const char *workers)
{
    char path[64];
    int in[2];
    int err[2];
    FILE *children;

    if (pipe(in) != 0 || pipe(err) != 0)
        fail("pipe");
    server->pid = fork();
    if (server->pid == 0) {
        dup2(in[0], 0);
        dup2(err[1], 2);
        close(in[1]);
        execl(program, program, "--listen", "127.0.0.1:0", "--no-welcome", "--ping", "0",
              "--workers", workers, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(err[1]);
    server->console = in[1];
    server->port = server_port(fdopen(err[0], "r"));
    server->child_count = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server->pid, server->pid);
    children = fopen(path, "r");
    while (children && server->child_count < CHILDREN_MAX &&
           fscanf(children, "%d", &server->children[server->child_count]) == 1)
        server->child_count++;
    if (server->child_count == 0)
        fail("the server has no workers");
    fclose(children);
}

static void
server_stop(struct server *server)
{
    kill(server->pid, SIGQUIT);
    close(server->console);
    waitpid(server->pid, NULL, 0);
}

/* --- what is measured --- */

static uint64_t
cpu_ns(pid_t pid)
{
    char path[64];
    unsigned long long ns = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    file = fopen(path, "r");
    if (!file || fscanf(file, "%llu", &ns) != 1)
        fail(path);
    fclose(file);
    return ns;
}

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
        fail(path);
    while (fgets(line, sizeof(line), file) && sscanf(line, "Pss: %llu", &kib) != 1)
        ;
    fclose(file);
    return kib;
}

static uint64_t
server_pss_kib(const struct server *server)
{
    uint64_t sum = pss_kib(server->pid);

    for (int i = 0; i < server->child_count; i++)
        sum += pss_kib(server->children[i]);
    return sum;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void
report(const char *name, double values[ROUNDS])
{
    qsort(values, ROUNDS, sizeof(values[0]), compare);
    printf("  %-28s %6.2f us   (%.2f to %.2f in %d rounds)\n", name, values[ROUNDS / 2], values[0],
           values[ROUNDS - 1], ROUNDS);
}

/* A process that sends what it is told to, to each of its sockets. */
static double
bare_round(const int *fds, struct audience *audience)
{
    static const char frame[FRAME] = "\x81\x40";
    struct timespec begin;
    struct timespec end;
    double us = 0;

    for (int m = 0; m < MESSAGES; m++) {
        audience_expect(audience, (uint64_t)AUDIENCE * FRAME);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
        for (int i = 0; i < AUDIENCE; i++) {
            if (send(fds[i], frame, FRAME, MSG_NOSIGNAL | MSG_DONTWAIT) != FRAME)
                fail("bare send");
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        us +=
            (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
        await(audience->event, "bare delivery");
    }
    return us / MESSAGES / AUDIENCE;
}

static double
crier_round(const struct server *server, struct audience *audience)
{
    char line[PAYLOAD + 1];
    uint64_t before = cpu_ns(server->children[0]);

    memset(line, 'x', PAYLOAD);
    line[PAYLOAD] = '\n';
    for (int m = 0; m < MESSAGES; m++) {
        audience_expect(audience, (uint64_t)AUDIENCE * FRAME);
        if (write(server->console, line, sizeof(line)) != (ssize_t)sizeof(line))
            fail("console");
        await(audience->event, "delivery");
    }
    return (double)(cpu_ns(server->children[0]) - before) / 1e3 / MESSAGES / AUDIENCE;
}

static struct audience *
bare_start(int fds[AUDIENCE])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof(at);
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct audience *audience;

    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &bytes) != 0)
        fail("listen");
    setsockopt(listener, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
    audience = audience_start(ntohs(at.sin_port), AUDIENCE, false);
    for (int i = 0; i < AUDIENCE; i++) {
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0)
            fail("accept");
    }
    await(audience->event, "bare audience");
    close(listener);
    return audience;
}

static void
bench_delivery(const char *program)
{
    static int fds[AUDIENCE];
    double bare[ROUNDS];
    double crier[ROUNDS];
    struct server server;
    struct audience *bare_audience = bare_start(fds);
    struct audience *audience;

    server_start(&server, program, "1");
    audience = audience_start(server.port, AUDIENCE, true);
    await(audience->event, "audience");
    for (int r = -1; r < ROUNDS; r++) { /* one to warm up */
        bare[r < 0 ? 0 : r] = bare_round(fds, bare_audience);
        crier[r < 0 ? 0 : r] = crier_round(&server, audience);
    }
    printf("delivery of %d bytes to %d clients, one broadcast at a time, CPU per delivery:\n",
           PAYLOAD, AUDIENCE);
    report("bare send() loop", bare);
    report("crier, one worker", crier);
    printf("  ratio of the medians         %6.3f\n", crier[ROUNDS / 2] / bare[ROUNDS / 2]);
    audience_stop(audience);
    audience_stop(bare_audience);
    server_stop(&server);
    for (int i = 0; i < AUDIENCE; i++)
        close(fds[i]);
}

static void
bench_memory(const char *program)
{
    struct server server;
    struct audience *audience;
    uint64_t before;
    uint64_t after;

    server_start(&server, program, "2");
    before = server_pss_kib(&server);
    audience = audience_start(server.port, IDLE, true);
    await(audience->event, "audience");
    after = server_pss_kib(&server);
    printf("memory of %d idle connections, PSS of all processes:\n", IDLE);
    printf("  %llu KiB without, %llu KiB with: %.0f bytes per connection\n",
           (unsigned long long)before, (unsigned long long)after,
           (double)(after - before) * 1024 / IDLE);
    audience_stop(audience);
    server_stop(&server);
}

int
main(int argc, char **argv)
{
    const char *program = argc > 1 ? argv[1] : getenv("CRIER");
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (!program || limit.rlim_max < IDLE + 100) {
        fprintf(stderr, "bench_server: give the server's path, and %d descriptors (ulimit -n)\n",
                IDLE + 100);
        return 2;
    }
    bench_delivery(program);
    bench_memory(program);
    return 0;
}
