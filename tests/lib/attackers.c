/*
 * attackers: many connections that each follow one script, for tests of what some clients cost others.
 *
 *   attackers --connect HOST:PORT --clients N [--hello FILE] [--body FILE] [--replies N] [--rounds N]
 *             [--again] [--drip MS] [--pause MS] [--at-once N] [--cpu-of PID] [--timeout SECS]
 *
 * Each connection sends the bytes of --hello, one at a time every --drip ms if that is given, and
 * reads the head of the answer. After the order `go` it sends the bytes of --body, waits for --replies
 * messages (0: it only reads what comes), pauses, and does so --rounds times (0: without end). Then, or
 * without a --body, it resets the connection, and with --again begins anew. "ready N" is printed when the first N
 * connections have their answers, or have come and gone. Orders on standard input, each answered:
 *
 *   go, hold  -> ok; hold: a round that has begun is ended, and no other begins
 *   clear     -> ok, and what follows is counted from zero
 *   report    -> report CONNECTIONS ROUNDS REFUSED CUT OPEN P50 P99 MAX P50 P99 MAX, the last six in
 *                microseconds from the first byte of a body to the last reply: of time, and of CPU time
 *                that the process --cpu-of has used meanwhile
 *   reset     -> ok; all connections are reset, and none begins anew
 *
 * REFUSED counts answers other than 101, and handshakes that the server ended; CUT connections that it
 * ended later. The program ends with its standard input. It connects to this machine only.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/load.h"

enum {
    MAX_CLIENTS = 100000,
    SAMPLES = 1 << 20,
    EVENTS = 256,
    STATUS_AT = 9, /* in "HTTP/1.1 101" */
    STATUS_END = 12,
};

enum phase {
    PHASE_NEW,        /* to be connected */
    PHASE_CONNECTING, /* until the socket is writable */
    PHASE_HELLO,      /* until the head of the answer is here */
    PHASE_HELD,       /* until `go`, or its pause is over */
    PHASE_BODY,       /* until the replies are here */
    PHASE_OVER,
};

struct bytes {
    const uint8_t *data;
    size_t count;
};

struct client {
    int fd;
    enum phase phase;
    bool was_ready; /* counted for "ready" */
    uint32_t watched;
    size_t sent; /* of what its phase has to send */
    uint64_t due_ns;
    uint64_t began_ns;
    uint64_t began_cpu_ns;
    uint64_t rounds;
    uint64_t replies;

    /* The head of the answer, then frames: their heads, and what is left of a payload. */
    uint8_t head[STATUS_END];
    unsigned head_bytes;
    unsigned line_ends; /* how much of "\r\n\r\n" has just been read */
    uint64_t left;
};

static struct load_address address;
static struct client *clients;
static size_t client_count, ready_count, connecting;
static bool ready_said, going, over;
static struct bytes hello, body;
static uint64_t replies = 1, rounds, drip_ns, pause_ns, at_once = 128;
static bool again;
static int epoll_fd;
static clockid_t cpu_clock; /* of --cpu-of; 0: none */

