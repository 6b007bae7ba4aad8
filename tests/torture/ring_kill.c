/*
 * ring_kill.c: a process is killed at every instruction of a publication, a drain, an attach, a
 * retirement, and the others go on.
 *
 * The victim is stepped with ptrace. For each k it is a fresh process on a fresh segment that is
 * killed with SIGKILL before its k-th instruction in shm/; a call into libc or the kernel is one
 * step. Then the survivors, which map the same segment, do all they can do: publish and read before
 * the death is noticed, retire the dead, run ring_check(), read everything, go round the ring and
 * the arenas, and give the place to a successor. The victim's message is everywhere or nowhere, and
 * once it is visible at step k it is visible at all later steps.
 *
 * A run that is longer than IMAGE_STEPS (sanitized builds) is stepped once, and an image of the
 * segment at each step takes the place of a fresh run.
 *
 *   ring_kill                 all scenarios
 *   ring_kill publish         one
 *   ring_kill publish 137     one kill of it; with 1024 behind it: of a message of 1 KiB
 *
 * With CRIER_LONG also for messages without payload and of 1 KiB.
 */
/* long: ten scenarios, and what must hold after each death */
#include <signal.h>
#include <sys/mman.h>

#include "shm/atomic.h"
#include "tests/lib/ring_rig.h"
#include "tests/lib/stepper.h"

enum {
    MASTER,
    READER,
    READER2,
    OTHER, /* publishes */
    VICTIM,
    MEMBERS,
    FEW = 4, /* bits: fewer slots than an arena has room for messages */
    MANY = 6,
    ARENA_MAX_BYTES = 40960,
    PAYLOAD_MAX_BYTES = 1024,
    PAYLOAD_BYTES = 64,
    SEEN_MAX = 512,
    IMAGE_STEPS = 3000,
};

static struct ring_rig rig;
static struct ring rings[MEMBERS];
static uint64_t cursors[MEMBERS]; /* READER and READER2 */
static uint64_t arena_bytes;      /* at least 36 messages of payload_bytes */
static uint32_t payload_bytes;
static uint64_t published; /* by the survivors: their numbers are 1, 2, 3 ... */

/* The victim's, in memory that both see. */
struct report {
    uint32_t done; /* what it did has returned */
    int32_t rc;
};

static struct report *report;

/* --- messages: a number, and bytes that follow from it --- */

#define VICTIMS_NUMBER UINT64_C(0x7c71)

static STEPPER_OWN_TEXT void
message_fill(uint8_t payload[PAYLOAD_MAX_BYTES], uint64_t number)
{
    for (unsigned i = 0; i < payload_bytes; i++)
        payload[i] = (uint8_t)(number >> i % 8 * 8) ^ (uint8_t)(i * (number + 3));
}

static uint64_t
message_number(const struct record_shm *record, const uint8_t *frame)
{
    uint8_t payload[PAYLOAD_MAX_BYTES];
    uint64_t number = record->origin;

    REQUIRE(record->frame_bytes == record->frame_head_bytes + payload_bytes);
    message_fill(payload, number);
    REQUIRE(memcmp(frame + record->frame_head_bytes, payload, payload_bytes) == 0);
    return number;
}

static STEPPER_OWN_TEXT int
publish(struct ring *ring, uint64_t number)
{
    uint8_t payload[PAYLOAD_MAX_BYTES];
    uint64_t seq;

    message_fill(payload, number);
    return ring_publish(ring, RECORD_BINARY, payload, payload_bytes, 0, number, &seq);
}

/* --- survivors --- */

static void
open_member(uint32_t member)
{
    REQUIRE(ring_open(&rings[member], &rig.segment, member, rig.wake_fds) == 0);
}

static void
join(uint32_t member)
{
    cursors[member] = ring_join(&rings[member]);
}

static int
publish_other(void)
{
    int rc = publish(&rings[OTHER], published + 1);

    published += rc == 0;
    return rc;
}

static void
store_cursor(uint32_t member, uint64_t seq)
{
    cursors[member] = seq;
    ring_cursor_store(&rings[member], seq);
}

