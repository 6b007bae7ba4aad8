/*
 * bench_scale.c: how many idle connections crier holds on this machine, what each costs in memory,
 * and how long one broadcast to all of them takes.
 *
 *   bench_scale [PROGRAM [CONNECTIONS]]       100,000 if not said
 *
 * Clients and workers are as many processes as a limit of 20,000 descriptors for each asks for. A
 * client process has source addresses of its own, 127.0.0.2 and up: from one address there are no
 * more connections to one port than it has ports (ip_local_port_range). Nothing of the machine is
 * changed; the program says what stopped it, and stops by itself before memory is used up.
 */
#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "tests/bench/memory.h"
#include "tests/bench/server_rig.h"

enum {
    CONNECTIONS = 100000,
    PROCESS_CONNECTIONS = 19000, /* of a client process, of a worker; fewer if the limit is lower */
    PROCESS_OWN_FDS = 400,       /* with those of a worker to wake the others */
    WORKERS_MIN = 6,
    PROCESSES_MAX = 254,
    ADDRESS_CONNECTIONS = 10000, /* with half of the ports used, looking for one takes long */
    PROCESS_ADDRESSES = 2,
    OPENING_ALL = 3000, /* on their way at once: they fit into the listener's backlog */
    OPENING_EACH = 64,
    BROADCASTS = 5,
    BROADCAST_MOST_MS = 60000,
    PAYLOAD_BYTES = 64,
    FRAME_BYTES = PAYLOAD_BYTES + 2, /* RFC 6455 section 5.2 */
    EVENTS = 256,
    LOOK_MS = 100,
    SILENCE_LOOKS = 100, /* without a new connection: the server does not answer */
    MEMORY_FLOOR_KIB = 3 << 20,
};

_Static_assert(PROCESS_CONNECTIONS <= PROCESS_ADDRESSES * ADDRESS_CONNECTIONS, "addresses");

/* What stops a client process. */
struct stop {
    int error;
    const char *where;
};

/* What all client processes and this one share. */
struct crowd {
    uint64_t wanted;
    uint64_t reached;  /* handshakes that were answered with 101 */
    uint64_t received; /* frames of the broadcast under way, by all clients together */
    uint64_t half_ns;  /* when half of those reached had it, and all */
    uint64_t all_ns;
    bool halt; /* no more connections */
    int begin; /* eventfds */
    int delivered;
    int process_count;
    pid_t pids[PROCESSES_MAX];
    struct stop stops[PROCESSES_MAX];
};

/* Returns what the sum was before. */
static uint64_t
crowd_add(uint64_t *sum, uint64_t n)
{
    uint64_t before;

    do {
        before = atomic_load_relaxed(sum);
    } while (!atomic_cas_u64(sum, before, before + n));
    return before;
}

/* --- a client process --- */

struct client {
    int fd;
    uint16_t got; /* bytes of the frame under way */
    bool is_open;
};

struct process {
    struct crowd *crowd;
    struct stop *stop;
    uint16_t port;
    uint32_t address; /* the first of its source addresses, host order */
    uint32_t wanted;
    uint32_t opening_most;
    uint32_t begun;
    uint32_t opened;
    int epoll;
    struct client clients[PROCESS_CONNECTIONS];
};

static int
process_stop(struct process *process, const char *where)
{
    process->stop->error = errno;
    process->stop->where = where;
    process->wanted = process->begun;
    return -1;
}

/* The options of a connection that costs no port until it is connected (ip(7)), does not wait for
 * ever, and leaves nothing behind when the process ends. */
static int
process_connect(struct process *process, int fd)
{
    static const struct linger reset = {.l_onoff = 1};
    static const struct timeval patience = {.tv_sec = 5};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(process->port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in from = {
        .sin_family = AF_INET,
        .sin_addr = {htonl(process->address + process->begun / ADDRESS_CONNECTIONS)}};
    int one = 1;

    server_rig_set_congestion(fd);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
        bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0)
        return -1;
    return connect(fd, (struct sockaddr *)&to, sizeof(to));
}

