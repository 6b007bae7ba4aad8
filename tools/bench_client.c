/*
 * A client reads with one recv into a large buffer that its thread has once, and goes through all
 * frames where they lie. What it keeps between two recvs is the beginning of a head or of a control
 * frame; a message is judged as it comes (bench_stamp.h), never put together.
 */
#include "tools/bench_client.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "shm/clock.h"
#include "worker/proto/mask.h"

enum {
    IN_BYTES = 256 << 10,
    OUT_BYTES = 64 << 10, /* and one message */
    NONCE_BYTES = 16,
    ANSWER_MAX_BYTES = 8192,
    SOURCES_MAX = 1000, /* by then it is the memory that is used up */
    WHY_BYTES = 160,
    LENGTH_16_BITS = 126,
    LENGTH_64_BITS = 127,
    MASKED = 0x80,
    FIN = 0x80,
    CLOSE_NORMAL = 1000, /* RFC 6455 section 7.4.1 */
};

const char *
bench_client_state_name(enum bench_client_state state)
{
    switch (state) {
    case BENCH_CLIENT_CLOSED: return "closed";
    case BENCH_CLIENT_CONNECTING: return "connecting";
    case BENCH_CLIENT_OPENING: return "opening";
    case BENCH_CLIENT_SUBSCRIBING: return "subscribing";
    case BENCH_CLIENT_OPEN: return "open";
    case BENCH_CLIENT_CLOSING: return "closing";
    }
    return "unknown";
}

/* --- the loop that clients share --- */

int
bench_loop_init(struct bench_loop *loop, const struct bench_wire *wire,
                const struct bench_client_handlers *handlers, uint32_t seed)
{
    *loop = (struct bench_loop){
        .wire = wire,
        .handlers = handlers,
        .dice = seed * 2654435761U | 1,
        .in = malloc(FRAME_REST_MAX_BYTES + IN_BYTES),
        .out =
            malloc(OUT_BYTES + FRAME_HEAD_MAX_BYTES + BENCH_MQTT_HEAD_MAX_BYTES + wire->size_bytes),
        .epoll = epoll_create1(EPOLL_CLOEXEC),
    };
    if (loop->in && loop->out && loop->epoll >= 0)
        return 0;
    return loop->epoll < 0 ? -errno : -ENOMEM;
}

void
bench_loop_fini(struct bench_loop *loop)
{
    free(loop->in);
    free(loop->out);
    if (loop->epoll >= 0)
        close(loop->epoll);
}

uint64_t
bench_loop_clock_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* --- the end --- */

void
bench_client_drop(struct bench_client *client)
{
    if (client->fd >= 0 && !client->pipe)
        close(client->fd);
    free(client->out);
    free(client->answer);
    client->out = NULL;
    client->answer = NULL;
    client->fd = -1;
    client->state = BENCH_CLIENT_CLOSED;
}

static void
client_fail(struct bench_loop *loop, struct bench_client *client, const char *why)
{
    enum bench_client_state was = (enum bench_client_state)client->state;

    bench_client_drop(client);
    loop->handlers->closed(loop, client, was, why);
}

/* --- out --- */

static void
client_watch(struct bench_loop *loop, struct bench_client *client, bool room)
{
    struct epoll_event event = {
        .events = (client->pipe ? 0U : (uint32_t)EPOLLIN) | (room ? (uint32_t)EPOLLOUT : 0U),
        .data.ptr = client,
    };

    if (client->waits_for_room == room)
        return;
    client->waits_for_room = room;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_MOD, client->fd, &event) != 0)
        abort(); /* the descriptor is there, and this needs no memory */
}

/* What is left waits behind what waits already. False: there is no memory. */
static bool
client_keep(struct bench_client *client, const uint8_t *data, size_t bytes)
{
    uint8_t *out = malloc(client->out_bytes + bytes);

    if (!out)
        return false;
    if (client->out)
        memcpy(out, client->out + client->out_off, client->out_bytes);
    memcpy(out + client->out_bytes, data, bytes);
    free(client->out);
    client->out = out;
    client->out_off = 0;
    client->out_bytes += bytes;
    return true;
}

