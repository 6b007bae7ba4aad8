/*
 * bench_ring.c: messages per second through the ring, from publishing processes to two readers.
 *
 * A message counts when both readers have read it. A publisher writes whole records, wakes sleepers
 * once per batch, and waits on its eventfd when there is no room. A reader looks at the slot and
 * the record's header, as a worker's sweep does before it hands the frame to the kernel ("header"),
 * or at every byte of the payload ("bytes"); it stores its cursor once per batch, and sleeps when
 * there is nothing. Configurations alternate, so that a noisy neighbour meets all of them.
 */
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shm/atomic.h"
#include "tests/lib/ring_rig.h"

enum {
    READERS = 2,
    PUBLISHERS_MAX = 2,
    MEMBERS = 1 + READERS + PUBLISHERS_MAX,
    PUBLISH_BATCH = 64,
    READ_BATCH = 256,
    ROUNDS = 7,
    ARENA_BYTES = 16 << 20,
    PAYLOAD_MAX = 1024,
};

static const struct setup {
    uint32_t payload_bytes;
    uint32_t publishers;
    bool bytes;
    uint64_t messages;
} setups[] = {
    {64, 1, false, 4000000},   {64, 2, false, 4000000}, {1024, 1, false, 1000000},
    {1024, 2, false, 1000000}, {64, 1, true, 4000000},  {1024, 1, true, 1000000},
};

enum { SETUPS = sizeof(setups) / sizeof(setups[0]) };

struct gate {
    uint32_t ready[MEMBERS];
    uint32_t open;
};

static struct ring_rig rig;
static struct gate *gate; /* in memory that all processes share */

static void
gate_pass(uint32_t member)
{
    atomic_store_release(&gate->ready[member], 1U);
    while (!atomic_load_acquire(&gate->open))
        sched_yield();
}

static void
publish_all(struct ring *ring, const struct setup *setup)
{
    static uint8_t payload[PAYLOAD_MAX];
    uint64_t size = record_size(setup->payload_bytes);
    uint64_t now = ring_rig_now_ns();
    struct record_shm *record;
    uint64_t seq;

    for (uint64_t i = 0; i < setup->messages / setup->publishers;) {
        if (ring_reserve(ring, size, &record) == 0) {
            record_write(record, 2, payload, setup->payload_bytes, 0, RECORD_NO_ORIGIN, now);
            if (ring_commit(ring, record, &seq) == 0) {
                if (++i % PUBLISH_BATCH == 0) {
                    ring_flush(ring);
                    now = ring_rig_now_ns();
                }
                continue;
            }
        }
        RING_RIG_REQUIRE(ring_rig_await(rig.wake_fds[ring->self]));
    }
    ring_flush(ring);
}

static uint64_t
sum_bytes(const struct record_shm *record)
{
    const uint8_t *frame = record_frame(record);
    uint64_t sum = 0;
    uint64_t word;

    for (uint32_t at = 0; at + 8 <= record->frame_bytes; at += 8) {
        memcpy(&word, frame + at, sizeof(word));
        sum += word;
    }
    return sum;
}

static uint64_t
read_all(struct ring *ring, const struct setup *setup)
{
    uint64_t end = RING_FIRST_SEQ + setup->messages;
    uint64_t seq = RING_FIRST_SEQ;
    uint64_t sum = 0;

    while (seq != end) {
        const struct record_shm *record;
        uint64_t begin = seq;

        while (seq - begin < READ_BATCH && ring_read(ring, seq, &record) == 1) {
            sum += setup->bytes ? sum_bytes(record) : record->frame_bytes;
            seq++;
        }
        if (seq != begin) {
            ring_cursor_store(ring, seq);
            continue;
        }
        if (ring_sleep_begin(ring, seq))
            RING_RIG_REQUIRE(ring_rig_await(rig.wake_fds[ring->self]));
        ring_sleep_end(ring);
    }
    return sum;
}

static void
child(uint32_t member, const struct setup *setup)
{
    struct ring ring;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    RING_RIG_REQUIRE(ring_open(&ring, &rig.segment, member, rig.wake_fds) == 0);
    if (member <= READERS)
        RING_RIG_REQUIRE(ring_join(&ring) == RING_FIRST_SEQ);
    gate_pass(member);
    if (member > READERS)
        publish_all(&ring, setup);
    else if (read_all(&ring, setup) == 0)
        _exit(1);
    _exit(0);
}

/* Millions of messages per second. */
static double
run(const struct setup *setup)
{
    uint32_t last = READERS + setup->publishers;
    uint64_t begin;

    memset(gate, 0, sizeof(*gate));
    ring_rig_open(&rig, MEMBERS, 0, ARENA_BYTES);
    for (uint32_t i = 1; i <= last; i++) {
        pid_t pid = fork();
        RING_RIG_REQUIRE(pid >= 0);
        if (pid == 0)
            child(i, setup);
    }
    for (uint32_t i = 1; i <= last; i++) {
        while (!atomic_load_acquire(&gate->ready[i]))
            sched_yield();
    }
    begin = ring_rig_now_ns();
    atomic_store_release(&gate->open, 1U);
    for (uint32_t i = 1; i <= last; i++) {
        int status = 0;
        RING_RIG_REQUIRE(wait(&status) > 0 && status == 0);
    }
    begin = ring_rig_now_ns() - begin;
    ring_rig_close(&rig);
    return (double)setup->messages * 1e3 / (double)begin;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

int
main(void)
{
    double rates[SETUPS][ROUNDS];

    gate = mmap(NULL, sizeof(*gate), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    RING_RIG_REQUIRE(gate != MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < SETUPS; i++)
            rates[i][round] = run(&setups[i]);
    }
    printf("ring: million messages per second, %d readers, %ld CPUs, %d rounds\n", READERS,
           sysconf(_SC_NPROCESSORS_ONLN), ROUNDS);
    printf("  payload  publishers  reads   %8s %8s %8s\n", "min", "median", "max");
    for (size_t i = 0; i < SETUPS; i++) {
        qsort(rates[i], ROUNDS, sizeof(rates[i][0]), compare);
        printf("  %5u B  %10u  %-6s  %8.2f %8.2f %8.2f\n", setups[i].payload_bytes,
               setups[i].publishers, setups[i].bytes ? "bytes" : "header", rates[i][0],
               rates[i][ROUNDS / 2], rates[i][ROUNDS - 1]);
    }
    return 0;
}