static int
process_open_one(struct process *process)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = process->begun};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return process_stop(process, "socket");
    if (process_connect(process, fd) != 0) {
        (void)process_stop(process, "connect");
        close(fd);
        return -1;
    }
    if (send(fd, request, sizeof(request) - 1, 0) != (ssize_t)sizeof(request) - 1)
        return process_stop(process, "send");
    if (epoll_ctl(process->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        return process_stop(process, "epoll_ctl");
    process->clients[process->begun++].fd = fd;
    return 0;
}

/* Returns how many frames are complete with what has come. */
static uint32_t
process_read(struct process *process, struct client *client)
{
    char got[1024];
    ssize_t bytes = recv(client->fd, got, sizeof(got), MSG_DONTWAIT);

    if (bytes <= 0) { /* a client that is lost is missed by the broadcast */
        epoll_ctl(process->epoll, EPOLL_CTL_DEL, client->fd, NULL);
        return 0;
    }
    if (!client->is_open) {
        if (bytes < 12 || memcmp(got, "HTTP/1.1 101", 12) != 0) {
            errno = EPROTO;
            (void)process_stop(process, "handshake");
            return 0;
        }
        client->is_open = true;
        process->opened++;
        (void)crowd_add(&process->crowd->reached, 1);
        return 0;
    }
    client->got = (uint16_t)(client->got + bytes);
    if (client->got < FRAME_BYTES)
        return 0;
    client->got = (uint16_t)(client->got - FRAME_BYTES);
    return 1;
}

/* The process that counts the last one, or the one in the middle, notes when. */
static void
process_count(struct crowd *crowd, uint32_t frames)
{
    uint64_t before = crowd_add(&crowd->received, frames);
    uint64_t all = atomic_load_relaxed(&crowd->reached);

    if (before < all / 2 && before + frames >= all / 2)
        crowd->half_ns = clock_ns(CLOCK_MONOTONIC);
    if (before < all && before + frames >= all) {
        crowd->all_ns = clock_ns(CLOCK_MONOTONIC);
        server_rig_tell(crowd->delivered);
    }
}

static void __attribute__((noreturn)) process_run(struct process *process)
{
    struct epoll_event events[EVENTS];
    uint64_t begun;

    if (read(process->crowd->begin, &begun, sizeof(begun)) != sizeof(begun))
        _exit(1);
    for (;;) {
        uint32_t frames = 0;
        int count;

        while (!atomic_load_relaxed(&process->crowd->halt) && process->begun < process->wanted &&
               process->begun - process->opened < process->opening_most &&
               process_open_one(process) == 0)
            ;
        count = epoll_wait(process->epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++)
            frames += process_read(process, &process->clients[events[i].data.u32]);
        if (frames)
            process_count(process->crowd, frames);
    }
}

/* --- the crowd --- */

/* Process `i` of them; not longer than this one. */
static void __attribute__((noreturn)) crowd_join(struct crowd *crowd, int i, uint16_t port)
{
    static struct process process;
    uint64_t count = (uint64_t)crowd->process_count;
    uint64_t place = (uint64_t)i;
    uint64_t opening = OPENING_ALL / count;

    process.crowd = crowd;
    process.stop = &crowd->stops[i];
    process.port = port;
    process.address = INADDR_LOOPBACK + 1 + (uint32_t)i * PROCESS_ADDRESSES;
    process.wanted =
        (uint32_t)(crowd->wanted * (place + 1) / count - crowd->wanted * place / count);
    process.opening_most = (uint32_t)(opening < OPENING_EACH ? opening : OPENING_EACH);
    process.epoll = epoll_create1(EPOLL_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    process_run(&process);
}

static struct crowd *
crowd_start(uint64_t wanted, uint32_t each, uint16_t port)
{
    struct crowd *crowd = server_rig_shared(sizeof(*crowd));

    crowd->wanted = wanted;
    crowd->process_count = (int)((wanted + each - 1) / each);
    crowd->begin = eventfd(0, EFD_SEMAPHORE);
    crowd->delivered = eventfd(0, 0);
    for (int i = 0; i < crowd->process_count; i++) {
        pid_t pid = fork();

        if (pid == 0)
            crowd_join(crowd, i, port);
        if (pid < 0)
            server_rig_fail("fork");
        crowd->pids[i] = pid;
    }
    return crowd;
}

static void
crowd_stop(struct crowd *crowd)
{
    for (int i = 0; i < crowd->process_count; i++)
        kill(crowd->pids[i], SIGKILL);
    for (int i = 0; i < crowd->process_count; i++)
        waitpid(crowd->pids[i], NULL, 0);
    close(crowd->begin);
    close(crowd->delivered);
    munmap(crowd, sizeof(*crowd));
}

static bool
crowd_is_stopped(const struct crowd *crowd)
{
    for (int i = 0; i < crowd->process_count; i++) {
        if (crowd->stops[i].error)
            return true;
    }
    return false;
}

/* Why no more connections should be made, or NULL. */
static const char *
crowd_limit(const struct crowd *crowd, int silent_looks)
{
    if (crowd_is_stopped(crowd))
        return "an error";
    if (silent_looks == SILENCE_LOOKS)
        return "no new connection for 10 s";
    if (memory_line_kib("/proc/meminfo", "MemAvailable:") < MEMORY_FLOOR_KIB)
        return "less than 3 GiB of memory are available";
    if (memory_tcp_pages() > memory_tcp_limit_pages() / 5 * 4)
        return "TCP's buffers are near their limit (net.ipv4.tcp_mem)";
    return NULL;
}

/* Returns how long it took to the last connection that was made. */
static uint64_t
crowd_connect(struct crowd *crowd, const char **limit)
{
    struct pollfd never = {.fd = -1};
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    uint64_t last_ns = begin_ns;
    uint64_t begin = (uint64_t)crowd->process_count;
    uint64_t before = 0;
    int silent_looks = 0;

    if (write(crowd->begin, &begin, sizeof(begin)) < 0)
        server_rig_fail("eventfd");
    while (before < crowd->wanted && silent_looks < SILENCE_LOOKS) {
        uint64_t reached;

        poll(&never, 0, LOOK_MS);
        reached = atomic_load_relaxed(&crowd->reached);
        silent_looks = reached > before ? 0 : silent_looks + 1;
        if (reached > before)
            last_ns = clock_ns(CLOCK_MONOTONIC);
        before = reached;
        if (!*limit && before < crowd->wanted)
            *limit = crowd_limit(crowd, silent_looks);
        if (*limit && !crowd->halt) {
            atomic_store_relaxed(&crowd->halt, true);
            silent_looks = silent_looks < SILENCE_LOOKS / 2 ? SILENCE_LOOKS / 2 : silent_looks;
        }
    }
    return last_ns - begin_ns;
}

/* What an error of a client process says about the machine. */
static const char *
stop_meaning(int error)
{
    switch (error) {
    case EMFILE: return "descriptors of a process, ulimit -Hn";
    case ENFILE: return "descriptors of the system, fs.file-max";
    case EADDRNOTAVAIL: return "source ports, net.ipv4.ip_local_port_range";
    case ENOBUFS:
    case ENOMEM: return "memory of the kernel";
    case ENOSPC: return "fs.epoll.max_user_watches";
    case EINPROGRESS:
    case EAGAIN:
    case ETIMEDOUT: return "no answer: a full backlog, or nf_conntrack_max";
    default: return "by the server";
    }
}

static void
crowd_print_stops(const struct crowd *crowd, const char *limit)
{
    printf("  stopped by: %s\n", limit ? limit : "nothing");
    for (int i = 0; i < crowd->process_count; i++) {
        const struct stop *stop = &crowd->stops[i];
        if (stop->error) {
            printf("  first error: %s: %s (%s)\n", stop->where, strerror(stop->error),
                   stop_meaning(stop->error));
            return;
        }
    }
}

/* --- what is measured --- */

struct broadcast_times {
    double half_ms;
    double all_ms;
};

static struct broadcast_times
broadcast_run(struct crowd *crowd, const struct server_rig *server)
{
    struct pollfd delivered = {.fd = crowd->delivered, .events = POLLIN};
    char line[PAYLOAD_BYTES + 1];
    uint64_t begin_ns;
    uint64_t told;

    memset(line, 'x', PAYLOAD_BYTES);
    line[PAYLOAD_BYTES] = '\n';
    crowd->received = 0;
    begin_ns = clock_ns(CLOCK_MONOTONIC);
    if (write(server->console, line, sizeof(line)) != (ssize_t)sizeof(line))
        server_rig_fail("console");
    if (poll(&delivered, 1, BROADCAST_MOST_MS) != 1 ||
        read(crowd->delivered, &told, sizeof(told)) != sizeof(told)) {
        printf("  broadcast: %" PRIu64 " of %" PRIu64 " have it after %d s\n", crowd->received,
               crowd->reached, BROADCAST_MOST_MS / 1000);
        exit(1); /* and all processes with this one */
    }
    return (struct broadcast_times){.half_ms = (double)(crowd->half_ns - begin_ns) / 1e6,
                                    .all_ms = (double)(crowd->all_ns - begin_ns) / 1e6};
}

static int
broadcast_order(const void *a, const void *b)
{
    double x = ((const struct broadcast_times *)a)->all_ms;
    double y = ((const struct broadcast_times *)b)->all_ms;

    return (x > y) - (x < y);
}

static void
broadcasts_run(struct crowd *crowd, const struct server_rig *server)
{
    struct broadcast_times times[BROADCASTS];

    times[0] = broadcast_run(crowd, server);
    printf("  first broadcast: half have it after %.0f ms, all after %.0f ms\n", times[0].half_ms,
           times[0].all_ms);
    for (int i = 0; i < BROADCASTS; i++)
        times[i] = broadcast_run(crowd, server);
    qsort(times, BROADCASTS, sizeof(times[0]), broadcast_order);
    printf("  the next %d: half after %.0f ms, all after %.0f ms (%.0f to %.0f)\n", BROADCASTS,
           times[BROADCASTS / 2].half_ms, times[BROADCASTS / 2].all_ms, times[0].all_ms,
           times[BROADCASTS - 1].all_ms);
}

struct memory_state {
    double server_bytes; /* PSS */
    double clients_bytes;
    double available_bytes;
    double slab_bytes;
    double tcp_bytes;
};

static struct memory_state
memory_look(const struct server_rig *server, const struct crowd *crowd)
{
    struct memory_state state = {
        .available_bytes = 1024.0 * (double)memory_line_kib("/proc/meminfo", "MemAvailable:"),
        .slab_bytes = 1024.0 * (double)memory_line_kib("/proc/meminfo", "Slab:"),
        .tcp_bytes = (double)memory_tcp_pages() * (double)sysconf(_SC_PAGESIZE),
        .server_bytes = 1024.0 * (double)memory_server_kib(server),
    };

    for (int i = 0; i < crowd->process_count; i++)
        state.clients_bytes += 1024.0 * (double)memory_pss_kib(crowd->pids[i]);
    return state;
}

static void
memory_print(const struct memory_state *before, const struct memory_state *after, double count)
{
    double server = after->server_bytes - before->server_bytes;
    double clients = after->clients_bytes - before->clients_bytes;
    double slab = after->slab_bytes - before->slab_bytes;
    double tcp = after->tcp_bytes - before->tcp_bytes;
    double all = before->available_bytes - after->available_bytes;

    printf("  user memory of the server: %.0f bytes per connection (PSS of all processes)\n",
           server / count);
    printf("  kernel memory, both ends: %.0f bytes per connection (slab %.0f, TCP's buffers %.0f); "
           "available to others are %.0f less\n",
           (slab + tcp) / count, slab / count, tcp / count, (all - server - clients) / count);
}

/* As many connections as fit into a process with this machine's limit. */
static uint32_t
connections_each(void)
{
    struct rlimit limit;
    uint64_t most = PROCESS_CONNECTIONS;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < most + PROCESS_OWN_FDS)
        most = limit.rlim_cur - PROCESS_OWN_FDS;
    return (uint32_t)most;
}

static void
bench_scale(const char *program, uint64_t wanted, uint32_t each)
{
    uint64_t processes = (wanted + each - 1) / each;
    char workers[32];
    const char *const flags[] = {"--workers", workers,  "--ping", "0", "--handshake-timeout",
                                 "60",        "--ring", "4M",     NULL};
    struct memory_state before, after;
    struct server_rig server;
    const char *limit = NULL;
    struct crowd *crowd;
    double seconds;

    snprintf(workers, sizeof(workers), "%" PRIu64,
             processes > WORKERS_MIN ? processes : WORKERS_MIN);
    server_rig_start(&server, program, flags);
    crowd = crowd_start(wanted, each, server.port);
    before = memory_look(&server, crowd);
    seconds = (double)crowd_connect(crowd, &limit) / 1e9;
    after = memory_look(&server, crowd);
    printf("idle connections, %s workers, %d client processes: %" PRIu64 " of %" PRIu64
           " wanted, %.0f a second\n",
           workers, crowd->process_count, crowd->reached, wanted, (double)crowd->reached / seconds);
    crowd_print_stops(crowd, limit);
    memory_print(&before, &after, (double)crowd->reached);
    broadcasts_run(crowd, &server);
    crowd_stop(crowd);
    server_rig_stop(&server);
}

int
main(int argc, char **argv)
{
    const char *program = server_rig_open(argc, argv, 2 * PROCESS_OWN_FDS);
    uint64_t wanted = argc > 2 ? strtoull(argv[2], NULL, 10) : CONNECTIONS;
    uint32_t each = connections_each();

    if (wanted == 0 || wanted > (uint64_t)each * PROCESSES_MAX) {
        fprintf(stderr, "bench_scale: 1 to %" PRIu64 " connections\n",
                (uint64_t)each * PROCESSES_MAX);
        return 2;
    }
    bench_scale(program, wanted, each);
    return 0;
}
