/*
 * ring_history.c: lookers read behind every cursor while publishers lap them without a pause.
 *
 * No member has a cursor, so nothing is ever held back: slots and arenas are reused as fast as two
 * publishers can write (where tags are narrow, a publisher needs a cursor: ring.h, 8). These are killed all the time, by the parent or, where test points are
 * compiled in, at a test point, and their successors rebuild their arenas. Lookers read single
 * sequences, mostly those that are just about to be reused.
 *
 * The oracle: a message is named by place, life and number, and its bytes follow from the name. The
 * publisher then notes its name under its sequence. What a looker gets is whole, is the one that
 * was noted, and follows what it got before of the same publisher. A history that is always gone
 * would pass, too: at least one of twenty must be there.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shm/atomic.h"
#include "shm/testpoint.h"
#include "tests/lib/ring_rig.h"

enum {
    MASTER,
    PUBLISHERS = 2, /* places 1 and 2 */
    LOOKERS = 2,
    SLOT_BITS = 6,
    N = 1 << SLOT_BITS,
    ARENA_BYTES = 8192,
    RECORD_MAX = ARENA_BYTES / ARENA_RECORDS_MIN,
    NOTES_BITS = 12,
    LOOKS = RING_TAG_BITS < 8 ? 4000000 : 20000000,
    TICK = 512, /* messages of a publisher between two chances of the parent */
};

struct looks {
    uint64_t found;
    uint64_t not_yet;
    uint64_t gone;
};

struct board {
    uint32_t stop;
    uint32_t leave[PUBLISHERS + 1]; /* threads: this place's has to end */
    uint32_t finished[LOOKERS];
    struct looks looks[LOOKERS];
    uint64_t published;
    uint64_t notes[1 << NOTES_BITS]; /* tag of the lap of notes, name */
};

struct task {
    pid_t pid;
    pthread_t thread;
    uint32_t number; /* place of a publisher, index of a looker */
    uint32_t life;
    uint64_t random; /* a looker's */
    uint32_t hits;   /* test points to pass before it dies; 0: does not */
};

static struct ring_rig rig;
static struct ring master;
static struct board *board;
static struct task publishers[PUBLISHERS + 1];
static struct task lookers[LOOKERS];
static int progress_fd;
static bool threads;
static uint64_t looks_each;
static uint64_t chance;
static uint64_t kills;

/* --- messages --- */

static uint64_t
message_name(uint64_t origin, uint64_t number)
{
    return ring_rig_mix(origin << 24 ^ number);
}

/* Small ones use up the slots, large ones the arena. */
static uint32_t
message_bytes(uint64_t origin, uint64_t name)
{
    uint64_t most = ring_rig_mix(origin) % 3 == 0 ? 16 : RECORD_MAX - RECORD_HEAD_BYTES - 4;

    return (uint32_t)(name >> 20) % (uint32_t)(name % 7 == 0 ? most + 1 : 100);
}

static uint64_t
message_word(uint64_t name, uint32_t at)
{
    return name * (at + 9);
}