/* --- scenarios: what is there before, and what the victim does --- */

static void
nothing_before(void)
{
}

/* Another reader sleeps, and one is awake. */
static void
readers_join(void)
{
    join(READER);
    join(READER2);
    REQUIRE(ring_sleep_begin(&rings[READER], cursors[READER]));
}

static void
some_are_published(void)
{
    readers_join();
    for (unsigned i = 0; i < 3; i++)
        REQUIRE(publish_other() == 0);
}

/* As another publisher's death between P1 and P2 leaves it. */
static void
tail_is_behind(void)
{
    readers_join();
    REQUIRE(publish_other() == 0);
    atomic_store_release(&rig.segment.head->tail, ring_tail(&rings[MASTER]) - 1);
}

static void
ring_is_full(void)
{
    readers_join();
    while (publish_other() == 0)
        ;
}

/* Only the victim holds the publisher back. */
static void
publisher_waits_for_the_victim(void)
{
    readers_join();
    while (publish_other() == 0)
        ;
    store_cursor(READER, ring_tail(&rings[MASTER]));
    store_cursor(READER2, ring_tail(&rings[MASTER]));
    REQUIRE(publish_other() == -EAGAIN);
    REQUIRE(rig.segment.members[OTHER].need_seq != 0);
    ring_rig_woken(rig.wake_fds[OTHER]);
}

static void
starving_is_left_behind(void)
{
    readers_join();
    rig.segment.head->starving = 1;
}

/* A predecessor that has died with records in its arena and readers that still need them. */
static void
predecessor_has_died(void)
{
    readers_join();
    open_member(VICTIM);
    for (unsigned i = 0; i < 5; i++) {
        REQUIRE(publish(&rings[VICTIM], published + 1) == 0);
        published++;
        REQUIRE(publish_other() == 0);
    }
    ring_retire(&rings[MASTER], VICTIM);
}

/* READER2 has died while it slept, held the ring full, waited for room and had published. */
static void
somebody_has_died(void)
{
    join(READER);
    join(READER2);
    while (publish(&rings[READER2], published + 1) == 0)
        published++;
    rig.segment.members[READER2].sleeping = 1;
    atomic_store_release(&rig.segment.head->tail, ring_tail(&rings[OTHER]) - 1);
}

static struct ring victim; /* the victim's handle */

static void
open_victim(void)
{
    REQUIRE(ring_open(&victim, &rig.segment, VICTIM, rig.wake_fds) == 0);
}

/* Its own arena has gone round, and no reader needs what is in it. */
static void
open_victim_and_fill_arena(void)
{
    open_victim();
    for (uint64_t i = 0; i < arena_bytes / record_size(payload_bytes); i++)
        REQUIRE(publish(&victim, VICTIMS_NUMBER + 1 + i) == 0);
}

static void
open_victim_and_join(void)
{
    open_victim();
    (void)ring_join(&victim);
}

static void
open_victim_as_master(void)
{
    REQUIRE(ring_open(&victim, &rig.segment, MASTER, rig.wake_fds) == 0);
}

static STEPPER_OWN_TEXT int
do_publish(void)
{
    int rc = publish(&victim, VICTIMS_NUMBER);

    ring_flush(&victim);
    return rc;
}

static STEPPER_OWN_TEXT int
do_drain(void)
{
    struct record_ref record;
    uint64_t seq = victim.members[VICTIM].cursor;

    if (ring_sleep_begin(&victim, seq))
        return -1;
    ring_sleep_end(&victim);
    while (ring_read(&victim, seq, &record) == 1)
        seq++;
    ring_cursor_store(&victim, seq);
    return ring_sleep_begin(&victim, seq) ? 0 : -1;
}

static STEPPER_OWN_TEXT int
do_attach(void)
{
    static struct segment segment;
    int rc = segment_attach(&segment, rig.fd, false);

    if (rc == 0)
        rc = ring_open(&victim, &segment, VICTIM, rig.wake_fds);
    if (rc == 0)
        (void)ring_join(&victim);
    return rc;
}

static STEPPER_OWN_TEXT int
do_leave(void)
{
    ring_leave(&victim);
    return 0;
}

