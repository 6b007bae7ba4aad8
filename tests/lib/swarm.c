/*
 * swarm: many WebSocket clients in one process, for tests that count and compare transcripts.
 *
 *   swarm --connect HOST:PORT --clients N [--rate PER_SECOND] [--rcvbuf BYTES] [--timeout SECS]
 *
 * Opens N connections, prints "ready N" when all opening handshakes are done, then obeys the lines
 * on its standard input, each answered when it is done:
 *
 *   send I TEXT          client I sends a text message                    -> ok
 *   burst I COUNT PREFIX client I sends PREFIX-0, PREFIX-1 ... pipelined  -> ok, before all are out
 *   expect COUNT MS      wait until each client has COUNT messages        -> ok | timeout MIN MAX |
 *                        short MIN MAX (some are closed)
 *   stall I, resume I    client I stops and starts reading                -> ok
 *   report               -> transcript HASH COUNT CLIENTS, for each transcript that differs;
 *                           client I COUNT STATE, for up to 20 that have fewer messages; end
 *   quit
 *
 * A client keeps no message: of each it hashes opcode, length and payload (FNV-1a, 64 bits) as the
 * bytes come in. The frames are parsed here once more, on purpose not by the server's own decoder.
 * It connects to this machine only, opens at most so many connections a second, and ends itself
 * when its time is over.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/load.h"

enum {
    MAX_CLIENTS = 100000,
    HEAD_BYTES = 4096,    /* of the server's answer to the handshake */
    OPENING_AT_ONCE = 64, /* connections on their way through the handshake */
    OUT_CHUNK = 32768,    /* a burst is turned into frames in pieces of about this size */
    SHORT_SHOWN = 20,
    EVENTS = 256,
};