/* Bytes that went out, or -1: the connection is broken. */
static ssize_t
client_write_some(const struct bench_client *client, const uint8_t *data, size_t bytes)
{
    ssize_t n =
        client->pipe ? write(client->fd, data, bytes) : send(client->fd, data, bytes, MSG_NOSIGNAL);

    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

void
bench_client_write(struct bench_loop *loop, struct bench_client *client, const uint8_t *data,
                   size_t bytes)
{
    ssize_t n = 0;

    if (!client->out)
        n = client_write_some(client, data, bytes);
    if (n < 0)
        client_fail(loop, client, client->pipe ? "it reads no more lines" : strerror(errno));
    else if ((size_t)n < bytes && !client_keep(client, data + n, bytes - (size_t)n))
        client_fail(loop, client, "no memory for what it has to send");
    else if (client->out)
        client_watch(loop, client, true);
}

static void
client_flush(struct bench_loop *loop, struct bench_client *client)
{
    ssize_t n = client_write_some(client, client->out + client->out_off, client->out_bytes);

    if (n < 0) {
        client_fail(loop, client, client->pipe ? "it reads no more lines" : strerror(errno));
        return;
    }
    client->out_off += (size_t)n;
    client->out_bytes -= (size_t)n;
    if (client->out_bytes == 0) {
        free(client->out);
        client->out = NULL;
        client->out_off = 0;
        client->room_ns = bench_loop_clock_ns();
        client_watch(loop, client, false);
    }
}

/* The head of a masked frame, RFC 6455 section 5.2, with a key that may be guessed. Bytes written;
 * the key is the last four. */
static size_t
client_head(struct bench_loop *loop, uint8_t *to, enum frame_opcode opcode, size_t payload)
{
    size_t field = payload < LENGTH_16_BITS ? 0 : payload <= UINT16_MAX ? 2 : 8;

    loop->dice ^= loop->dice << 13; /* Marsaglia's xorshift */
    loop->dice ^= loop->dice >> 17;
    loop->dice ^= loop->dice << 5;
    to[0] = (uint8_t)(FIN | opcode);
    to[1] = (uint8_t)(MASKED | (field == 0   ? payload
                                : field == 2 ? (size_t)LENGTH_16_BITS
                                             : (size_t)LENGTH_64_BITS));
    for (size_t i = 0; i < field; i++)
        to[2 + i] = (uint8_t)(payload >> (8 * (field - 1 - i)));
    memcpy(to + 2 + field, &loop->dice, sizeof(loop->dice));
    return 2 + field + sizeof(loop->dice);
}

/* A whole frame of at most 125 bytes. */
static void
client_short(struct bench_loop *loop, struct bench_client *client, enum frame_opcode opcode,
             const uint8_t *payload, size_t bytes)
{
    uint8_t frame[FRAME_REST_MAX_BYTES];
    size_t head = client_head(loop, frame, opcode, bytes);

    mask_copy(frame + head, payload, bytes, frame + head - 4, 0);
    bench_client_write(loop, client, frame, head + bytes);
}

bool
bench_client_room(const struct bench_loop *loop, size_t used)
{
    (void)loop;
    return used < OUT_BYTES;
}

size_t
bench_client_put(struct bench_loop *loop, const struct bench_client *client, size_t used,
                 const struct bench_stamp *stamp)
{
    size_t bytes = loop->wire->size_bytes;
    uint8_t envelope[BENCH_MQTT_HEAD_MAX_BYTES];
    size_t more = loop->wire->mqtt ? bench_mqtt_head(envelope, bytes) : 0;
    uint8_t *to = loop->out + used;
    size_t head;

    assert(used < OUT_BYTES);
    if (client->pipe) {
        bench_stamp_write(stamp, (char *)to, bytes);
        to[bytes] = '\n';
        return used + bytes + 1;
    }
    head =
        client_head(loop, to, loop->wire->binary ? FRAME_OP_BINARY : FRAME_OP_TEXT, more + bytes);
    memcpy(to + head, envelope, more);
    bench_stamp_write(stamp, (char *)to + head + more, bytes);
    mask_copy(to + head, to + head, more + bytes, to + head - 4, 0);
    return used + head + more + bytes;
}

void
bench_client_close(struct bench_loop *loop, struct bench_client *client)
{
    static const uint8_t code[2] = {CLOSE_NORMAL >> 8, CLOSE_NORMAL & 0xff};

    client->state = BENCH_CLIENT_CLOSING;
    client_short(loop, client, FRAME_OP_CLOSE, code, sizeof(code));
}

/* --- connecting --- */

static int
client_choose_source(int fd, uint32_t source)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK + source),
    };
    int one = 1;

    /* The port is chosen by connect, which knows the other end, and so has all to choose from. */
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) != 0)
        return -1;
    return bind(fd, (struct sockaddr *)&address, sizeof(address));
}

