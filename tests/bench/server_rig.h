/*
 * server_rig.h: what the benchmarks of the server share: crier and the CPU time of its worker,
 * sockets for a bare program that does the same work, and how the two are compared.
 *
 * Role:     the process that measures.
 * Owns:     a server from start to stop.
 * Errors:   none are returned: what fails ends the program with a sentence.
 *
 * crier and the bare program are measured in turn, round by round, so that a noisy neighbour meets
 * both: the figure that counts is the median of the ratios of neighbouring rounds.
 */
#ifndef CRIER_TESTS_BENCH_SERVER_RIG_H
#define CRIER_TESTS_BENCH_SERVER_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SERVER_RIG_DEADLINE_MS = 20000,
    SERVER_RIG_CHILDREN_MAX = 64,
    SERVER_RIG_FLAGS_MAX = 16,
    SERVER_RIG_ROUNDS_MAX = 64,
};

struct server_rig {
    pid_t pid;
    int console;
    uint16_t port;
    pid_t children[SERVER_RIG_CHILDREN_MAX];
    int child_count;
};

/* CPU time of one unit of work, in microseconds, round by round. */
struct server_rig_rounds {
    int count;
    double bare_us[SERVER_RIG_ROUNDS_MAX];
    double crier_us[SERVER_RIG_ROUNDS_MAX];
};

static inline void __attribute__((noreturn)) server_rig_fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

/* Until the eventfd is written. */
static inline void
server_rig_await(int fd, const char *what)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t count;

    if (poll(&p, 1, SERVER_RIG_DEADLINE_MS) != 1 || read(fd, &count, sizeof(count)) < 0) {
        errno = ETIMEDOUT;
        server_rig_fail(what);
    }
}

static inline void
server_rig_tell(int eventfd)
{
    uint64_t one = 1;

    if (write(eventfd, &one, sizeof(one)) < 0)
        server_rig_fail("eventfd");
}

/* The path of crier, from the arguments or $CRIER; sees to it that there may be so many sockets. */
static inline const char *
server_rig_open(int argc, char **argv, rlim_t descriptors)
{
    const char *program = argc > 1 ? argv[1] : getenv("CRIER");
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    setlinebuf(stdout); /* or a child that fails prints it once more */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (!program || limit.rlim_max < descriptors) {
        fprintf(stderr, "%s: give the server's path, and %llu descriptors (ulimit -n)\n",
                program_invocation_short_name, (unsigned long long)descriptors);
        exit(2);
    }
    return program;
}

/* --- sockets --- */

/* To a port here; with the opening handshake of RFC 6455 section 4.1, or bare. */
static inline int
server_rig_connect(uint16_t port, bool handshake)
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
        server_rig_fail("connect");
    if (!handshake)
        return fd;
    if (send(fd, request, sizeof(request) - 1, 0) != (ssize_t)sizeof(request) - 1)
        server_rig_fail("handshake");
    while (used < 4 || memcmp(answer + used - 4, "\r\n\r\n", 4) != 0) {
        if (used == sizeof(answer) || recv(fd, answer + used, 1, 0) != 1)
            server_rig_fail("answer to the handshake");
        used++;
    }
    return fd;
}

/* Whose connections have the options of crier's. */
static inline int
server_rig_listen(uint16_t *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof(at);
    int one = 1;
    int lowat = 64 * 1024;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &bytes) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat)) != 0)
        server_rig_fail("listen");
    *port = ntohs(at.sin_port);
    return fd;
}

/* --- crier --- */

static inline uint16_t
server_rig_port(FILE *log)
{
    char line[1024];

    while (fgets(line, sizeof(line), log)) {
        const char *url = strstr(line, "ws://127.0.0.1:");
        if (url)
            return (uint16_t)strtoul(url + strlen("ws://127.0.0.1:"), NULL, 10);
    }
    errno = EPROTO;
    server_rig_fail("the server did not say where it listens");
}

static inline void
server_rig_find_children(struct server_rig *server)
{
    char path[64];
    FILE *children;

    server->child_count = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server->pid, server->pid);
    children = fopen(path, "r");
    while (children && server->child_count < SERVER_RIG_CHILDREN_MAX &&
           fscanf(children, "%d", &server->children[server->child_count]) == 1)
        server->child_count++;
    if (server->child_count == 0)
        server_rig_fail("the server has no workers");
    fclose(children);
}

