/*
 * bus_peers.h: the alternatives to the ring, each as fast as we know how to use it.
 *
 *   pipe       One pipe per publisher and reader: at no size are writes mixed, without locks. A
 *              reader takes up to 64 KiB at a time (a whole number of messages, so that none has to
 *              be moved), by epoll when it has several pipes.
 *   seqpacket  One pair of sockets per reader, which all publishers share: messages stay whole. A
 *              reader takes up to a batch with one recvmmsg.
 *   mutex      A byte ring in shared memory, read in place. One process-shared mutex covers the
 *              positions, another puts publishers in order while they copy what is larger than
 *              BUS_MUTEX_SMALL_BYTES; smaller copies are made under the first. Readers take it once
 *              for all that they read at a time. Two condition variables, once per batch, and only
 *              if a process waits; a publisher without room waits for an eighth of it. Not robust: a
 *              process that dies in there stops all others, for ever.
 *   bare       A message in shared memory, a word that says so, and an eventfd in epoll: the least
 *              that wakes another process. For one message at a time only.
 *
 * A publisher hands over each message by itself: with a write per pipe, a send per socket, under a
 * lock. Or it gathers a batch first, and no reader sees a message of it before all are there: one
 * write, one sendmmsg, one lock for all. Pipes and sockets give readers no common order of several
 * publishers' messages; ring and mutex do.
 */
#ifndef CRIER_TESTS_BENCH_BUS_PEERS_H
#define CRIER_TESTS_BENCH_BUS_PEERS_H

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "shm/atomic.h"
#include "tests/bench/bus.h"

/* What is asked for pipes and sockets: the most that a pipe gives without privileges. */
enum { BUS_KERNEL_BYTES = 1 << 20, BUS_MUTEX_SMALL_BYTES = 4096 };

/* --- pipe --- */

struct bus_pipe_input {
    uint8_t *bytes;
    uint32_t used;
    uint32_t parsed;
};

struct bus_pipe {
    int in[BUS_READERS_MAX][BUS_PUBLISHERS_MAX]; /* the readers' ends */
    int out[BUS_READERS_MAX][BUS_PUBLISHERS_MAX];
    int epoll;
    uint32_t stride_bytes;
    uint32_t room_bytes; /* of an input: a multiple of the stride */
    struct bus_pipe_input inputs[BUS_PUBLISHERS_MAX];
};

static inline void
bus_pipe_create(struct bus *bus, uint64_t room_bytes)
{
    (void)room_bytes;
    bus->own = calloc(1, sizeof(struct bus_pipe));
    REQUIRE(bus->own);
}

static inline void
bus_pipe_begin(struct bus *bus)
{
    struct bus_pipe *own = bus->own;

    for (uint32_t r = 0; r < bus->load.readers; r++) {
        for (uint32_t p = 0; p < bus->load.publishers; p++) {
            int ends[2];

            REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
            (void)fcntl(ends[1], F_SETPIPE_SZ, BUS_KERNEL_BYTES);
            own->in[r][p] = ends[0];
            own->out[r][p] = ends[1];
        }
    }
}

static inline void
bus_pipe_end(struct bus *bus)
{
    struct bus_pipe *own = bus->own;

    for (uint32_t r = 0; r < bus->load.readers; r++) {
        for (uint32_t p = 0; p < bus->load.publishers; p++) {
            close(own->in[r][p]);
            close(own->out[r][p]);
        }
    }
}

static inline void
bus_pipe_attach(struct bus *bus, bool reader)
{
    struct bus_pipe *own = bus->own;
    uint32_t count;

    own->stride_bytes = BUS_LENGTH_BYTES + bus->load.payload_bytes;
    count = BUS_READ_BYTES / own->stride_bytes;
    own->room_bytes = own->stride_bytes * (count ? count : 1);
    if (!reader)
        return;
    own->epoll = bus_epoll(own->in[bus->self], bus->load.publishers);
    for (uint32_t p = 0; p < bus->load.publishers; p++) {
        own->inputs[p] = (struct bus_pipe_input){.bytes = malloc(own->room_bytes)};
        REQUIRE(own->inputs[p].bytes);
    }
}

