/*
 * server_rig.h: what the benchmarks of the server share: crier and the CPU time of its worker, and
 * sockets for a bare program that does the same work. pairs.h compares the two.
 *
 * Role:     the process that measures.
 * Owns:     a server from start to stop.
 * Errors:   none are returned: what fails ends the program with a sentence.
 *
 * Both listen on a socket of server_rig_listen: whatever the machine's congestion control is, theirs
 * and that of their clients is `reno`, which sends at once, where others pace by timers, at a cost
 * that depends on how fast the sends come.
 */
#ifndef CRIER_TESTS_BENCH_SERVER_RIG_H
#define CRIER_TESTS_BENCH_SERVER_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SERVER_RIG_DEADLINE_MS = 20000,
    SERVER_RIG_CHILDREN_MAX = 256,
    SERVER_RIG_FLAGS_MAX = 16,
    SERVER_RIG_LISTENER = 3, /* where crier finds it */
};

struct server_rig {
    pid_t pid;
    int console;
    uint16_t port;
    pid_t children[SERVER_RIG_CHILDREN_MAX];
    int child_count;
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

/* Memory that this process shares with those that it starts from here on. */
static inline void *
server_rig_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        server_rig_fail("mmap");
    return memory;
}

static cpu_set_t server_rig_cpus; /* that this program was given */

enum server_rig_half { SERVER_RIG_CLIENTS, SERVER_RIG_SERVERS };

/* Clients have the first CPU, servers of one process the last one; processes that are started from
 * here on follow. Otherwise the placement by the scheduler would be measured. */
static inline void
server_rig_pin(enum server_rig_half half)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &server_rig_cpus))
            continue;
        if (half == SERVER_RIG_SERVERS)
            CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (half == SERVER_RIG_CLIENTS)
            break;
    }
    if (sched_setaffinity(0, sizeof(one), &one) != 0)
        server_rig_fail("sched_setaffinity");
}

/* As before, for a process that is pinned. */
static inline void
server_rig_unpin(pid_t pid)
{
    if (sched_setaffinity(pid, sizeof(server_rig_cpus), &server_rig_cpus) != 0)
        server_rig_fail("sched_setaffinity");
}

/* The path of crier, from the arguments or $CRIER; sees to it that there may be so many sockets. */
static inline const char *
server_rig_open(int argc, char **argv, rlim_t descriptors)
{
    const char *program = argc > 1 ? argv[1] : getenv("CRIER");
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    if (sched_getaffinity(0, sizeof(server_rig_cpus), &server_rig_cpus) != 0)
        server_rig_fail("sched_getaffinity");
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

/* As listener and connection inherit it, so that both ends and both sides have the same. */
static inline void
server_rig_set_congestion(int fd)
{
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno")) != 0)
        server_rig_fail("congestion control");
}

/* A client's socket, connected to a port here. */
static inline int
server_rig_socket(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        server_rig_fail("socket");
    server_rig_set_congestion(fd);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        server_rig_fail("connect");
    return fd;
}

/* To a port here; with the opening handshake of RFC 6455 section 4.1, or bare. */
static inline int
server_rig_connect(uint16_t port, bool handshake)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    char answer[512] = {0};
    size_t used = 0;
    int fd = server_rig_socket(port);

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
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &bytes) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat)) != 0)
        server_rig_fail("listen");
    server_rig_set_congestion(fd);
    *port = ntohs(at.sin_port);
    return fd;
}

/* --- crier --- */

/* Until the server has said where it listens. */
static inline void
server_rig_await_start(FILE *log)
{
    char line[1024];

    while (fgets(line, sizeof(line), log)) {
        if (strstr(line, "ws://127.0.0.1:"))
            return;
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
    char address[16];
    const char *args[SERVER_RIG_FLAGS_MAX + 5] = {program, "--listen", address, "--no-welcome"};
    int listener = server_rig_listen(&server->port);
    int in[2];
    int err[2];

    snprintf(address, sizeof(address), "fd:%d", SERVER_RIG_LISTENER);
    for (int i = 0; i < SERVER_RIG_FLAGS_MAX && flags[i]; i++)
        args[4 + i] = flags[i];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0)
        server_rig_fail("pipe");
    server->pid = fork();
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* server_rig_fail leaves no process behind */
        dup2(in[0], 0);
        dup2(err[1], 2);
        dup2(listener, SERVER_RIG_LISTENER);
        fcntl(SERVER_RIG_LISTENER, F_SETFD, 0); /* it may have been there already */
        execv(program, (char *const *)args);
        _exit(127);
    }
    close(in[0]);
    close(err[1]);
    close(listener);
    server->console = in[1];
    server_rig_await_start(fdopen(err[0], "r"));
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

/* --- what it costs --- */

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

/* Of the master and all workers. */
static inline uint64_t
server_rig_tree_cpu_ns(const struct server_rig *server)
{
    uint64_t sum = server_rig_cpu_ns(server->pid);

    for (int i = 0; i < server->child_count; i++)
        sum += server_rig_cpu_ns(server->children[i]);
    return sum;
}

#endif