static STEPPER_OWN_TEXT int
do_retire(void)
{
    ring_retire(&victim, READER2);
    return 0;
}

static STEPPER_OWN_TEXT int
do_read_history(void)
{
    static uint64_t room[ARENA_MAX_BYTES / ARENA_RECORDS_MIN / sizeof(uint64_t)];

    return ring_read_at(&victim, RING_FIRST_SEQ, (struct record_shm *)room, sizeof(room)) - 1;
}

static const struct scenario {
    const char *name;
    void (*open)(void);    /* the victim, before it is stepped */
    void (*arrange)(void); /* the survivors, after that */
    int (*act)(void);      /* the victim, stepped */
    int rc;                /* what `act` returns when it is not killed */
    uint32_t place;        /* the victim's */
    uint32_t slot_bits;
    bool visible; /* its message in the end */
} scenarios[] = {
    {"publish", open_victim, some_are_published, do_publish, 0, VICTIM, FEW, true},
    {"floor", open_victim_and_fill_arena, readers_join, do_publish, 0, VICTIM, MANY, true},
    {"help", open_victim, tail_is_behind, do_publish, 0, VICTIM, FEW, true},
    {"no-room", open_victim, ring_is_full, do_publish, -EAGAIN, VICTIM, FEW, false},
    {"drain", open_victim_and_join, publisher_waits_for_the_victim, do_drain, 0, VICTIM, FEW,
     false},
    {"nobody-waits", open_victim_and_join, starving_is_left_behind, do_leave, 0, VICTIM, FEW,
     false},
    {"leave", open_victim_and_join, publisher_waits_for_the_victim, do_leave, 0, VICTIM, FEW,
     false},
    {"attach", nothing_before, predecessor_has_died, do_attach, 0, VICTIM, FEW, false},
    {"retire", open_victim_as_master, somebody_has_died, do_retire, 0, MASTER, FEW, false},
    {"history", open_victim, some_are_published, do_read_history, 0, VICTIM, MANY, false},
};

enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

static const struct scenario *scenario;
static uint64_t step; /* of the kill that is being looked at */
static char how_again[80];

static void
set_step(uint64_t at)
{
    step = at;
    alarm(RING_RIG_DEADLINE_MS / 1000); /* one that spins instead of going on is found, too */
    snprintf(how_again, sizeof(how_again),
             "reproduce it with: ring_kill %s %" PRIu64 " %" PRIu32 "\n", scenario->name, at,
             payload_bytes);
}

/* --- after the death --- */

static uint64_t order[SEEN_MAX]; /* the number at each sequence, 0: not read */

/* Everything that a reader has not read yet. `seen` is what the other one saw. */
static uint64_t
read_all(uint32_t reader, uint64_t seen[SEEN_MAX])
{
    struct record_ref record;
    uint64_t count = 0;
    int rc;

    while ((rc = ring_read(&rings[reader], cursors[reader], &record)) == 1) {
        REQUIRE(count < SEEN_MAX && cursors[reader] < SEEN_MAX);
        seen[count] = message_number(&record.head, record.frame);
        order[cursors[reader]++] = seen[count++];
    }
    REQUIRE(rc == 0);
    ring_cursor_store(&rings[reader], cursors[reader]);
    return count;
}

static void
check_ring(struct ring *ring)
{
    char why[RING_WHY_BYTES];

    if (!ring_check(ring, why)) {
        fprintf(stderr, "%s\n", why);
        REQUIRE(!"the invariants");
    }
}

/* In both readers the survivors' numbers ascend without a gap up to `published`, and the victim's
 * message is nowhere, or in the same place. */