static void
message_fill(uint8_t *to, uint32_t bytes, uint64_t name)
{
    for (uint32_t at = 0; at < bytes; at += 8) {
        uint64_t word = message_word(name, at);
        memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
}

static void
message_check(const struct record_shm *record)
{
    uint64_t name = message_name(record->origin, record->time_ns);
    uint32_t bytes = message_bytes(record->origin, name);
    const uint8_t *payload = record_frame(record) + record->frame_head_bytes;

    REQUIRE(record->origin >> 32 >= 1 && record->origin >> 32 <= PUBLISHERS);
    REQUIRE(record->frame_bytes == record->frame_head_bytes + bytes);
    for (uint32_t at = 0; at < bytes; at += 8) {
        uint64_t word = message_word(name, at);
        REQUIRE(memcmp(payload + at, &word, bytes - at < 8 ? bytes - at : 8) == 0);
    }
}

/* --- the notes --- */

static uint64_t *
note_at(uint64_t seq)
{
    return &board->notes[seq & ((1U << NOTES_BITS) - 1)];
}

static uint64_t
note_of(uint64_t seq, uint64_t name)
{
    return ((seq >> NOTES_BITS) + 1) << 32 | name >> 32;
}

/* Where no publisher was in time to write, or another has written since, nothing is compared. */
static void
note_check(uint64_t seq, uint64_t name)
{
    uint64_t note = atomic_load_acquire(note_at(seq));
    uint64_t mine = note_of(seq, name);

    REQUIRE(note >> 32 != mine >> 32 || note == mine);
}

/* --- publishers --- */

static int
publish_one(struct ring *ring, uint64_t origin, uint64_t number)
{
    static __thread uint8_t payload[RECORD_MAX];
    uint64_t name = message_name(origin, number);
    uint32_t bytes = message_bytes(origin, name);
    struct record_shm *record;
    uint64_t seq;
    int rc;

    message_fill(payload, bytes, name);
    rc = ring_reserve(ring, record_size(bytes), &record);
    if (rc == 0) {
        uint32_t record_bytes =
            record_write(record, RECORD_BINARY, payload, bytes, 0, origin, number, NULL);
        rc = ring_commit(ring, record, record_bytes, &seq);
    }
    if (rc == 0)
        atomic_store_release(note_at(seq), note_of(seq, name));
    return rc;
}

/* A cursor that stays close behind tail: a publisher that is stopped is not lapped. */
static void
publish_gently(struct ring *ring, uint64_t origin, uint64_t number)
{
    int rc;

    while ((rc = publish_one(ring, origin, number)) == -EAGAIN) {
        ring_cursor_store(ring, ring_tail(ring));
        if (atomic_load_relaxed(&board->stop))
            return;
        sched_yield();
    }
    REQUIRE(rc == 0);
}

static void
tell_parent(void)
{
    uint64_t one = 1;

    REQUIRE(write(progress_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

static void
publish_all(const struct task *task, const struct segment *segment)
{
    uint64_t origin = (uint64_t)task->number << 32 | task->life;
    struct ring *ring = calloc(1, sizeof(*ring));
    uint64_t number = 0;

    REQUIRE(ring && ring_open(ring, segment, task->number, rig.wake_fds) == 0);
    if (RING_TAG_BITS < 8)
        (void)ring_join(ring);
    while (!atomic_load_relaxed(&board->stop) &&
           !atomic_load_relaxed(&board->leave[task->number])) {
        publish_gently(ring, origin, ++number);
        if (number % TICK == 0) {
            atomic_bump(&board->published, (uint64_t)TICK);
            tell_parent();
        }
    }
    free(ring);
}

/* --- lookers --- */

/* Mostly what is about to be reused; sometimes far off on either side. */
static uint64_t
choose(uint64_t end, uint64_t *random)
{
    uint64_t r = ring_rig_random(random);

    if (r % 64 == 0)
        return end + (r >> 8) % 4;
    if (r % 64 == 1)
        return end - (r >> 8) % (4 * N);
    if (r % 2)
        return end - 1 - (r >> 8) % N;
    return end - N + (r >> 8) % 8;
}

/* What was read last of each publisher. */
struct last {
    uint64_t seq;
    uint64_t life;
    uint64_t number;
};

static void
check_against_last(struct last *last, uint64_t seq, const struct record_shm *copy)
{
    uint64_t life = (uint32_t)copy->origin;
    bool later = life > last->life || (life == last->life && copy->time_ns > last->number);

    if (last->seq)
        REQUIRE(later == (seq > last->seq));
    *last = (struct last){seq, life, copy->time_ns};
}

static void
look_once(const struct ring *ring, struct looks *looks, struct last *last, uint64_t *random)
{
    static __thread uint64_t room[RECORD_MAX / sizeof(uint64_t)];
    struct record_shm *copy = (struct record_shm *)room;
    uint64_t end = ring_end(ring);
    uint64_t seq = choose(end, random);
    int rc = ring_read_at(ring, seq, copy, sizeof(room));

    if (rc == 1) {
        message_check(copy);
        note_check(seq, message_name(copy->origin, copy->time_ns));
        check_against_last(&last[copy->origin >> 32], seq, copy);
        looks->found++;
    } else if (rc == 0) {
        REQUIRE((int64_t)(seq - end) >= 0);
        looks->not_yet++;
    } else {
        REQUIRE(rc == -ENODATA);
        looks->gone++;
    }
}

static void
look_all(const struct task *task, const struct segment *segment)
{
    struct looks *looks = &board->looks[task->number];
    struct last last[PUBLISHERS + 1] = {{0}};
    uint64_t random = task->random;
    struct ring ring;

    ring_look(&ring, segment);
    for (uint64_t i = 0; i < looks_each; i++)
        look_once(&ring, looks, last, &random);
    atomic_store_release(&board->finished[task->number], 1U);
    tell_parent();
}

#ifdef CRIER_TESTPOINTS
static __thread struct task *self;
static __thread uint64_t yields;
void (*testpoint_hook)(enum testpoint point);

/* Until the tag of the sequence that was chosen has come round. */
static void
let_tags_come_round(void)
{
    uint64_t begin = atomic_load_acquire(&rig.segment.head->tail);
    uint64_t patience = 100000;

    while (atomic_load_acquire(&rig.segment.head->tail) - begin < ((uint64_t)N << RING_TAG_BITS) &&
           !atomic_load_relaxed(&board->stop) && patience--)
        sched_yield();
}

/* A publisher dies where it was told to. A looker lets others pass. */
static void
die_or_yield(enum testpoint point)
{
    if (!self)
        return;
    if (point == TESTPOINT_HISTORY_IN_RANGE || point == TESTPOINT_HISTORY_COPIED) {
        uint64_t r = ring_rig_random(&yields);
        if (r % 16384 == 0)
            let_tags_come_round();
        else if (r % 512 == 0)
            sched_yield();
    } else if (!threads && self->hits && --self->hits == 0) {
        kill(getpid(), SIGKILL);
    }
}
#endif

/* --- tasks --- */

static void
run(struct task *task, const struct segment *segment)
{
#ifdef CRIER_TESTPOINTS
    self = task;
    yields = task->number;
#endif
    if (task >= lookers && task < lookers + LOOKERS)
        look_all(task, segment);
    else
        publish_all(task, segment);
}

static void *
run_thread(void *arg)
{
    run(arg, &rig.segment);
    return NULL;
}

/* Each process maps the segment elsewhere; a looker read-only. */
static void
run_process(struct task *task)
{
    bool looks = task >= lookers && task < lookers + LOOKERS;
    struct segment segment;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    REQUIRE(segment_attach(&segment, rig.fd, looks) == 0);
    REQUIRE(segment.head != rig.segment.head);
    run(task, &segment);
    _exit(0);
}

static void
start(struct task *task)
{
    if (threads) {
        REQUIRE(pthread_create(&task->thread, NULL, run_thread, task) == 0);
        return;
    }
    task->pid = fork();
    REQUIRE(task->pid >= 0);
    if (task->pid == 0)
        run_process(task);
}

static void
start_publisher(uint32_t place)
{
    struct task *task = &publishers[place];

    task->number = place;
    task->life++;
    task->hits = (uint32_t)(ring_rig_random(&chance) % 4000);
    start(task);
}

/* Threads are asked to leave; processes are killed, by themselves or here. */
static void
replace(uint32_t place)
{
    struct task *task = &publishers[place];
    int status = 0;

    if (threads) {
        atomic_store_relaxed(&board->leave[place], 1U);
        REQUIRE(pthread_join(task->thread, NULL) == 0);
        atomic_store_relaxed(&board->leave[place], 0U);
    } else {
        kill(task->pid, SIGKILL);
        REQUIRE(waitpid(task->pid, &status, 0) == task->pid);
        REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        kills++;
    }
    ring_retire(&master, place);
    start_publisher(place);
}

/* A process that has killed itself sends no message: SIGCHLD tells of it (on_child). */
static void
reap(void)
{
    siginfo_t info;

    for (uint32_t place = 1; place <= PUBLISHERS && !threads; place++) {
        info.si_pid = 0;
        if (waitid(P_PID, (id_t)publishers[place].pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid)
            replace(place);
    }
}

static void
await_progress(void)
{
    struct pollfd p = {.fd = progress_fd, .events = POLLIN};
    int rc = poll(&p, 1, RING_RIG_DEADLINE_MS);

    REQUIRE(rc == 1 || (rc < 0 && errno == EINTR));
    (void)ring_rig_woken(progress_fd);
}

static void
on_child(int signal)
{
    static const uint64_t one = 1;
    int error = errno;

    (void)signal; /* it may come before poll is called, which it would not interrupt then */
    (void)!write(progress_fd, &one, sizeof(one));
    errno = error;
}

static void
report(void)
{
    struct looks sum = {0};

    for (unsigned i = 0; i < LOOKERS; i++) {
        sum.found += board->looks[i].found;
        sum.not_yet += board->looks[i].not_yet;
        sum.gone += board->looks[i].gone;
    }
    printf("%s: %" PRIu64 " looks: %" PRIu64 " found, %" PRIu64 " not yet, %" PRIu64
           " gone; %" PRIu64 " broadcasts, %" PRIu64 " kills\n",
           threads ? "threads" : "processes", sum.found + sum.not_yet + sum.gone, sum.found,
           sum.not_yet, sum.gone, ring_tail(&master) - RING_FIRST_SEQ, kills);
    REQUIRE(sum.found + sum.not_yet + sum.gone == LOOKERS * looks_each);
    REQUIRE(sum.found >= LOOKERS * looks_each / 20 && sum.not_yet && sum.gone);
    REQUIRE(threads || kills > 10);
}

static void
stop_all(void)
{
    char why[RING_WHY_BYTES];

    atomic_store_release(&board->stop, 1U);
    for (unsigned i = 0; i < LOOKERS; i++) {
        int status = 0;
        if (threads)
            REQUIRE(pthread_join(lookers[i].thread, NULL) == 0);
        else
            REQUIRE(waitpid(lookers[i].pid, &status, 0) > 0 && status == 0);
    }
    for (uint32_t place = 1; place <= PUBLISHERS; place++) {
        if (threads) {
            REQUIRE(pthread_join(publishers[place].thread, NULL) == 0);
        } else {
            kill(publishers[place].pid, SIGKILL);
            REQUIRE(waitpid(publishers[place].pid, NULL, 0) > 0);
        }
        ring_retire(&master, place);
    }
    REQUIRE(ring_check(&master, why));
}

static bool
all_finished(void)
{
    for (unsigned i = 0; i < LOOKERS; i++) {
        if (!atomic_load_acquire(&board->finished[i]))
            return false;
    }
    return true;
}

static void
history(bool with_threads, uint64_t looks)
{
    threads = with_threads;
    looks_each = looks / LOOKERS;
    kills = 0;
    memset(publishers, 0, sizeof(publishers));
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(board != MAP_FAILED);
    progress_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ring_rig_open(&rig, 1 + PUBLISHERS, SLOT_BITS, ARENA_BYTES);
    REQUIRE(ring_open(&master, &rig.segment, MASTER, rig.wake_fds) == 0);
    for (uint32_t place = 1; place <= PUBLISHERS; place++)
        start_publisher(place);
    for (unsigned i = 0; i < LOOKERS; i++) {
        lookers[i].number = i;
        lookers[i].random = ring_rig_random(&chance);
        start(&lookers[i]);
    }
    while (!all_finished()) {
        await_progress();
        reap();
        if (ring_rig_random(&chance) % 16 == 0)
            replace(1 + (uint32_t)(ring_rig_random(&chance) % PUBLISHERS));
    }
    stop_all();
    report();
    ring_rig_close(&rig);
    close(progress_fd);
    munmap(board, sizeof(*board));
}

int
main(void)
{
    bool is_long = getenv("CRIER_LONG") != NULL;
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};

    chance = ring_rig_now_ns();
    printf("seed %" PRIu64 "\n", chance);
    sigaction(SIGCHLD, &action, NULL);
#ifdef CRIER_TESTPOINTS
    testpoint_hook = die_or_yield;
#endif
#ifdef __SANITIZE_THREAD__
    history(true, is_long ? 5000000 : 500000);
#else
    history(false, is_long ? 100000000 : LOOKS);
    history(true, is_long ? 10000000 : 500000);
#endif
    return 0;
}