/* A descriptor that is being connected, or -errno. */
static int
client_socket(const struct bench_loop *loop)
{
    const struct bench_wire *wire = loop->wire;
    int fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    int rc = 0;

    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* slower without, not wrong */
    if (loop->source > 0)
        rc = client_choose_source(fd, loop->source);
    if (rc == 0)
        rc = connect(fd, (const struct sockaddr *)&wire->address, wire->address_bytes);
    if (rc == 0 || errno == EINPROGRESS)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

int
bench_client_connect(struct bench_loop *loop, struct bench_client *client)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = client};
    int fd = client_socket(loop);

    /* Connections from one address to one server are as many as there are local ports. */
    while (fd == -EADDRNOTAVAIL && loop->wire->many_sources && loop->source < SOURCES_MAX) {
        loop->source++;
        fd = client_socket(loop);
    }
    if (fd < 0)
        return fd;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    client->fd = fd;
    client->state = BENCH_CLIENT_CONNECTING;
    client->waits_for_room = true;
    client->heard_close = false;
    client->rest_bytes = 0;
    client->reader = (struct bench_reader){0};
    client->mqtt = (struct bench_mqtt){0};
    frame_parser_init(&client->parser, false, false);
    return 0;
}

int
bench_client_open_pipe(struct bench_loop *loop, struct bench_client *client, int fd)
{
    struct epoll_event event = {.data.ptr = client};

    client->fd = fd;
    client->pipe = true;
    client->state = BENCH_CLIENT_OPEN;
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* Each connection has a key of its own, "selected randomly", RFC 6455 section 4.1. */
static void
client_request(struct bench_loop *loop, struct bench_client *client)
{
    const struct bench_wire *wire = loop->wire;
    unsigned char nonce[NONCE_BYTES];
    unsigned char key[HANDSHAKE_KEY_BYTES + 1];

    if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce)) {
        client_fail(loop, client, "there are no random bytes for its Sec-WebSocket-Key");
        return;
    }
    EVP_EncodeBlock(key, nonce, sizeof(nonce));
    memcpy(client->key, key, sizeof(client->key));
    assert(wire->request_bytes <= OUT_BYTES);
    memcpy(loop->out, wire->request, wire->request_bytes);
    memcpy(loop->out + wire->key_off, client->key, sizeof(client->key));
    bench_client_write(loop, client, loop->out, wire->request_bytes);
}

static void
client_connected(struct bench_loop *loop, struct bench_client *client)
{
    int error = 0;
    socklen_t bytes = sizeof(error);

    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
        error = errno;
    if (error) {
        client_fail(loop, client, strerror(error));
        return;
    }
    client->state = BENCH_CLIENT_OPENING;
    client_watch(loop, client, false);
    client_request(loop, client);
}

/* --- in --- */

/* Is it what the key has to be answered with? handshake.h has one digest for all threads. */
static bool
answer_accepts(const struct bench_client *client, const char *accept)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char expected[HANDSHAKE_ACCEPT_BYTES + 1];
    bool good;

    pthread_mutex_lock(&lock);
    good = handshake_accept_of(client->key, expected);
    pthread_mutex_unlock(&lock);
    return good && strncmp(accept, expected, HANDSHAKE_ACCEPT_BYTES) == 0;
}

