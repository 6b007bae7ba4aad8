/*
 * ring_duel.c: two processes on one ring, in which every single wake-up counts.
 *
 * Neither can be woken by a third process, so that a wake-up that is lost once, in the few
 * nanoseconds in which one goes to sleep while the other publishes (W1, W2 in wake.h) or makes room
 * (N1, N2), is found: both then wait for ever, which the deadline of the wait tells.
 */
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shm/atomic.h"
#include "shm/testpoint.h"
#include "tests/lib/ring_rig.h"

enum {
    DUEL_A = 1,
    DUEL_B,
    DUEL_MEMBERS,
    DUEL_SPINS = 800,
    SLOT_BITS = 6,
    ARENA_BYTES = 8192,
    PAYLOAD_MAX = ARENA_BYTES / ARENA_RECORDS_MIN - RECORD_HEAD_BYTES - 4,
};

static struct ring_rig rig;

static void
duel_spin(uint64_t *random)
{
    for (uint64_t spins = ring_rig_random(random) % DUEL_SPINS; spins > 0; spins--)
        atomic_pause();
}

#ifdef CRIER_TESTPOINTS
static void
duel_linger(enum testpoint point)
{
    static uint64_t random;

    (void)point;
    if (ring_rig_random(&random) % 4 == 0)
        duel_spin(&random);
}

void (*testpoint_hook)(enum testpoint point) = duel_linger;
#endif

static void
duel_publish(struct ring *ring, uint64_t bytes)
{
    static uint8_t payload[PAYLOAD_MAX];
    struct record_shm *record;
    uint64_t seq;

    while (ring_reserve(ring, record_size(bytes), &record) != 0)
        REQUIRE(ring_rig_await(rig.wake_fds[ring->self])); /* or a wake-up was lost */
    bytes = record_write(record, 2, payload, bytes, 0, RECORD_NO_ORIGIN, 0, NULL);
    REQUIRE(ring_commit(ring, record, bytes, &seq) == 0); /* records fill arenas, not slots */
}

static void
duel_read(struct ring *ring, uint64_t seq, uint64_t *random)
{
    struct record_ref record;

    for (uint64_t tries = ring_rig_random(random) % DUEL_SPINS; tries > 0; tries--) {
        if (ring_read(ring, seq, &record) == 1)
            return;
    }
    while (ring_read(ring, seq, &record) != 1) { /* a woken reader may find nothing */
        duel_spin(random);
        if (ring_sleep_begin(ring, seq))
            REQUIRE(ring_rig_await(rig.wake_fds[ring->self])); /* or one was lost */
        ring_sleep_end(ring);
    }
}

/* Each publishes when it has read what the other published: it is on its way to sleep just then. */
static void
duel_in_turns(struct ring *ring, uint64_t turns, uint64_t *random)
{
    for (uint64_t seq = RING_FIRST_SEQ; seq < RING_FIRST_SEQ + turns; seq++) {
        if (seq % 2 == ring->self - DUEL_A) {
            duel_publish(ring, 8);
            ring_flush(ring);
        }
        duel_read(ring, seq, random);
        ring_cursor_store(ring, seq + 1);
    }
}

/* One fills its arena all the time while the other makes room, a record at a time. */
static void
duel_for_room(struct ring *ring, uint64_t turns, uint64_t *random)
{
    for (uint64_t seq = RING_FIRST_SEQ; seq < RING_FIRST_SEQ + turns; seq++) {
        if (ring->self == DUEL_A) {
            duel_publish(ring, PAYLOAD_MAX);
            ring_flush(ring);
            continue;
        }
        duel_read(ring, seq, random);
        duel_spin(random);
        ring_cursor_store(ring, seq + 1);
    }
}

/* On one CPU the two would never run at the same time: each woken by the other, they stay together.
 */
static void
duel_pin(uint32_t member)
{
    cpu_set_t allowed;
    cpu_set_t own;
    uint32_t left = member - DUEL_A;

    REQUIRE(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || left-- > 0)
            continue;
        CPU_ZERO(&own);
        CPU_SET(cpu, &own);
        REQUIRE(sched_setaffinity(0, sizeof(own), &own) == 0);
        return;
    }
}

static void
duel_child(uint32_t member, bool for_room, uint64_t turns)
{
    struct ring ring;
    uint64_t random = ring_rig_now_ns() + member;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    duel_pin(member);
    REQUIRE(ring_open(&ring, &rig.segment, member, rig.wake_fds) == 0);
    if (for_room)
        duel_for_room(&ring, turns, &random);
    else
        duel_in_turns(&ring, turns, &random);
    _exit(0);
}

static void
duel(bool for_room, uint64_t turns)
{
    ring_rig_open(&rig, DUEL_MEMBERS, SLOT_BITS, ARENA_BYTES);
    for (uint32_t i = DUEL_A; i <= DUEL_B; i++) {
        if (i == DUEL_B || !for_room)
            rig.segment.members[i].cursor = RING_FIRST_SEQ; /* both are there from the start */
    }
    fflush(stdout);
    for (uint32_t i = DUEL_A; i <= DUEL_B; i++) {
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
            duel_child(i, for_room, turns);
    }
    for (uint32_t i = DUEL_A; i <= DUEL_B; i++) {
        int status = 0;
        REQUIRE(wait(&status) > 0 && status == 0);
    }
    printf("duel %s: %" PRIu64 " turns, %" PRIu64 " wake-ups\n", for_room ? "for room" : "in turns",
           turns,
           rig.segment.members[DUEL_A].counters[COUNTER_wakeups] +
               rig.segment.members[DUEL_B].counters[COUNTER_wakeups]);
    ring_rig_close(&rig);
}

int
main(void)
{
#ifdef __SANITIZE_THREAD__
    uint64_t turns = 20000;
#else
    uint64_t turns = getenv("CRIER_LONG") ? 5000000 : 100000;
#endif

    duel(false, turns);
    duel(true, turns);
    return 0;
}