static inline void
bus_pipe_write(int fd, const uint8_t *bytes, size_t count)
{
    while (count > 0) {
        ssize_t rc = write(fd, bytes, count);
        REQUIRE(rc > 0);
        bytes += rc;
        count -= (size_t)rc;
    }
}

static inline void
bus_pipe_publish(struct bus *bus, const struct bus_batch *batch)
{
    const struct bus_pipe *own = bus->own;
    uint32_t step = bus->gather ? batch->count : 1;

    for (uint32_t i = 0; i < batch->count; i += step) {
        for (uint32_t r = 0; r < bus->load.readers; r++)
            bus_pipe_write(own->out[r][bus->self], bus_batch_look(batch, i) - BUS_LENGTH_BYTES,
                           (size_t)step * batch->stride_bytes);
    }
}

static inline void
bus_pipe_take(struct bus *bus, uint32_t publisher, struct bus_tally *tally)
{
    struct bus_pipe *own = bus->own;
    struct bus_pipe_input *input = &own->inputs[publisher];
    ssize_t rc = read(own->in[bus->self][publisher], input->bytes + input->used,
                      own->room_bytes - input->used);

    REQUIRE(rc > 0);
    input->used += (uint32_t)rc;
    while (input->used - input->parsed >= own->stride_bytes) {
        const uint8_t *message = input->bytes + input->parsed;

        REQUIRE(bus_word(message) == bus->load.payload_bytes);
        bus_tally_add(tally, message + BUS_LENGTH_BYTES, bus->load.payload_bytes);
        input->parsed += own->stride_bytes;
    }
    if (input->parsed == input->used)
        input->parsed = input->used = 0;
}

static inline void
bus_pipe_read(struct bus *bus, struct bus_tally *tally)
{
    const struct bus_pipe *own = bus->own;
    struct epoll_event events[BUS_PUBLISHERS_MAX];
    int count;

    if (bus->load.publishers == 1) {
        bus_pipe_take(bus, 0, tally);
        return;
    }
    count = epoll_wait(own->epoll, events, BUS_PUBLISHERS_MAX, RING_RIG_DEADLINE_MS);
    REQUIRE(count > 0);
    for (int i = 0; i < count; i++)
        bus_pipe_take(bus, events[i].data.u32, tally);
}

static inline const struct bus_kind *
bus_pipe_kind(void)
{
    static const struct bus_kind kind = {
        .name = "pipe",
        .create = bus_pipe_create,
        .begin = bus_pipe_begin,
        .end = bus_pipe_end,
        .attach = bus_pipe_attach,
        .publish = bus_pipe_publish,
        .read = bus_pipe_read,
    };
    return &kind;
}

/* --- SOCK_SEQPACKET --- */

struct bus_seqpacket {
    int pairs[BUS_READERS_MAX][2]; /* in, out */
    uint8_t *bytes;
    struct iovec iov[BUS_BATCH_MESSAGES];
    struct mmsghdr headers[BUS_BATCH_MESSAGES];
    uint32_t batch_count;
};

static inline void
bus_seqpacket_create(struct bus *bus, uint64_t room_bytes)
{
    (void)room_bytes;
    bus->own = calloc(1, sizeof(struct bus_seqpacket));
    REQUIRE(bus->own);
}