/* NULL, or what is wrong with a whole head, a string: RFC 6455 section 4.1. */
static const char *
answer_check(const struct bench_client *client, const char *head, char why[WHY_BYTES])
{
    static const char name[] = "\nSec-WebSocket-Accept:";
    const char *accept = strcasestr(head, name);

    if (strncmp(head, "HTTP/1.1 101", strlen("HTTP/1.1 101")) != 0) {
        size_t line_bytes = strcspn(head, "\r\n");

        snprintf(why, WHY_BYTES, "the server answered '%.*s'",
                 line_bytes < 80 ? (int)line_bytes : 80, head);
        return why;
    }
    if (accept)
        accept += strlen(name) + strspn(accept + strlen(name), " \t");
    if (!accept || !answer_accepts(client, accept))
        return "the server's Sec-WebSocket-Accept is not the one for the key";
    return NULL;
}

static void
client_open(struct bench_loop *loop, struct bench_client *client)
{
    uint8_t hello[BENCH_MQTT_HELLO_BYTES];

    if (loop->wire->mqtt && client->state == BENCH_CLIENT_OPENING) {
        client->state = BENCH_CLIENT_SUBSCRIBING;
        bench_mqtt_hello(hello);
        client_short(loop, client, FRAME_OP_BINARY, hello, sizeof(hello));
        return;
    }
    client->state = BENCH_CLIENT_OPEN;
    loop->handlers->opened(loop, client);
}

/* Bytes of `data` that belong to the answer once it is whole; 0: it is not, or the client is gone. */
static size_t
client_answer(struct bench_loop *loop, struct bench_client *client, const uint8_t *data,
              size_t bytes)
{
    char why[WHY_BYTES];
    const char *wrong;
    char *end;
    size_t before = client->answer_bytes;
    size_t taken = bytes < ANSWER_MAX_BYTES - before ? bytes : ANSWER_MAX_BYTES - before;
    char *answer = realloc(client->answer, before + taken + 1);

    if (!answer) {
        client_fail(loop, client, "no memory for the server's answer");
        return 0;
    }
    memcpy(answer + before, data, taken);
    answer[before + taken] = '\0';
    client->answer = answer;
    client->answer_bytes = before + taken;
    end = strstr(answer, "\r\n\r\n");
    if (!end) {
        if (before + taken == ANSWER_MAX_BYTES)
            client_fail(loop, client, "the server's answer does not end");
        return 0;
    }
    end[2] = '\0';
    wrong = answer_check(client, answer, why);
    taken = (size_t)(end + 4 - answer) - before;
    free(answer);
    client->answer = NULL;
    client->answer_bytes = 0;
    if (wrong) {
        client_fail(loop, client, wrong);
        return 0;
    }
    client_open(loop, client);
    return taken;
}

static void
client_on_control(struct bench_loop *loop, struct bench_client *client,
                  const struct frame_event *event)
{
    char why[WHY_BYTES];
    uint16_t code;

    if (event->opcode == FRAME_OP_PING) {
        client_short(loop, client, FRAME_OP_PONG, event->data, event->bytes);
    } else if (event->opcode == FRAME_OP_CLOSE && client->state == BENCH_CLIENT_CLOSING) {
        client->heard_close = true; /* and the server ends the connection, section 7.1.1 */
    } else if (event->opcode == FRAME_OP_CLOSE) {
        if (!frame_close_parse(event->data, event->bytes, &code))
            snprintf(why, sizeof(why), "the server closed it with a malformed Close");
        else
            snprintf(why, sizeof(why), "the server closed it with %u %.*s", code,
                     event->bytes > 2 ? (int)event->bytes - 2 : 0, (const char *)event->data + 2);
        client_short(loop, client, FRAME_OP_CLOSE, event->data, event->bytes < 2 ? 0 : 2);
        if (client->state != BENCH_CLIENT_CLOSED)
            client_fail(loop, client, why);
    }
}