/* `flags`: up to NULL, on top of a port of its own and no welcome. */
static inline void
server_rig_start(struct server_rig *server, const char *program, const char *const *flags)
{
    const char *args[SERVER_RIG_FLAGS_MAX + 5] = {program, "--listen", "127.0.0.1:0",
                                                  "--no-welcome"};
    int in[2];
    int err[2];

    for (int i = 0; i < SERVER_RIG_FLAGS_MAX && flags[i]; i++)
        args[4 + i] = flags[i];
    if (pipe(in) != 0 || pipe(err) != 0)
        server_rig_fail("pipe");
    server->pid = fork();
    if (server->pid == 0) {
        dup2(in[0], 0);
        dup2(err[1], 2);
        close(in[1]);
        execv(program, (char *const *)args);
        _exit(127);
    }
    close(in[0]);
    close(err[1]);
    server->console = in[1];
    server->port = server_rig_port(fdopen(err[0], "r"));
    server_rig_find_children(server);
}

static inline void
server_rig_stop(struct server_rig *server)
{
    kill(server->pid, SIGQUIT);
    close(server->console);
    waitpid(server->pid, NULL, 0);
}

/* --- the load --- */

/* A process that loads a server when it is told to, and says when that is done. */
struct server_rig_load {
    pid_t pid;
    int begin; /* eventfds */
    int done;
};

static inline void
server_rig_load_stop(struct server_rig_load *load)
{
    kill(load->pid, SIGKILL);
    waitpid(load->pid, NULL, 0);
    close(load->begin);
    close(load->done);
}

/* --- comparing --- */

/* User and system time of a process, exact, whether it runs or sleeps. */
static inline uint64_t
server_rig_cpu_ns(pid_t pid)
{
    struct timespec cpu;
    clockid_t clock;

    errno = clock_getcpuclockid(pid, &clock);
    if (errno || clock_gettime(clock, &cpu) != 0)
        server_rig_fail("CPU time");
    return (uint64_t)cpu.tv_sec * 1000000000U + (uint64_t)cpu.tv_nsec;
}

static inline int
server_rig_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static inline void
server_rig_print_side(const char *name, double *us, int count)
{
    qsort(us, (size_t)count, sizeof(us[0]), server_rig_compare);
    printf("  %-28s %6.3f us   (%.3f to %.3f in %d rounds)\n", name, us[count / 2], us[0],
           us[count - 1], count);
}

/* In 95 of 100 runs the true median lies between the value of this rank and that of the same rank
 * from above, whatever the distribution: n / 2 - 1.96 * sqrt(n) / 2, from 1 on, after the binomial
 * distribution with p = 1/2. */
static inline int
server_rig_rank(int n)
{
    int rank = 1;

    while (2 * (rank + 1) < n && (n - 2 * (rank + 1)) * (n - 2 * (rank + 1)) * 100 >= 384 * n)
        rank++;
    return rank;
}

/* Values are in order afterwards. `target`: what the ratio may be, 0 for any. */
static inline void
server_rig_report(struct server_rig_rounds *rounds, const char *bare, double target)
{
    double ratios[SERVER_RIG_ROUNDS_MAX] = {0};
    int n = rounds->count;
    int low = server_rig_rank(n) - 1;
    double ratio;

    for (int i = 0; i < n; i++)
        ratios[i] = rounds->crier_us[i] / rounds->bare_us[i];
    qsort(ratios, (size_t)n, sizeof(ratios[0]), server_rig_compare);
    ratio = ratios[n / 2];
    server_rig_print_side(bare, rounds->bare_us, n);
    server_rig_print_side("crier", rounds->crier_us, n);
    printf("  ratio of the medians         %6.3f\n",
           rounds->crier_us[n / 2] / rounds->bare_us[n / 2]);
    printf("  ratio of neighbouring rounds %6.3f      (95 %%: %.3f to %.3f)", ratio, ratios[low],
           ratios[n - 1 - low]);
    if (target == 0)
        printf("\n");
    else if (ratio <= target)
        printf("  at most %.2f: met\n", target);
    else
        printf("  at most %.2f: MISSED by %.1f %%\n", target, (ratio / target - 1) * 100);
}

#endif