static uint64_t connections, rounds_done, refused, cut;
static uint32_t samples[SAMPLES], cpu_samples[SAMPLES];
static size_t sample_count;

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The kernel's clock of another process, which counts up to this moment. */
static uint64_t
cpu_ns(void)
{
    struct timespec t = {0};

    if (cpu_clock)
        clock_gettime(cpu_clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void
answer(const char *text)
{
    puts(text);
    if (fflush(stdout) != 0)
        exit(1);
}

/* ---- one client ---- */

static struct bytes
client_script(const struct client *c)
{
    if (c->phase == PHASE_HELLO)
        return hello;
    return c->phase == PHASE_BODY ? body : (struct bytes){0};
}

static void
client_watch(struct client *c)
{
    bool drips = c->phase == PHASE_HELLO && drip_ns;
    bool writes = c->phase == PHASE_CONNECTING || (!drips && c->sent < client_script(c).count);
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = c};

    if (event.events == c->watched)
        return;
    if (epoll_ctl(epoll_fd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
    c->watched = event.events;
}

static void
client_is_ready(struct client *c)
{
    ready_count += !c->was_ready;
    c->was_ready = true;
}

/* With a reset, which leaves no port behind that has to wait. */
static void
client_end(struct client *c)
{
    struct linger linger = {.l_onoff = 1};

    connecting -= c->phase == PHASE_CONNECTING || c->phase == PHASE_HELLO;
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(c->fd);
    client_is_ready(c);
    c->phase = again && !over ? PHASE_NEW : PHASE_OVER;
    c->due_ns = now_ns() + pause_ns;
}

static void
client_is_cut_off(struct client *c)
{
    if (c->phase <= PHASE_HELLO)
        refused++;
    else
        cut++;
    client_end(c);
}

static void
client_start(struct client *c)
{
    *c = (struct client){.phase = PHASE_CONNECTING, .was_ready = c->was_ready};
    c->fd = load_connect(&address, 0);
    connecting++;
    client_watch(c);
}

/* What is due at a time: the next byte, or the end of a pause. */
static void client_go_on(struct client *c, uint64_t now);

static void
client_write(struct client *c)
{
    struct bytes script = client_script(c);

    while (c->sent < script.count) {
        bool drips = c->phase == PHASE_HELLO && drip_ns;
        size_t count = drips ? 1 : script.count - c->sent;
        ssize_t sent = send(c->fd, script.data + c->sent, count, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            client_is_cut_off(c);
            return;
        }
        c->sent += (size_t)sent;
        if (drips)
            break;
    }
    client_watch(c);
}

static void
client_end_round(struct client *c, uint64_t now)
{
    rounds_done++;
    if (sample_count < SAMPLES) {
        samples[sample_count] = (uint32_t)((now - c->began_ns) / 1000);
        cpu_samples[sample_count++] = (uint32_t)((cpu_ns() - c->began_cpu_ns) / 1000);
    }
    if (++c->rounds == rounds) {
        client_end(c);
        return;
    }
    c->phase = PHASE_HELD;
    c->due_ns = now + pause_ns;
    if (!pause_ns)
        client_go_on(c, now);
}

static void
client_go_on(struct client *c, uint64_t now)
{
    if (c->due_ns > now)
        return;
    if (c->phase == PHASE_HELLO && drip_ns) {
        c->due_ns = now + drip_ns;
        client_write(c);
    } else if (c->phase == PHASE_HELD && going) {
        c->phase = PHASE_BODY;
        c->sent = 0;
        c->replies = 0;
        c->began_ns = now;
        c->began_cpu_ns = cpu_ns();
        client_write(c);
    }
}

/* All is sent, and all has come that it waits for. */
static void
client_look(struct client *c)
{
    if (c->phase == PHASE_BODY && c->sent == body.count && c->replies >= replies)
        client_end_round(c, now_ns());
}

/* ---- what comes in ---- */

static size_t
client_answer_bytes(struct client *c, const uint8_t *data, size_t count)
{
    static const uint8_t end[] = {'\r', '\n', '\r', '\n'};

    for (size_t i = 0; i < count; i++) {
        if (c->head_bytes < STATUS_END)
            c->head[c->head_bytes++] = data[i];
        c->line_ends = data[i] == end[c->line_ends] ? c->line_ends + 1 : data[i] == end[0];
        if (c->line_ends < sizeof end)
            continue;
        if (memcmp(c->head + STATUS_AT, "101", 3) != 0) {
            client_is_cut_off(c);
            return count;
        }
        c->head_bytes = 0;
        c->phase = PHASE_HELD;
        connecting--;
        client_is_ready(c);
        if (!body.count)
            client_end(c);
        else
            client_go_on(c, now_ns());
        return i + 1;
    }
    return count;
}

/* The head of a frame, as far as it is here; its length is then in `left`. */
static size_t
client_head_bytes(struct client *c, const uint8_t *data, size_t count)
{
    size_t used = 0;

    while (used < count) {
        unsigned bytes = c->head_bytes < 2 ? 2 : c->head[1] == 126 ? 4 : c->head[1] == 127 ? 10 : 2;

        if (c->head_bytes < bytes)
            c->head[c->head_bytes++] = data[used++];
        if (c->head_bytes < 2)
            continue;
        bytes = c->head[1] == 126 ? 4 : c->head[1] == 127 ? 10 : 2;
        if (c->head_bytes < bytes)
            continue;
        c->left = bytes == 2 ? c->head[1] : 0;
        for (unsigned i = 2; i < bytes; i++)
            c->left = c->left << 8 | c->head[i];
        break;
    }
    return used;
}

static bool
client_has_head(const struct client *c)
{
    return c->head_bytes >= 2 &&
           (c->head[1] < 126 || c->head_bytes == (c->head[1] == 126 ? 4 : 10));
}

static void
client_frames(struct client *c, const uint8_t *data, size_t count)
{
    for (size_t used = 0; used < count || (client_has_head(c) && c->left == 0);) {
        uint64_t take;

        if (!client_has_head(c)) {
            used += client_head_bytes(c, data + used, count - used);
            if (!client_has_head(c))
                return;
        }
        take = c->left < count - used ? c->left : count - used;
        c->left -= take;
        used += take;
        if (c->left > 0)
            return;
        c->head_bytes = 0;
        c->replies += (c->head[0] & 0x0f) == 1 || (c->head[0] & 0x0f) == 2;
    }
}

static void
client_read(struct client *c)
{
    static uint8_t buffer[1 << 18];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    size_t used = 0;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        client_is_cut_off(c);
        return;
    }
    if (c->phase == PHASE_HELLO)
        used = client_answer_bytes(c, buffer, (size_t)got);
    if (c->phase == PHASE_HELD || c->phase == PHASE_BODY)
        client_frames(c, buffer + used, (size_t)got - used);
}

static void
client_event(struct client *c, uint32_t events)
{
    if (c->phase == PHASE_CONNECTING) {
        int error = 0;
        socklen_t bytes = sizeof error;

        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
        if (error) {
            client_is_cut_off(c);
            return;
        }
        connections++;
        c->phase = PHASE_HELLO;
        if (!hello.count) {
            client_end(c);
            return;
        }
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        client_read(c);
    if (c->phase == PHASE_HELLO || c->phase == PHASE_BODY) {
        if (events & EPOLLOUT)
            client_write(c);
        client_look(c);
    }
}

/* ---- orders ---- */

static int
compare_samples(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint32_t
sample_at(const uint32_t *sorted, size_t percent)
{
    return sample_count ? sorted[(sample_count - 1) * percent / 100] : 0;
}

static void
report(void)
{
    size_t open = 0;
    char line[256];

    for (size_t i = 0; i < client_count; i++)
        open += clients[i].phase == PHASE_HELD || clients[i].phase == PHASE_BODY;
    qsort(samples, sample_count, sizeof samples[0], compare_samples);
    qsort(cpu_samples, sample_count, sizeof cpu_samples[0], compare_samples);
    snprintf(line, sizeof line,
             "report %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %zu %u %u %u %u %u %u",
             connections, rounds_done, refused, cut, open, sample_at(samples, 50),
             sample_at(samples, 99), sample_at(samples, 100), sample_at(cpu_samples, 50),
             sample_at(cpu_samples, 99), sample_at(cpu_samples, 100));
    answer(line);
}

static void
obey(const char *order)
{
    if (strcmp(order, "go") == 0) {
        going = true;
    } else if (strcmp(order, "hold") == 0) {
        going = false;
    } else if (strcmp(order, "clear") == 0) {
        connections = rounds_done = refused = cut = 0;
        sample_count = 0;
    } else if (strcmp(order, "reset") == 0) {
        over = true;
        for (size_t i = 0; i < client_count; i++) {
            if (clients[i].phase != PHASE_NEW && clients[i].phase != PHASE_OVER)
                client_end(&clients[i]);
            clients[i].phase = PHASE_OVER;
        }
    } else if (strcmp(order, "report") == 0) {
        report();
        return;
    } else {
        die("unknown order \"%s\"", order);
    }
    answer("ok");
}

static void
read_orders(void)
{
    static char orders[256];
    static size_t count;
    ssize_t got = read(STDIN_FILENO, orders + count, sizeof orders - 1 - count);
    char *end;

    if (got <= 0)
        exit(0);
    count += (size_t)got;
    orders[count] = '\0';
    while ((end = strchr(orders, '\n'))) {
        *end = '\0';
        obey(orders);
        count -= (size_t)(end + 1 - orders);
        memmove(orders, end + 1, count + 1);
    }
}

/* ---- the program ---- */

/* Each in its turn, when not all may connect at once. */
static void
start_some(uint64_t now)
{
    static size_t turn;

    for (size_t i = 0; i < client_count && connecting < at_once; i++) {
        struct client *c = &clients[turn++ % client_count];

        if (c->phase == PHASE_NEW && c->due_ns <= now)
            client_start(c);
    }
}

static void
go_on(void)
{
    uint64_t now = now_ns();

    start_some(now);
    for (size_t i = 0; i < client_count; i++)
        client_go_on(&clients[i], now);
    if (!ready_said && ready_count == client_count) {
        char line[64];

        ready_said = true;
        snprintf(line, sizeof line, "ready %zu", client_count);
        answer(line);
    }
}

static void
run(void)
{
    struct epoll_event events[EVENTS];
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
        die("standard input must be a pipe: %s", strerror(errno));
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, 1);

        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;

            if (!c)
                read_orders();
            else if (c->phase != PHASE_OVER && c->phase != PHASE_NEW)
                client_event(c, events[i].events);
        }
        go_on();
    }
}

static struct bytes
map_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    void *data;

    if (fd < 0 || fstat(fd, &about) != 0)
        die("%s: %s", path, strerror(errno));
    data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        die("%s: %s", path, strerror(errno));
    close(fd);
    return (struct bytes){data, (size_t)about.st_size};
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'},
        {"clients", required_argument, NULL, 'n'},
        {"hello", required_argument, NULL, 'h'},
        {"body", required_argument, NULL, 'b'},
        {"replies", required_argument, NULL, 'r'},
        {"rounds", required_argument, NULL, 'o'},
        {"again", no_argument, NULL, 'a'},
        {"drip", required_argument, NULL, 'd'},
        {"pause", required_argument, NULL, 'p'},
        {"at-once", required_argument, NULL, 'm'},
        {"timeout", required_argument, NULL, 't'},
        {"cpu-of", required_argument, NULL, 'u'},
        {NULL, 0, NULL, 0},
    };
    unsigned timeout = 600;

    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'c': load_parse_address(&address, optarg); break;
        case 'n': client_count = strtoul(optarg, NULL, 10); break;
        case 'h': hello = map_file(optarg); break;
        case 'b': body = map_file(optarg); break;
        case 'r': replies = strtoull(optarg, NULL, 10); break;
        case 'o': rounds = strtoull(optarg, NULL, 10); break;
        case 'a': again = true; break;
        case 'd': drip_ns = strtoull(optarg, NULL, 10) * 1000000; break;
        case 'p': pause_ns = strtoull(optarg, NULL, 10) * 1000000; break;
        case 'm': at_once = strtoull(optarg, NULL, 10); break;
        case 'u':
            if (clock_getcpuclockid((pid_t)strtol(optarg, NULL, 10), &cpu_clock) != 0)
                die("no process %s", optarg);
            break;
        case 't': timeout = (unsigned)strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!address.bytes || client_count == 0 || client_count > MAX_CLIENTS)
        die("--connect HOST:PORT and --clients 1 to %d are needed", MAX_CLIENTS);
    load_raise_descriptor_limit(client_count);
    alarm(timeout); /* the default action ends the process */
    clients = calloc(client_count, sizeof *clients);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || epoll_fd < 0)
        die("out of memory or descriptors");
    run();
}