static bool
client_is_read(const struct bench_client *client)
{
    return client->state == BENCH_CLIENT_OPEN || client->state == BENCH_CLIENT_SUBSCRIBING ||
           client->state == BENCH_CLIENT_CLOSING;
}

/* A part of a message, perhaps its end. */
static void
client_message(struct bench_loop *loop, struct bench_client *client, const uint8_t *data,
               size_t bytes, bool last)
{
    bench_stamp_feed(&client->reader, (const char *)data, bytes);
    if (last)
        loop->handlers->message(loop, client,
                                bench_stamp_end(&client->reader, loop->wire->size_bytes));
}

static void
client_packets(struct bench_loop *loop, struct bench_client *client, const uint8_t *data,
               size_t bytes)
{
    struct bench_mqtt_event event;

    while (bytes > 0 && client_is_read(client)) {
        switch (bench_mqtt_parse(&client->mqtt, data, bytes, &event)) {
        case BENCH_MQTT_MORE: break;
        case BENCH_MQTT_SUBSCRIBED:
            if (client->state == BENCH_CLIENT_SUBSCRIBING)
                client_open(loop, client);
            break;
        case BENCH_MQTT_PAYLOAD:
            client_message(loop, client, event.data, event.bytes, event.last);
            break;
        case BENCH_MQTT_BROKEN: client_fail(loop, client, event.reason); break;
        }
        data += event.consumed;
        bytes -= event.consumed;
    }
}

/* All frames that are whole, and the pieces of those that are not. */
static void
client_frames(struct bench_loop *loop, struct bench_client *client, uint8_t *data, size_t bytes)
{
    struct frame_event event;

    while (client_is_read(client)) {
        enum frame_status status = frame_parse(&client->parser, data, bytes, SIZE_MAX / 2, &event);
        char why[WHY_BYTES];

        data += event.consumed;
        bytes -= event.consumed;
        if (status == FRAME_NEED_MORE) {
            memcpy(client->rest, data, bytes);
            client->rest_bytes = (uint8_t)bytes;
            return;
        }
        if (status == FRAME_DATA && loop->wire->mqtt) {
            client_packets(loop, client, event.data, event.bytes);
        } else if (status == FRAME_DATA) {
            client_message(loop, client, event.data, event.bytes, event.last);
        } else if (status == FRAME_CONTROL) {
            client_on_control(loop, client, &event);
        } else {
            snprintf(why, sizeof(why), "the server broke the protocol: %s", event.reason);
            client_fail(loop, client, why);
        }
    }
}

static void
client_read(struct bench_loop *loop, struct bench_client *client)
{
    uint8_t *at = loop->in + FRAME_REST_MAX_BYTES;
    ssize_t n = recv(client->fd, at, IN_BYTES, 0);
    size_t bytes = n > 0 ? (size_t)n : 0;

    loop->now_ns = bench_loop_clock_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_fail(loop, client, n < 0 ? strerror(errno) : "the server ended the connection");
        return;
    }
    if (client->state == BENCH_CLIENT_OPENING) {
        size_t answer = client_answer(loop, client, at, bytes);
        if (answer == 0)
            return;
        at += answer;
        bytes -= answer;
    }
    loop->received_bytes += bytes;
    at -= client->rest_bytes;
    memcpy(at, client->rest, client->rest_bytes);
    client_frames(loop, client, at, bytes + client->rest_bytes);
}

void
bench_client_event(struct bench_loop *loop, struct bench_client *client, uint32_t events)
{
    if (client->state == BENCH_CLIENT_CONNECTING)
        client_connected(loop, client);
    if (client->out && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        client_flush(loop, client);
    if (client->pipe && events & EPOLLERR && client->state != BENCH_CLIENT_CLOSED)
        client_fail(loop, client, "it reads no more lines");
    if (!client->pipe && client->state != BENCH_CLIENT_CLOSED &&
        events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        client_read(loop, client);
}