enum opcode { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

enum state {
    STATE_CONNECTING, /* until the socket is writable */
    STATE_OPENING,    /* the request is on its way, no 101 yet */
    STATE_OPEN,
    STATE_CLOSED, /* by a close frame, the end of the stream or an error */
};

#define FNV_OFFSET UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

/* A fixed key has a fixed answer (RFC 6455, 1.3). */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct client {
    int fd;
    enum state state;
    bool stalled;
    uint32_t watched; /* events asked of epoll */

    /* What it has seen. */
    uint64_t hash;
    uint64_t count;

    /* The frame that is being read: head_len bytes of its header so far, then `left` to come. */
    uint8_t head[10];
    unsigned head_len;
    bool in_payload;
    uint8_t opcode;
    uint64_t left;
    uint8_t control[125];
    unsigned control_len;

    /* The handshake's answer, then NULL. */
    char *answer;
    size_t answer_len;

    /* What it has to say. */
    char *out;
    size_t out_len, out_off, out_cap;
    uint64_t burst_next, burst_end;
    char *burst_prefix;
};

static struct load_address address;
static const char *host_header;
static struct client *clients;
static size_t client_count;
static size_t started, opened; /* connections begun, handshakes done */
static unsigned rate = 5000;
static int receive_buffer;
static int epoll_fd;
static bool ready_said;

/* `expect` under way. */
static bool expecting;
static uint64_t expect_count;
static uint64_t expect_end_ms;
static size_t expect_met,
    expect_closed; /* clients that got there; clients closed before they did */

static uint64_t
now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void *
must(void *memory)
{
    if (!memory)
        die("out of memory");
    return memory;
}

static void
answer(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    if (fflush(stdout) != 0)
        exit(1);
}

/* ---- one client ---- */

static size_t
client_index(const struct client *c)
{
    return (size_t)(c - clients);
}

static void
client_watch(struct client *c)
{
    if (c->state == STATE_CLOSED)
        return;
    bool wants_out =
        c->state == STATE_CONNECTING || c->out_off < c->out_len || c->burst_next < c->burst_end;
    uint32_t events = (c->stalled ? 0 : EPOLLIN) | (wants_out ? EPOLLOUT : 0);
    if (events == c->watched)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
    c->watched = events;
}

static void
client_end(struct client *c)
{
    if (c->state == STATE_CLOSED)
        return;
    if (c->state != STATE_OPEN)
        die("client %zu: the connection ended during the handshake, after \"%.*s\"",
            client_index(c), (int)c->answer_len, c->answer ? c->answer : "");
    c->state = STATE_CLOSED;
    close(c->fd);
    c->fd = -1;
    if (expecting && c->count < expect_count)
        expect_closed++;
}

static void
client_put(struct client *c, const void *data, size_t len)
{
    if (c->out_off == c->out_len)
        c->out_off = c->out_len = 0;
    if (c->out_len + len > c->out_cap) {
        c->out_cap = (c->out_len + len) * 2;
        c->out = must(realloc(c->out, c->out_cap));
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
}

static void
client_put_frame(struct client *c, enum opcode opcode, const void *payload, size_t len)
{
    static uint32_t seed = 0x9e3779b9;
    seed = seed * 1664525 + 1013904223;
    uint8_t head[14] = {(uint8_t)(0x80 | opcode)};
    size_t n = 2;
    if (len < 126) {
        head[1] = (uint8_t)len;
    } else if (len < 65536) {
        head[1] = 126;
        head[n++] = (uint8_t)(len >> 8);
        head[n++] = (uint8_t)len;
    } else {
        head[1] = 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            head[n++] = (uint8_t)(len >> shift);
    }
    head[1] |= 0x80;
    uint8_t mask[4] = {(uint8_t)(seed >> 24), (uint8_t)(seed >> 16), (uint8_t)(seed >> 8),
                       (uint8_t)seed};
    memcpy(head + n, mask, sizeof mask);
    client_put(c, head, n + sizeof mask);
    client_put(c, payload, len);
    uint8_t *body = (uint8_t *)c->out + c->out_len - len;
    for (size_t i = 0; i < len; i++)
        body[i] ^= mask[i & 3];
}

static void
client_fill_burst(struct client *c)
{
    char text[512];
    while (c->burst_next < c->burst_end && c->out_len - c->out_off < OUT_CHUNK) {
        int len = snprintf(text, sizeof text, "%s-%" PRIu64, c->burst_prefix, c->burst_next++);
        client_put_frame(c, OP_TEXT, text, (size_t)len);
    }
}

static void
client_write(struct client *c)
{
    while (c->state != STATE_CLOSED) {
        client_fill_burst(c);
        if (c->out_off == c->out_len)
            break;
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            client_end(c);
        else
            c->out_off += (size_t)n;
    }
    client_watch(c);
}

/* ---- what comes in ---- */

static void
hash_bytes(struct client *c, const uint8_t *data, size_t len)
{
    uint64_t hash = c->hash;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ data[i]) * FNV_PRIME;
    c->hash = hash;
}

static void
client_frame_begins(struct client *c)
{
    uint8_t opcode = c->head[0] & 0x0f;
    if ((c->head[0] & 0xf0) != 0x80 || (c->head[1] & 0x80))
        die("client %zu: frame begins with %02x %02x: fragmented, masked or reserved bits",
            client_index(c), c->head[0], c->head[1]);
    if (opcode != OP_TEXT && opcode != OP_BINARY && (opcode < OP_CLOSE || opcode > OP_PONG))
        die("client %zu: opcode %u", client_index(c), opcode);
    c->left = c->head[1];
    if (c->head_len > 2) {
        c->left = 0;
        for (unsigned i = 2; i < c->head_len; i++)
            c->left = c->left << 8 | c->head[i];
    }
    if (opcode >= OP_CLOSE && c->left > sizeof c->control)
        die("client %zu: control frame of %" PRIu64 " bytes", client_index(c), c->left);
    c->opcode = opcode;
    c->in_payload = true;
    c->control_len = 0;
    if (opcode < OP_CLOSE) {
        uint8_t prefix[9] = {opcode};
        for (unsigned i = 0; i < 8; i++)
            prefix[1 + i] = (uint8_t)(c->left >> (56 - 8 * i));
        hash_bytes(c, prefix, sizeof prefix);
    }
}

static void
client_frame_ends(struct client *c)
{
    c->in_payload = false;
    c->head_len = 0;
    if (c->opcode < OP_CLOSE) {
        c->count++;
        if (expecting && c->count == expect_count)
            expect_met++;
    } else if (c->opcode == OP_PING) {
        client_put_frame(c, OP_PONG, c->control, c->control_len);
        client_write(c);
    } else if (c->opcode == OP_CLOSE) {
        client_put_frame(c, OP_CLOSE, c->control, c->control_len);
        client_write(c);
        client_end(c);
    }
}

static void
client_frames(struct client *c, const uint8_t *data, size_t len)
{
    while (c->state == STATE_OPEN) {
        if (!c->in_payload) {
            unsigned size = 2;
            if (c->head_len >= 2)
                size = (c->head[1] & 0x7f) == 126 ? 4 : (c->head[1] & 0x7f) == 127 ? 10 : 2;
            if (c->head_len == size && c->head_len >= 2) {
                client_frame_begins(c);
            } else if (len == 0) {
                return;
            } else {
                c->head[c->head_len++] = *data++;
                len--;
            }
            continue;
        }
        size_t n = len < c->left ? len : (size_t)c->left;
        if (c->opcode < OP_CLOSE) {
            hash_bytes(c, data, n);
        } else {
            memcpy(c->control + c->control_len, data, n);
            c->control_len += (unsigned)n;
        }
        data += n;
        len -= n;
        c->left -= n;
        if (c->left > 0)
            return;
        client_frame_ends(c);
    }
}

/* The answer to the handshake; what follows it in the same read are frames already. */
static void
client_answer(struct client *c, const uint8_t *data, size_t len)
{
    if (c->answer_len + len > HEAD_BYTES - 1 + (size_t)OUT_CHUNK * 4)
        die("client %zu: endless answer to the handshake", client_index(c));
    c->answer = must(realloc(c->answer, c->answer_len + len + 1));
    memcpy(c->answer + c->answer_len, data, len);
    c->answer_len += len;
    c->answer[c->answer_len] = '\0';
    char *end = memmem(c->answer, c->answer_len, "\r\n\r\n", 4);
    if (!end)
        return;
    *end = '\0';
    if (strncmp(c->answer, "HTTP/1.1 101 ", 13) != 0 || !strstr(c->answer, ACCEPT))
        die("client %zu: the server answered \"%s\"", client_index(c), c->answer);
    c->state = STATE_OPEN;
    opened++;
    char *text = c->answer;
    c->answer = NULL;
    size_t rest = c->answer_len - (size_t)(end + 4 - text);
    client_frames(c, (const uint8_t *)end + 4, rest);
    free(text);
}

static void
client_read(struct client *c)
{
    static uint8_t buffer[65536];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        client_end(c);
    else if (c->state == STATE_OPEN)
        client_frames(c, buffer, (size_t)n);
    else
        client_answer(c, buffer, (size_t)n);
}

static void
client_start(struct client *c)
{
    c->hash = FNV_OFFSET;
    c->fd = load_connect(&address, receive_buffer);
    char request[512];
    int len = snprintf(request, sizeof request,
                       "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                       host_header);
    client_put(c, request, (size_t)len);
    c->watched = EPOLLIN | EPOLLOUT;
    struct epoll_event event = {.events = c->watched, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void
client_event(struct client *c, uint32_t events)
{
    if (c->state == STATE_CONNECTING && (events & (EPOLLOUT | EPOLLERR))) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error)
            die("client %zu: connect: %s", client_index(c), strerror(error));
        c->state = STATE_OPENING;
    }
    if (events & EPOLLOUT)
        client_write(c);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && c->state != STATE_CLOSED) {
        if (c->stalled && (events & (EPOLLHUP | EPOLLERR)))
            client_end(c);
        else if (!c->stalled)
            client_read(c);
    }
}

/* ---- orders ---- */

static void
range(uint64_t *min, uint64_t *max)
{
    *min = UINT64_MAX;
    *max = 0;
    for (size_t i = 0; i < client_count; i++) {
        *min = clients[i].count < *min ? clients[i].count : *min;
        *max = clients[i].count > *max ? clients[i].count : *max;
    }
}

static void
expect_check(void)
{
    uint64_t min, max;
    if (!expecting)
        return;
    if (expect_met + expect_closed < client_count && now_ms() < expect_end_ms)
        return;
    expecting = false;
    range(&min, &max);
    if (expect_met == client_count)
        answer("ok");
    else
        answer("%s %" PRIu64 " %" PRIu64,
               expect_met + expect_closed == client_count ? "short" : "timeout", min, max);
}

static void
expect_begin(uint64_t count, uint64_t timeout_ms)
{
    expecting = true;
    expect_count = count;
    expect_end_ms = now_ms() + timeout_ms;
    expect_met = expect_closed = 0;
    for (size_t i = 0; i < client_count; i++) {
        if (clients[i].count >= count)
            expect_met++;
        else if (clients[i].state == STATE_CLOSED)
            expect_closed++;
    }
}

static int
compare_transcripts(const void *a, const void *b)
{
    const struct client *x = *(struct client *const *)a, *y = *(struct client *const *)b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

static void
report(void)
{
    uint64_t min, max;
    struct client **sorted = must(calloc(client_count, sizeof(struct client *)));
    for (size_t i = 0; i < client_count; i++)
        sorted[i] = &clients[i];
    qsort(sorted, client_count, sizeof(struct client *), compare_transcripts);
    for (size_t i = 0, same = 1; i < client_count; i += same) {
        for (same = 1; i + same < client_count; same++)
            if (compare_transcripts(&sorted[i], &sorted[i + same]) != 0)
                break;
        answer("transcript %016" PRIx64 " %" PRIu64 " %zu", sorted[i]->hash, sorted[i]->count,
               same);
    }
    free(sorted);
    range(&min, &max);
    int shown = 0;
    for (size_t i = 0; i < client_count && shown < SHORT_SHOWN; i++) {
        if (clients[i].count == max)
            continue;
        answer("client %zu %" PRIu64 " %s", i, clients[i].count,
               clients[i].state == STATE_CLOSED ? "closed" : "open");
        shown++;
    }
    answer("end");
}

static struct client *
client_number(const char *text)
{
    char *end;
    unsigned long i = strtoul(text ? text : "", &end, 10);
    if (!text || end == text || *end || i >= client_count)
        die("no client \"%s\"", text ? text : "");
    return &clients[i];
}

static void
obey_burst(struct client *c, const char *count, const char *prefix)
{
    if (!count || !prefix || strlen(prefix) > 400 || c->burst_next < c->burst_end)
        die("burst I COUNT PREFIX, one at a time");
    free(c->burst_prefix);
    c->burst_prefix = must(strdup(prefix));
    c->burst_next = 0;
    c->burst_end = strtoull(count, NULL, 10);
    answer("ok");
    client_watch(c);
}

static void
obey(char *line)
{
    char *rest = line;
    char *word = strsep(&rest, " ");
    if (strcmp(word, "quit") == 0) {
        exit(0);
    } else if (strcmp(word, "report") == 0) {
        report();
    } else if (strcmp(word, "expect") == 0) {
        char *count = strsep(&rest, " ");
        if (!count || !rest)
            die("expect COUNT MS");
        expect_begin(strtoull(count, NULL, 10), strtoull(rest, NULL, 10));
    } else {
        struct client *c = client_number(strsep(&rest, " "));
        if (strcmp(word, "send") == 0) {
            client_put_frame(c, OP_TEXT, rest ? rest : "", rest ? strlen(rest) : 0);
            answer("ok");
            client_watch(c);
        } else if (strcmp(word, "burst") == 0) {
            char *count = strsep(&rest, " ");
            obey_burst(c, count, rest);
        } else if (strcmp(word, "stall") == 0 || strcmp(word, "resume") == 0) {
            c->stalled = word[0] == 's';
            client_watch(c);
            answer("ok");
        } else {
            die("unknown order \"%s\"", word);
        }
    }
}

static char orders[65536];
static size_t orders_len;

/* Obeys whole lines; while an `expect` is under way, the next ones wait. */
static void
obey_lines(void)
{
    char *end;
    while (!expecting && (end = memchr(orders, '\n', orders_len))) {
        size_t len = (size_t)(end - orders) + 1;
        char line[sizeof orders];
        memcpy(line, orders, len);
        line[len - 1] = '\0';
        orders_len -= len;
        memmove(orders, orders + len, orders_len);
        obey(line);
        expect_check();
    }
}

static void
read_orders(void)
{
    if (orders_len == sizeof orders)
        die("order too long");
    ssize_t n = read(STDIN_FILENO, orders + orders_len, sizeof orders - orders_len);
    if (n <= 0)
        exit(0);
    orders_len += (size_t)n;
}

/* ---- the program ---- */

static void
start_some(uint64_t start_ms)
{
    uint64_t allowed = 1 + (now_ms() - start_ms) * rate / 1000;
    while (started < client_count && started < allowed && started - opened < OPENING_AT_ONCE)
        client_start(&clients[started++]);
    if (!ready_said && opened == client_count) {
        ready_said = true;
        answer("ready %zu", client_count);
    }
}

static void
run(void)
{
    struct epoll_event events[EVENTS];
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    bool orders_watched = false;
    uint64_t start_ms = now_ms();
    for (;;) {
        start_some(start_ms);
        /* Orders wait until all are ready, and behind an `expect`. */
        bool want = ready_said && !expecting;
        if (want != orders_watched &&
            epoll_ctl(epoll_fd, want ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, STDIN_FILENO, &input) != 0)
            die("standard input must be a pipe: %s", strerror(errno));
        orders_watched = want;
        int n = epoll_wait(epoll_fd, events, EVENTS, ready_said ? expecting ? 20 : -1 : 1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!c)
                read_orders();
            else if (c->state != STATE_CLOSED)
                client_event(c, events[i].events);
        }
        expect_check();
        obey_lines();
    }
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'}, {"clients", required_argument, NULL, 'n'},
        {"rate", required_argument, NULL, 'r'},    {"rcvbuf", required_argument, NULL, 'b'},
        {"timeout", required_argument, NULL, 't'}, {NULL, 0, NULL, 0},
    };
    unsigned timeout = 300;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'c':
            host_header = optarg;
            load_parse_address(&address, optarg);
            break;
        case 'n': client_count = strtoul(optarg, NULL, 10); break;
        case 'r': rate = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'b': receive_buffer = (int)strtol(optarg, NULL, 10); break;
        case 't': timeout = (unsigned)strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!address.bytes || client_count == 0 || client_count > MAX_CLIENTS || rate == 0)
        die("--connect HOST:PORT and --clients 1 to %d are needed", MAX_CLIENTS);
    load_raise_descriptor_limit(client_count);
    alarm(timeout); /* the default action ends the process */
    clients = must(calloc(client_count, sizeof *clients));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1: %s", strerror(errno));
    run();
}
