/*
 * bench_client.h: one connection of crier-bench: opening handshake, frames in, frames out.
 *
 * Role:     crier-bench; does its I/O on non-blocking descriptors, under an epoll of its thread.
 * Owns:     the descriptor, and buffers that exist only while they hold something.
 * Errors:   told to `closed` as a sentence, once; the client is BENCH_CLIENT_CLOSED then.
 * Context:  the thread of its loop.
 *
 *   CLOSED ---> CONNECTING ---> OPENING ---> OPEN ---> CLOSING      (MQTT: SUBSCRIBING before OPEN)
 *      ^            | refused      | no 101    | end      | the server's Close, and its end
 *      '------------+--------------+-----------+----------'
 *
 * A client may be a pipe instead, which is written lines and never read: it is OPEN.
 */
#ifndef CRIER_TOOLS_BENCH_CLIENT_H
#define CRIER_TOOLS_BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "tools/bench_mqtt.h"
#include "tools/bench_stamp.h"
#include "worker/proto/frame.h"
#include "worker/proto/handshake.h"

enum bench_client_state {
    BENCH_CLIENT_CLOSED,
    BENCH_CLIENT_CONNECTING,
    BENCH_CLIENT_OPENING,
    BENCH_CLIENT_SUBSCRIBING, /* MQTT: connected, but not subscribed yet */
    BENCH_CLIENT_OPEN,
    BENCH_CLIENT_CLOSING, /* has sent a Close */
};

struct bench_client {
    int fd;
    uint8_t state; /* enum bench_client_state */
    bool pipe;
    bool waits_for_room; /* EPOLLOUT is asked for */
    bool heard_close;    /* CLOSING: the server has answered with its own Close */
    uint8_t rest_bytes;  /* of a frame that is not whole */
    uint32_t sent;       /* messages, as a publisher */
    uint64_t received;   /* good messages, duplicates not counted */
    uint64_t settled;    /* messages that have come, or were found missing */
    uint64_t order;      /* a hash over all that came, in their order */
    uint64_t room_ns;    /* when the kernel took messages again, after it had not */
    uint64_t begun_ns;   /* when the connection was, or was due to be, begun */
    struct frame_parser parser;
    struct bench_mqtt mqtt;
    struct bench_reader reader;
    uint8_t *out; /* what the kernel did not take: NULL, or out_bytes from out_off on */
    size_t out_off;
    size_t out_bytes;
    char key[HANDSHAKE_KEY_BYTES]; /* CONNECTING and OPENING: what the server has to answer */
    char *answer;                  /* the server's, until it is whole */
    size_t answer_bytes;
    uint8_t rest[FRAME_REST_MAX_BYTES];
};

struct bench_loop;

/* What a client tells its thread. */
struct bench_client_handlers {
    void (*opened)(struct bench_loop *loop, struct bench_client *client);
    void (*message)(struct bench_loop *loop, struct bench_client *client,
                    enum bench_verdict verdict);
    void (*closed)(struct bench_loop *loop, struct bench_client *client,
                   enum bench_client_state was, const char *why);
};

/* What all connections have in common. */
struct bench_wire {
    struct sockaddr_storage address;
    socklen_t address_bytes;
    bool
        many_sources; /* the server is at 127.0.0.0/8: clients may come from any of its addresses */
    bool binary;
    bool mqtt;           /* messages are what MQTT carries, and not the WebSocket's */
    size_t size_bytes;   /* of a message */
    const char *request; /* the opening handshake, but for the key */
    size_t request_bytes;
    size_t key_off;
};

/* What the clients of one thread share. */
struct bench_loop {
    int epoll;
    const struct bench_wire *wire;
    const struct bench_client_handlers *handlers;
    uint8_t *in;
    uint8_t *out;    /* frames are put together here; room for bench_loop_out_bytes() */
    uint64_t now_ns; /* CLOCK_MONOTONIC, when the last recv returned */
    uint64_t received_bytes;
    uint32_t dice;   /* for masking keys */
    uint32_t source; /* connections come from 127.0.0.1 + so many; 0: as the kernel chooses */
};

const char *bench_client_state_name(enum bench_client_state state);

/* 0 or -errno. `seed` makes the masking keys of loops differ. */
int bench_loop_init(struct bench_loop *loop, const struct bench_wire *wire,
                    const struct bench_client_handlers *handlers, uint32_t seed);
void bench_loop_fini(struct bench_loop *loop);

uint64_t bench_loop_clock_ns(void);

/* Begins a connection. 0, or -errno and nothing has begun; -EADDRNOTAVAIL: no local port is left. */
int bench_client_connect(struct bench_loop *loop, struct bench_client *client);

/* 0 or -errno; `fd` stays the caller's. */
int bench_client_open_pipe(struct bench_loop *loop, struct bench_client *client, int fd);

void bench_client_event(struct bench_loop *loop, struct bench_client *client, uint32_t events);

/* Has the kernel not taken all yet? More is then queued behind the rest, and better not. */
static inline bool
bench_client_blocked(const struct bench_client *client)
{
    return client->out != NULL;
}

/* Puts messages at loop->out, one behind the other, until there is no room; then writes them. */
bool bench_client_room(const struct bench_loop *loop, size_t used);
size_t bench_client_put(struct bench_loop *loop, const struct bench_client *client, size_t used,
                        const struct bench_stamp *stamp);
void bench_client_write(struct bench_loop *loop, struct bench_client *client, const uint8_t *data,
                        size_t bytes);

/* Begins the closing handshake with 1000. */
void bench_client_close(struct bench_loop *loop, struct bench_client *client);

/* Ends it without a word, to the handlers neither. */
void bench_client_drop(struct bench_client *client);

#endif