static bool
check_order(uint64_t first)
{
    static uint64_t seen[2][SEEN_MAX];
    uint64_t expected = first;
    uint64_t victims = 0;
    uint64_t count = read_all(READER, seen[0]);

    for (uint64_t i = 0; i < count; i++) {
        if (seen[0][i] == VICTIMS_NUMBER)
            victims++;
        else
            REQUIRE(seen[0][i] == expected++);
    }
    REQUIRE(expected == published + 1);
    REQUIRE(victims <= 1);
    if (scenario->place != MASTER) { /* there READER2 is dead */
        uint64_t count2 = read_all(READER2, seen[1]);
        uint64_t fewer = count2 < count ? count2 : count;
        REQUIRE(memcmp(seen[0] + count - fewer, seen[1] + count2 - fewer,
                       fewer * sizeof(seen[0][0])) == 0);
        REQUIRE(count2 == count);
    }
    return victims == 1;
}

/* Publishes as `member` and reads, until slots and arena have gone round. */
static void
go_round(struct ring *ring)
{
    uint64_t count = arena_bytes / record_size(payload_bytes) + 14;
    uint64_t begin = published + 1;

    for (uint64_t i = 0; i < count; i++) {
        int rc = publish(ring, published + 1);
        if (rc == -EAGAIN) {
            (void)check_order(begin);
            begin = published + 1;
            rc = publish(ring, published + 1);
        }
        REQUIRE(rc == 0);
        published++;
    }
    ring_flush(ring);
    (void)check_order(begin);
}

/* What no reader needs any more is whole and itself, or gone. */
static void
read_history(const struct ring *ring)
{
    static uint64_t room[ARENA_MAX_BYTES / ARENA_RECORDS_MIN / sizeof(uint64_t)];
    uint64_t end = ring_end(ring);
    unsigned found = 0;

    for (uint64_t seq = 0; seq <= end + 1; seq++) {
        const struct record_shm *copy = (const struct record_shm *)room;
        int rc = ring_read_at(ring, seq, (struct record_shm *)room, sizeof(room));
        REQUIRE(rc == (seq < end ? rc == 1 ? 1 : -ENODATA : 0));
        if (rc == 1) {
            uint64_t number = message_number(copy, record_frame(copy));
            REQUIRE(order[seq] == 0 || order[seq] == number);
            found++;
        }
    }
    REQUIRE(found > 0);
}

/* What is at each sequence before the victim does anything, whether a reader will see it or not. */
static void
remember_history(const struct ring *ring)
{
    static uint64_t room[ARENA_MAX_BYTES / ARENA_RECORDS_MIN / sizeof(uint64_t)];

    for (uint64_t seq = RING_FIRST_SEQ; seq < ring_end(ring); seq++) {
        struct record_shm *copy = (struct record_shm *)room;
        if (ring_read_at(ring, seq, copy, sizeof(room)) == 1)
            order[seq] = message_number(copy, record_frame(copy));
    }
}

/* The first publisher that needs room finds it, and was told. */
static void
check_waiting_publisher(bool waits)
{
    if (!waits)
        return;
    REQUIRE(ring_rig_woken(rig.wake_fds[OTHER]) > 0);
    REQUIRE(publish_other() == 0);
}

/* True when the victim's message was there. */
static bool
survive(bool was_full, uint64_t first)
{
    struct ring *undertaker = &rings[scenario->place == MASTER ? OTHER : MASTER];
    bool visible;

    /* The death is not noticed yet: there is room, or the publisher waits without harm. Every other
     * time no member helps the dead one before the master does. */
    if (step % 2 == 0 && publish_other() != 0)
        REQUIRE(was_full);
    ring_flush(&rings[OTHER]);
    ring_retire(undertaker, scenario->place);
    REQUIRE(rig.segment.head->tail == ring_end(undertaker));
    if (scenario->place == MASTER)
        ring_retire(undertaker, READER2);
    REQUIRE(ring_rig_woken(rig.wake_fds[READER]) > 0);
    check_ring(undertaker);
    if (ring_end(undertaker) > RING_FIRST_SEQ)
        read_history(undertaker);
    REQUIRE(rig.segment.members[scenario->place].cursor == MEMBER_NO_CURSOR);
    REQUIRE(rig.segment.members[scenario->place].need_seq == 0);
    check_waiting_publisher(scenario->arrange == publisher_waits_for_the_victim);
    /* The successor publishes all it can while no reader has read what there was. */
    open_member(scenario->place);
    (void)ring_join(&rings[scenario->place]);
    while (publish(&rings[scenario->place], published + 1) == 0)
        published++;
    check_ring(undertaker);
    ring_leave(&rings[scenario->place]);
    visible = check_order(first);
    go_round(&rings[OTHER]);
    check_ring(undertaker);
    go_round(&rings[scenario->place]);
    check_ring(undertaker);
    read_history(&rings[READER]);
    return visible;
}