static inline void
bus_seqpacket_begin(struct bus *bus)
{
    struct bus_seqpacket *own = bus->own;
    int bytes = BUS_KERNEL_BYTES;

    for (uint32_t r = 0; r < bus->load.readers; r++) {
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, own->pairs[r]) == 0);
        (void)setsockopt(own->pairs[r][1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
}

static inline void
bus_seqpacket_end(struct bus *bus)
{
    struct bus_seqpacket *own = bus->own;

    for (uint32_t r = 0; r < bus->load.readers; r++) {
        close(own->pairs[r][0]);
        close(own->pairs[r][1]);
    }
}

static inline void
bus_seqpacket_attach(struct bus *bus, bool reader)
{
    struct bus_seqpacket *own = bus->own;
    uint32_t payload_bytes = bus->load.payload_bytes;

    own->batch_count = bus_batch_count(payload_bytes);
    if (reader) {
        own->bytes = malloc((size_t)payload_bytes * own->batch_count);
        REQUIRE(own->bytes);
    }
    for (uint32_t i = 0; i < own->batch_count; i++) {
        own->iov[i] = (struct iovec){
            .iov_base = reader ? own->bytes + (size_t)i * payload_bytes : NULL,
            .iov_len = payload_bytes,
        };
        own->headers[i].msg_hdr = (struct msghdr){.msg_iov = &own->iov[i], .msg_iovlen = 1};
    }
}

static inline void
bus_seqpacket_send(struct bus *bus, uint32_t reader, uint32_t first, uint32_t count)
{
    struct bus_seqpacket *own = bus->own;
    int fd = own->pairs[reader][1];

    while (count > 0) {
        int rc = sendmmsg(fd, own->headers + first, count, 0);
        REQUIRE(rc > 0);
        first += (uint32_t)rc;
        count -= (uint32_t)rc;
    }
}

static inline void
bus_seqpacket_publish(struct bus *bus, const struct bus_batch *batch)
{
    struct bus_seqpacket *own = bus->own;
    uint32_t step = bus->gather ? batch->count : 1;

    for (uint32_t i = 0; i < batch->count; i++)
        own->iov[i].iov_base = (void *)(uintptr_t)bus_batch_look(batch, i);
    for (uint32_t i = 0; i < batch->count; i += step) {
        for (uint32_t r = 0; r < bus->load.readers; r++)
            bus_seqpacket_send(bus, r, i, step);
    }
}

static inline void
bus_seqpacket_read(struct bus *bus, struct bus_tally *tally)
{
    struct bus_seqpacket *own = bus->own;
    int count =
        recvmmsg(own->pairs[bus->self][0], own->headers, own->batch_count, MSG_WAITFORONE, NULL);

    REQUIRE(count > 0);
    for (int i = 0; i < count; i++) {
        REQUIRE(own->headers[i].msg_len == bus->load.payload_bytes);
        bus_tally_add(tally, own->iov[i].iov_base, bus->load.payload_bytes);
    }
}

static inline const struct bus_kind *
bus_seqpacket_kind(void)
{
    static const struct bus_kind kind = {
        .name = "seqpacket",
        .create = bus_seqpacket_create,
        .begin = bus_seqpacket_begin,
        .end = bus_seqpacket_end,
        .attach = bus_seqpacket_attach,
        .publish = bus_seqpacket_publish,
        .read = bus_seqpacket_read,
    };
    return &kind;
}

/* --- mutex --- */

/* Positions only grow, as in arena.h; no batch wraps. */
struct bus_mutex_shm {
    pthread_mutex_t order;                 /* held by the publisher that copies */
    pthread_mutex_t state LAYOUT_OWN_LINE; /* covers all below */
    pthread_cond_t data;
    pthread_cond_t room;
    uint64_t head;
    uint64_t cursors[BUS_READERS_MAX];
    uint32_t readers_waiting;
    uint32_t publishers_waiting;
    uint8_t bytes[] LAYOUT_OWN_LINE;
};

struct bus_mutex {
    struct bus_mutex_shm *shm;
    uint64_t room_bytes;
    uint64_t read; /* a reader's cursor, not yet stored */
    bool large;    /* in this run; a small copy in between would go where another process copies */
};

static inline void
bus_mutex_create(struct bus *bus, uint64_t room_bytes)
{
    struct bus_mutex *own = calloc(1, sizeof(*own));

    REQUIRE(own);
    own->room_bytes = room_bytes;
    own->shm = bus_map_shared(sizeof(*own->shm) + room_bytes);
    bus->own = own;
}

static inline void
bus_mutex_begin(struct bus *bus)
{
    struct bus_mutex_shm *shm = ((struct bus_mutex *)bus->own)->shm;
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;

    memset(shm, 0, sizeof(*shm));
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_condattr_init(&cond);
    pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
    REQUIRE(pthread_mutex_init(&shm->order, &mutex) == 0 &&
            pthread_mutex_init(&shm->state, &mutex) == 0 &&
            pthread_cond_init(&shm->data, &cond) == 0 && pthread_cond_init(&shm->room, &cond) == 0);
}

/* Its processes are gone; what they left in the condition variables would block a destroy. */
static inline void
bus_mutex_end(struct bus *bus)
{
    (void)bus;
}

static inline void
bus_mutex_attach(struct bus *bus, bool reader)
{
    struct bus_mutex *own = bus->own;
    uint32_t messages = bus->gather ? bus_batch_count(bus->load.payload_bytes) : 1;

    (void)reader;
    own->large = messages * bus->load.payload_bytes > BUS_MUTEX_SMALL_BYTES;
    bus_touch_pages(own->shm->bytes, own->room_bytes);
}

static inline uint64_t
bus_mutex_free(const struct bus *bus)
{
    const struct bus_mutex *own = bus->own;
    uint64_t min = own->shm->head;

    for (uint32_t r = 0; r < bus->load.readers; r++) {
        if (own->shm->cursors[r] < min)
            min = own->shm->cursors[r];
    }
    return own->room_bytes - (own->shm->head - min);
}

/* Before a publisher waits, and at the end of its batch; with `state`. */
static inline void
bus_mutex_wake_readers(struct bus_mutex_shm *shm)
{
    if (shm->readers_waiting > 0)
        pthread_cond_broadcast(&shm->data);
}

/* Where `bytes` go; with `state`. A length of 0 sends readers to the start. */
static inline uint64_t
bus_mutex_reserve(struct bus *bus, uint64_t bytes)
{
    struct bus_mutex *own = bus->own;
    struct bus_mutex_shm *shm = own->shm;
    uint64_t left;
    uint64_t gap;

    for (;;) {
        left = own->room_bytes - shm->head % own->room_bytes;
        gap = bytes <= left ? 0 : left;
        if (bus_mutex_free(bus) >= gap + bytes)
            break;
        bus_mutex_wake_readers(shm);
        shm->publishers_waiting++;
        pthread_cond_wait(&shm->room, &shm->state);
        shm->publishers_waiting--;
    }
    if (gap)
        memset(shm->bytes + shm->head % own->room_bytes, 0, BUS_LENGTH_BYTES);
    return shm->head + gap;
}

static inline void
bus_mutex_copy(struct bus *bus, const uint8_t *from, uint64_t bytes, bool wake)
{
    struct bus_mutex *own = bus->own;
    struct bus_mutex_shm *shm = own->shm;
    uint64_t place;

    if (own->large)
        pthread_mutex_lock(&shm->order);
    pthread_mutex_lock(&shm->state);
    place = bus_mutex_reserve(bus, bytes);
    if (own->large)
        pthread_mutex_unlock(&shm->state);
    memcpy(shm->bytes + place % own->room_bytes, from, bytes);
    if (own->large)
        pthread_mutex_lock(&shm->state);
    shm->head = place + bytes;
    if (wake)
        bus_mutex_wake_readers(shm);
    pthread_mutex_unlock(&shm->state);
    if (own->large)
        pthread_mutex_unlock(&shm->order);
}

static inline void
bus_mutex_publish(struct bus *bus, const struct bus_batch *batch)
{
    uint32_t step = bus->gather ? batch->count : 1;

    for (uint32_t i = 0; i < batch->count; i += step)
        bus_mutex_copy(bus, bus_batch_look(batch, i) - BUS_LENGTH_BYTES,
                       (uint64_t)step * batch->stride_bytes, i + step == batch->count);
}

/* Stores the cursor, waits for what is behind it; returns where that ends. */
static inline uint64_t
bus_mutex_take(struct bus *bus)
{
    struct bus_mutex *own = bus->own;
    struct bus_mutex_shm *shm = own->shm;
    uint64_t head;
    bool wake;

    pthread_mutex_lock(&shm->state);
    shm->cursors[bus->self] = own->read;
    wake = shm->publishers_waiting > 0 && bus_mutex_free(bus) >= own->room_bytes / 8;
    if (wake)
        pthread_cond_broadcast(&shm->room);
    while (shm->head == own->read) {
        shm->readers_waiting++;
        pthread_cond_wait(&shm->data, &shm->state);
        shm->readers_waiting--;
    }
    head = shm->head;
    pthread_mutex_unlock(&shm->state);
    return head;
}

static inline void
bus_mutex_read(struct bus *bus, struct bus_tally *tally)
{
    struct bus_mutex *own = bus->own;
    uint64_t end = bus_mutex_take(bus);
    uint64_t begin = own->read;

    for (int i = 0; i < BUS_READ_MESSAGES && own->read - begin < BUS_READ_BYTES; i++) {
        uint64_t at = own->read % own->room_bytes;
        uint64_t bytes;

        if (own->read == end)
            break;
        bytes = bus_word(own->shm->bytes + at);
        if (bytes == 0) {
            own->read += own->room_bytes - at;
            continue;
        }
        bus_tally_add(tally, own->shm->bytes + at + BUS_LENGTH_BYTES, (uint32_t)bytes);
        own->read += BUS_LENGTH_BYTES + bytes;
    }
}

static inline const struct bus_kind *
bus_mutex_kind(void)
{
    static const struct bus_kind kind = {
        .name = "mutex",
        .create = bus_mutex_create,
        .begin = bus_mutex_begin,
        .end = bus_mutex_end,
        .attach = bus_mutex_attach,
        .publish = bus_mutex_publish,
        .read = bus_mutex_read,
    };
    return &kind;
}

/* --- bare --- */

struct bus_bare_shm {
    uint64_t number LAYOUT_OWN_LINE;
    uint8_t payload[BUS_PAYLOAD_MAX_BYTES] LAYOUT_OWN_LINE;
};

struct bus_bare {
    struct bus_bare_shm *shm;
    uint64_t number;
    int eventfd;
    int epoll;
};

static inline void
bus_bare_create(struct bus *bus, uint64_t room_bytes)
{
    struct bus_bare *own = calloc(1, sizeof(*own));

    (void)room_bytes;
    REQUIRE(own);
    own->shm = bus_map_shared(sizeof(*own->shm));
    own->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bus->own = own;
}

static inline void
bus_bare_begin(struct bus *bus)
{
    struct bus_bare *own = bus->own;

    own->shm->number = 0;
    own->number = 0;
    (void)ring_rig_woken(own->eventfd);
}

static inline void
bus_bare_end(struct bus *bus)
{
    (void)bus;
}

static inline void
bus_bare_attach(struct bus *bus, bool reader)
{
    struct bus_bare *own = bus->own;

    (void)reader;
    own->epoll = bus_epoll(&own->eventfd, 1);
    bus_touch_pages(own->shm, sizeof(*own->shm));
}

static inline void
bus_bare_publish(struct bus *bus, const struct bus_batch *batch)
{
    struct bus_bare *own = bus->own;
    uint64_t one = 1;

    memcpy(own->shm->payload, bus_batch_look(batch, 0), batch->payload_bytes);
    atomic_store_release(&own->shm->number, ++own->number);
    if (!bus->awake)
        REQUIRE(write(own->eventfd, &one, sizeof(one)) == sizeof(one));
}

static inline void
bus_bare_read(struct bus *bus, struct bus_tally *tally)
{
    struct bus_bare *own = bus->own;

    if (!bus->awake)
        bus_await(own->epoll, own->eventfd);
    if (atomic_load_acquire(&own->shm->number) == own->number) {
        atomic_pause();
        return;
    }
    own->number++;
    bus_tally_add(tally, own->shm->payload, bus->load.payload_bytes);
}

static inline const struct bus_kind *
bus_bare_kind(void)
{
    static const struct bus_kind kind = {
        .name = "bare",
        .create = bus_bare_create,
        .begin = bus_bare_begin,
        .end = bus_bare_end,
        .attach = bus_bare_attach,
        .publish = bus_bare_publish,
        .read = bus_bare_read,
    };
    return &kind;
}

#endif