/* --- the victim's process --- */

/* The last steps may be behind `done`, on the way to raise. */
static STEPPER_OWN_TEXT void
act(void)
{
    report->rc = scenario->act();
    atomic_store_release(&report->done, 1U);
    raise(SIGSTOP);
}

static void
be_the_victim(void)
{
    REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    scenario->open();
    raise(SIGSTOP); /* the survivors arrange the rest */
    act();
    _exit(0);
}

static pid_t
start_victim(void)
{
    pid_t pid;
    int status;

    memset(report, 0, sizeof(*report));
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0)
        be_the_victim();
    status = stepper_wait(pid);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) {
        fprintf(stderr, "the victim cannot be traced: allow ptrace of own children\n");
        exit(1);
    }
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL);
    return pid;
}

static void
kill_victim(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    status = stepper_wait(pid);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* --- one run --- */

/* Where each step of the scenario is; the same in every run. */
static uintptr_t trace[IMAGE_STEPS];
static bool was_full;
static uint64_t first_number;

static pid_t
set_up(void)
{
    pid_t pid;

    ring_rig_open(&rig, MEMBERS, scenario->slot_bits, arena_bytes);
    published = 0;
    memset(order, 0, sizeof(order));
    for (uint32_t i = scenario->place == MASTER ? READER : MASTER; i < VICTIM; i++)
        open_member(i);
    pid = start_victim();
    scenario->arrange();
    remember_history(&rings[OTHER]);
    first_number = 1;
    was_full = scenario->arrange == ring_is_full || scenario->arrange == somebody_has_died ||
               scenario->arrange == publisher_waits_for_the_victim;
    if (cursors[READER] == ring_tail(&rings[OTHER])) /* it was made to read on */
        first_number = published + 1;
    return pid;
}

/* How many instructions of shm/ there are when no process is killed. */
static uint64_t
count_steps(void)
{
    uint64_t count = 0;
    pid_t pid;

    set_step(0);
    pid = set_up();
    for (; stepper_step(pid); count++) {
        if (count < IMAGE_STEPS)
            trace[count] = stepper_pc(pid);
    }
    REQUIRE(report->done && report->rc == scenario->rc);
    kill_victim(pid);
    ring_rig_close(&rig);
    return count;
}

/* Kills before instruction `at`, counted from 0. */
static bool
kill_at(uint64_t at)
{
    pid_t pid = set_up();
    bool visible;

    set_step(at);
    stepper_run_to(pid, trace, at);
    REQUIRE(stepper_pc(pid) == trace[at]);
    kill_victim(pid);
    visible = survive(was_full, first_number);
    REQUIRE(!visible || scenario->visible);
    REQUIRE(!report->done || visible == scenario->visible);
    ring_rig_close(&rig);
    return visible;
}

/* The same on a copy of the segment, while the victim stands still. */
static bool
survive_on_image(void)
{
    struct ring_rig live = rig;
    uint64_t live_cursors[MEMBERS];
    uint64_t live_published = published;
    bool visible;

    memcpy(live_cursors, cursors, sizeof(cursors));
    ring_rig_open(&rig, MEMBERS, scenario->slot_bits, arena_bytes);
    memcpy(rig.segment.head, live.segment.head, rig.segment.bytes);
    for (uint32_t i = scenario->place == MASTER ? READER : MASTER; i < VICTIM; i++)
        open_member(i);
    for (uint32_t i = 0; i < MEMBERS; i++) { /* it cannot be seen whether it was written before */
        uint64_t one = 1;
        REQUIRE(write(rig.wake_fds[i], &one, sizeof(one)) == (ssize_t)sizeof(one));
    }
    visible = survive(was_full, first_number);
    ring_rig_close(&rig);
    rig = live;
    memcpy(cursors, live_cursors, sizeof(cursors));
    published = live_published;
    return visible;
}

static uint64_t
kill_images(void)
{
    pid_t pid = set_up();
    bool before = false;
    uint64_t count = 0;

    for (; stepper_step(pid); count++) {
        bool visible;
        set_step(count);
        visible = survive_on_image();
        REQUIRE(visible >= before && (!visible || scenario->visible));
        before = visible;
    }
    REQUIRE(report->done && report->rc == scenario->rc && before == scenario->visible);
    kill_victim(pid);
    ring_rig_close(&rig);
    return count;
}

/* --- all of them --- */

static uint64_t
kill_everywhere(void)
{
    uint64_t steps = count_steps();
    uint64_t since = 0;
    bool before = false;

    REQUIRE(steps > 20);
    if (steps > IMAGE_STEPS) {
        uint64_t images = kill_images();
        printf("%-14s %5" PRIu64 " images\n", scenario->name, images);
        return images;
    }
    for (uint64_t k = 0; k < steps; k++) {
        bool visible = kill_at(k);
        REQUIRE(visible >= before);
        if (visible && !before)
            since = k;
        before = visible;
    }
    REQUIRE(before == scenario->visible);
    printf("%-14s %5" PRIu64 " kills", scenario->name, steps);
    if (before)
        printf(", published from the %" PRIu64 "th on", since);
    printf("\n");
    return steps;
}

static void
kill_one(uint64_t at)
{
    uint64_t steps = count_steps();

    REQUIRE(at < steps && steps <= IMAGE_STEPS);
    printf("%s\n", kill_at(at) ? "everywhere" : "nowhere");
}

static void
say_where(int signal)
{
    (void)signal; /* after the sentence */
    if (write(STDERR_FILENO, how_again, strlen(how_again)) < 0)
        _exit(1);
}

static void
say_where_it_hangs(int signal)
{
    static const char what[] = "no end is in sight\n";

    if (write(STDERR_FILENO, what, sizeof(what) - 1) > 0)
        say_where(signal);
    _exit(1);
}

#ifdef __SANITIZE_ADDRESS__
/* The leak sanitizer cannot work in a process that is traced. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

/* Every scenario, or the one that is named. */
static uint64_t
kill_with(uint32_t bytes, const char *name, const char *at)
{
    uint64_t kills = 0;
    unsigned done = 0;

    payload_bytes = bytes;
    arena_bytes = bytes > PAYLOAD_BYTES ? ARENA_MAX_BYTES : 4096;
    for (unsigned i = 0; i < SCENARIOS; i++) {
        scenario = &scenarios[i];
        if (name && strcmp(name, scenario->name) != 0)
            continue;
        done++;
        if (at)
            kill_one(strtoull(at, NULL, 10));
        else
            kills += kill_everywhere();
    }
    if (!done) {
        fprintf(stderr, "ring_kill: no scenario is called '%s'\n", name);
        exit(2);
    }
    return kills;
}

int
main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const char *at = argc > 2 ? argv[2] : NULL;
    uint64_t bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : PAYLOAD_BYTES;
    uint64_t kills;

#ifdef __SANITIZE_THREAD__
    printf("the thread sanitizer's own code cannot be stepped through: nothing was killed\n");
    return 0;
#endif
    if (bytes > PAYLOAD_MAX_BYTES) {
        fprintf(stderr, "ring_kill: a message has at most %d bytes\n", PAYLOAD_MAX_BYTES);
        return 2;
    }
    report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(report != MAP_FAILED);
    stepper_init();
    signal(SIGABRT, say_where);
    signal(SIGALRM, say_where_it_hangs);
    kills = kill_with((uint32_t)bytes, name, at);
    if (getenv("CRIER_LONG") && !at) {
        printf("without payload\n");
        kills += kill_with(0, name, at);
        printf("%d bytes\n", PAYLOAD_MAX_BYTES);
        kills += kill_with(PAYLOAD_MAX_BYTES, name, at);
    }
    if (!at)
        printf("%" PRIu64 " kills\n", kills);
    return 0;
}
