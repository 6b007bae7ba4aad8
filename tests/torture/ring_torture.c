/*
 * ring_torture.c: many members on one small ring, which is full most of the time.
 *
 * The parent is the master. The other places publish, read, or both; the witness reads everything
 * from the first broadcast on and is never killed. Work comes in rounds: in each, every publisher
 * has a quota of messages, and the round is over when all quotas are published and every cursor has
 * reached the tail. Then the ring is at rest: the invariants are executed, the books are balanced,
 * and a wake-up that was lost shows as a round that does not end. In every other round members are
 * killed, by the parent or, where test points are compiled in, by themselves at a test point: at
 * each of them POINT_KILLS times at least. All the time members are stopped for a while, too.
 *
 * The oracle: a message is named by place, life of the place and number within that life; its bytes
 * follow from the name. `done` is stored in separate memory after ring_commit has returned. When a
 * life ends at `done`, every reader has seen exactly `done` messages of it or, if it was killed,
 * one more. `order` holds what the first reader saw at each sequence; all others must see the same.
 *
 * Processes map the segment at different addresses. Threads share one mapping, because the thread
 * sanitizer goes by addresses; there no process is killed, but members leave and come back.
 */
/* long: two modes and the oracle that they share */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "shm/atomic.h"
#include "shm/testpoint.h"
#include "tests/lib/ring_rig.h"

enum {
    PLACES = 6,
    WITNESS = 1,
    SLOT_BITS = 6,
    ARENA_BYTES = 8192,
    RECORD_MAX = ARENA_BYTES / ARENA_RECORDS_MIN,
    QUOTA = 1500,
    HELD_MAX = 24,   /* records that a reader has read and still keeps in place */
    ORDER_BITS = 12, /* many times the slots */
    LIVES_MAX = 1 << 15,
    KILLS_PER_ROUND = 6,
    POINT_KILLS = 20,
    LONG_KILLS = 10000,
    STOPPED_MS = 2, /* or until the others have come so far: */
    STOPPED_TICKS = 4,
    TICK = 128, /* messages of a publisher between two chances of the parent */
};

/* Publishers without a cursor are exposed to ABA once in 2^RING_TAG_BITS laps: not with 3 bits. */
static const struct role {
    bool publishes;
    bool reads;
} roles[PLACES] = {
    [WITNESS] = {false, true},       [2] = {true, true},  [3] = {true, true},
    [4] = {true, RING_TAG_BITS < 8}, [5] = {false, true},
};

struct seen {
    uint64_t life; /* 0: nothing of this place yet */
    uint64_t number;
};

struct board {
    uint32_t stop;
    uint32_t deadly;
    uint64_t round;
    uint64_t idle[PLACES];     /* the round whose quota is published */
    uint32_t waiting[PLACES];  /* for room */
    uint32_t left[PLACES];     /* threads: may be joined */
    uint64_t produced[PLACES]; /* of this round's quota */
    uint64_t gates;
    uint64_t waits;
    uint64_t empty;   /* messages without a byte */
    uint64_t largest; /* messages that fill a quarter of the arena */
    uint64_t point_kills[TESTPOINT_COUNT];
    uint64_t first[PLACES]; /* where a reader joined */
    uint64_t read[PLACES];
    struct seen seen[PLACES][PLACES];
    uint64_t done[PLACES][LIVES_MAX];
    uint64_t order[1 << ORDER_BITS];
};

struct child {
    pid_t pid;
    pthread_t thread;
    uint32_t place;
    uint32_t life;
    enum testpoint point; /* where it is to die; TESTPOINT_COUNT: nowhere */
    uint32_t hits;
    bool killed[LIVES_MAX];
};

/* One member at work. */
struct work {
    struct ring ring;
    uint32_t place;
    uint32_t life;
    uint64_t random;
    uint64_t number;
    uint64_t last_seq;
    uint64_t cursor;
    uint64_t end; /* cursor .. end have been read and are still held */
    bool leaves;
    uint8_t buffer[RECORD_MAX];
};

static struct ring_rig rig;
static struct ring master;
static struct board *board;
static struct child children[PLACES];
static int progress_fd;
static int signal_fd = -1;
static bool threads;
static uint64_t chance = 1;
static uint64_t kills;
static uint64_t stops;
static uint32_t stopped; /* a place; 0: none */
static unsigned stopped_ticks;

/* --- messages --- */

static uint64_t
message_name(uint64_t place, uint64_t life, uint64_t number)
{
    return ring_rig_mix(place << 56 ^ life << 36 ^ number);
}

/* Some lives write small messages and use up slots, some large ones and use up the arena. */
static uint32_t
message_bytes(uint64_t place, uint64_t life, uint64_t name)
{
    static const uint32_t largest = RECORD_MAX - RECORD_HEAD_BYTES - 4;
    uint64_t style = ring_rig_mix(place * 31 + life) % 4;

    if (name % 61 == 0)
        return largest;
    if (name % 59 == 0)
        return 0;
    if (style == 0)
        return (uint32_t)(name >> 20) % 64;
    if (style == 1)
        return (uint32_t)(name >> 20) % (largest + 1);
    return (uint32_t)(name >> 20) % 300;
}

static void
message_fill(uint8_t *to, uint32_t bytes, uint64_t name)
{
    for (uint32_t at = 0; at < bytes; at += 8) {
        uint64_t word = name * (at + 9);
        memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
}

static void
message_check(struct work *work, const struct record_ref *ref)
{
    const struct record_shm *record = &ref->head;
    uint64_t place = record->origin >> 32;
    uint64_t life = (uint32_t)record->origin;
    uint64_t name = message_name(place, life, record->time_ns);
    uint32_t bytes = message_bytes(place, life, name);

    REQUIRE(place < PLACES && roles[place].publishes);
    REQUIRE(record->record_bytes == record_size(bytes));
    REQUIRE(record->frame_bytes == record->frame_head_bytes + bytes);
    message_fill(work->buffer, bytes, name);
    REQUIRE(memcmp(ref->frame + record->frame_head_bytes, work->buffer, bytes) == 0);
}

/* --- reading --- */

static void
order_check(uint64_t seq, uint64_t name)
{
    uint64_t *at = &board->order[seq & ((1U << ORDER_BITS) - 1)];
    uint64_t mine = ((seq >> ORDER_BITS) + 1) << 40 | name >> 24;

    for (;;) {
        uint64_t first = atomic_load_acquire(at);
        if (first >> 40 == mine >> 40) {
            REQUIRE(first == mine); /* all see one order */
            return;
        }
        REQUIRE(first >> 40 < mine >> 40);
        if (atomic_cas_u64(at, first, mine))
            return;
    }
}

/* `seen` is the last of a life that has ended: nothing reported is missing, nothing invented. */
static void
life_check_end(uint64_t place, const struct seen *seen, uint64_t next_life)
{
    uint64_t done = atomic_load_acquire(&board->done[place][seen->life]);

    REQUIRE(seen->number >= done && seen->number <= done + 1);
    for (uint64_t life = seen->life + 1; life < next_life; life++)
        REQUIRE(atomic_load_acquire(&board->done[place][life]) == 0);
}

static void
read_one(struct work *work, uint64_t seq, const struct record_ref *record)
{
    uint64_t place = record->head.origin >> 32;
    uint64_t life = (uint32_t)record->head.origin;
    uint64_t number = record->head.time_ns;
    struct seen *seen;

    message_check(work, record);
    seen = &board->seen[work->place][place];
    if (seen->life == life) {
        REQUIRE(number == seen->number + 1);
    } else if (seen->life || work->place == WITNESS) {
        REQUIRE(life > seen->life && number == 1);
        life_check_end(place, seen, life);
    }
    REQUIRE(number <= atomic_load_acquire(&board->done[place][life]) + 1);
    *seen = (struct seen){life, number};
    order_check(seq, message_name(place, life, number));
    atomic_bump(&board->read[work->place], 1U);
}

/* Everything that was held is still what it was; then it may go. */
static void
release(struct work *work, uint64_t to)
{
    struct record_ref record;

    if (work->cursor == to)
        return;
    for (uint64_t seq = work->cursor; seq != to; seq++) {
        REQUIRE(ring_read(&work->ring, seq, &record) == 1);
        message_check(work, &record);
    }
    work->cursor = to;
    ring_cursor_store(&work->ring, to);
}

static bool
all_publishers_wait(uint64_t round)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        if (roles[i].publishes && !atomic_load_acquire(&board->waiting[i]) &&
            atomic_load_acquire(&board->idle[i]) != round)
            return false;
    }
    return true;
}

/* The witness stops until no member can publish any more. */
static void
hold_the_gate(uint64_t round)
{
    uint64_t deadline = ring_rig_now_ns() + RING_RIG_DEADLINE_MS * 1000000ULL;

    while (!all_publishers_wait(round)) {
        REQUIRE(ring_rig_now_ns() < deadline);
        sched_yield();
    }
    atomic_bump(&board->gates, 1U);
}

/* False when there is nothing to read. */
static bool
read_some(struct work *work)
{
    uint64_t most = work->end + 1 + ring_rig_random(&work->random) % 16;
    struct record_ref record;
    int rc = 0;

    while (work->end != most && (rc = ring_read(&work->ring, work->end, &record)) == 1)
        read_one(work, work->end++, &record);
    REQUIRE(rc >= 0);
    if (rc == 0)
        release(work, work->end);
    else if (work->end - work->cursor > HELD_MAX)
        release(work, work->end - ring_rig_random(&work->random) % HELD_MAX);
    return rc != 0;
}

/* --- publishing --- */

static int
publish_one(struct work *work)
{
    uint64_t number = work->number + 1;
    uint64_t name = message_name(work->place, work->life, number);
    uint32_t bytes = message_bytes(work->place, work->life, name);
    struct record_shm *record;
    uint32_t record_bytes;
    uint64_t seq;
    int rc = ring_reserve(&work->ring, record_size(bytes), &record);

    if (rc == -EAGAIN)
        return rc;
    REQUIRE(rc == 0);
    message_fill(work->buffer, bytes, name);
    record_bytes = record_write(record, 2, work->buffer, bytes, 0,
                                (uint64_t)work->place << 32 | work->life, number, NULL);
    rc = ring_commit(&work->ring, record, record_bytes, &seq);
    if (rc == -EAGAIN)
        return rc;
    REQUIRE(rc == 0 && seq > work->last_seq);
    work->last_seq = seq;
    work->number = number;
    atomic_bump(&board->empty, (uint64_t)(bytes == 0));
    atomic_bump(&board->largest, (uint64_t)(record_bytes == RECORD_MAX));
    atomic_store_release(&board->done[work->place][work->life], number);
    return 0;
}

static void
tell_parent(void)
{
    uint64_t one = 1;

    REQUIRE(write(progress_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

/* False when there is no room, or no more to publish in this round. */
static bool
publish_some(struct work *work, uint64_t round)
{
    uint64_t *produced = &board->produced[work->place];
    uint64_t batch = 1 + ring_rig_random(&work->random) % 16;

    if (atomic_load_relaxed(&board->idle[work->place]) == round)
        return false;
    while (batch-- > 0 && *produced < QUOTA) {
        if (publish_one(work) != 0) {
            atomic_bump(&board->waits, 1U);
            atomic_store_release(&board->waiting[work->place], 1U);
            return false; /* what was published before was flushed on the way */
        }
        atomic_store_relaxed(&board->waiting[work->place], 0U);
        if (++*produced % TICK == 0)
            tell_parent();
    }
    ring_flush(&work->ring);
    if (*produced < QUOTA)
        return true;
    atomic_store_release(&board->idle[work->place], round);
    return false;
}

/* --- a member --- */

static void
work_sleep(struct work *work, bool reads)
{
    tell_parent();
    if (reads && !ring_sleep_begin(&work->ring, work->end)) {
        ring_sleep_end(&work->ring);
        return;
    }
    REQUIRE(ring_rig_await(rig.wake_fds[work->place])); /* or a wake-up was lost */
    if (reads)
        ring_sleep_end(&work->ring);
}

static bool
work_may_leave(const struct work *work, uint64_t round)
{
    return work->place != WITNESS && work->leaves && round % 2 &&
           (!roles[work->place].publishes ||
            atomic_load_relaxed(&board->idle[work->place]) == round);
}

static void
work_run(struct work *work)
{
    const struct role *role = &roles[work->place];
    uint64_t gated = 0;

    while (!atomic_load_acquire(&board->stop)) {
        uint64_t round = atomic_load_acquire(&board->round);
        bool busy = role->publishes && publish_some(work, round);

        if (role->reads && read_some(work))
            busy = true;
        if (work->place == WITNESS && round % 4 == 2 && gated != round) {
            gated = round;
            hold_the_gate(round);
        }
        if (!busy && work_may_leave(work, round))
            return;
        if (!busy)
            work_sleep(work, role->reads);
    }
}

static void
work_start(struct work *work, const struct segment *segment, uint32_t place, uint32_t life)
{
    work->place = place;
    work->life = life;
    work->random = message_name(place, life, ring_rig_now_ns());
    work->leaves = ring_rig_random(&work->random) % 4 == 0;
    REQUIRE(ring_open(&work->ring, segment, place, rig.wake_fds) == 0);
    if (roles[place].reads) {
        work->cursor = work->end = ring_join(&work->ring);
        atomic_store_release(&board->first[place], work->cursor);
    }
    work_run(work);
}

#ifdef CRIER_TESTPOINTS
static __thread struct child *self;
void (*testpoint_hook)(enum testpoint point);

/* A need is found after `starving` was cleared only if it came in between. */
static void
yield_until_somebody_waits(void)
{
    for (unsigned patience = 200; patience > 0; patience--) {
        for (uint32_t i = 1; i < PLACES; i++) {
            if (atomic_load_relaxed(&rig.segment.members[i].need_seq))
                return;
        }
        sched_yield();
    }
}

/* Dies where it was told to; elsewhere gives others a chance to come in between. */
static void
die_or_yield(enum testpoint point)
{
    if (!self)
        return;
    if (point == self->point && !threads && atomic_load_relaxed(&board->deadly) &&
        self->hits-- == 0) {
        atomic_bump(&board->point_kills[point], 1U);
        kill(getpid(), SIGKILL);
    }
    if (self->point == TESTPOINT_NEED_FOUND && point == TESTPOINT_NOBODY_WAITS)
        yield_until_somebody_waits();
    if (ring_rig_mix(self->hits ^ ring_rig_now_ns()) % 16 == 0)
        sched_yield();
}
#endif

static void *
child_thread(void *arg)
{
    struct child *child = arg;
    struct work *work = calloc(1, sizeof(*work));

    REQUIRE(work);
#ifdef CRIER_TESTPOINTS
    self = child;
#endif
    work_start(work, &rig.segment, child->place, child->life);
    free(work);
    atomic_store_release(&board->left[child->place], 1U);
    tell_parent();
    return NULL;
}

static void
child_process(struct child *child)
{
    static struct work work;
    struct segment segment;
    sigset_t none;
    void *pad;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
#ifdef CRIER_TESTPOINTS
    self = child;
#endif
    pad = mmap(NULL, 4096U << child->place, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pad != MAP_FAILED);
    REQUIRE(segment_attach(&segment, rig.fd, false) == 0);
    REQUIRE(segment.head != rig.segment.head);
    work_start(&work, &segment, child->place, child->life);
    _exit(0);
}

/* --- the parent --- */

/* Points of history, ring_history.c has them. */
enum { POINTS = TESTPOINT_HISTORY_IN_RANGE };

static enum testpoint
rarest_point(void)
{
    enum testpoint rarest = (enum testpoint)(ring_rig_random(&chance) % POINTS);

    for (unsigned i = 0; i < POINTS; i++) {
        if (board->point_kills[i] < board->point_kills[rarest])
            rarest = (enum testpoint)i;
    }
    return rarest;
}

static void
spawn(uint32_t place)
{
    struct child *child = &children[place];

    child->place = place;
    child->life++;
    REQUIRE(child->life < LIVES_MAX);
    child->point =
        place != WITNESS && ring_rig_random(&chance) % 2 ? rarest_point() : TESTPOINT_COUNT;
    child->hits = (uint32_t)(ring_rig_random(&chance) % 64);
    if (child->point == TESTPOINT_JOIN_LOW_CURSOR || child->point == TESTPOINT_NEED_FOUND)
        child->hits = 0;
    atomic_store_relaxed(&board->waiting[place], 0U);
    atomic_store_relaxed(&board->left[place], 0U);
    memset(board->seen[place], 0, sizeof(board->seen[place]));
    board->read[place] = 0;
    if (threads) {
        REQUIRE(pthread_create(&child->thread, NULL, child_thread, child) == 0);
        return;
    }
    child->pid = fork();
    REQUIRE(child->pid >= 0);
    if (child->pid == 0)
        child_process(child);
}

/* `status` as from waitpid: members leave, or are killed; nothing else. */
static void
succeed(uint32_t place, int status)
{
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

    if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        fprintf(stderr, "place %" PRIu32 " ended with status %#x\n", place, (unsigned)status);
        exit(1);
    }
    children[place].killed[children[place].life] = killed;
    kills += killed;
    if (stopped == place)
        stopped = 0;
    ring_retire(&master, place);
    spawn(place);
}

static void
reap(void)
{
    struct signalfd_siginfo info;

    /* First: a child that dies after its waitpid below raises the signal again, or it would never be
     * reaped. */
    while (signal_fd >= 0 && read(signal_fd, &info, sizeof(info)) > 0)
        ;
    for (uint32_t i = 1; i < PLACES; i++) {
        int status = 0;
        if (threads && atomic_load_acquire(&board->left[i])) {
            REQUIRE(pthread_join(children[i].thread, NULL) == 0);
            succeed(i, 0);
        } else if (!threads && waitpid(children[i].pid, &status, WNOHANG) > 0) {
            succeed(i, status);
        }
    }
}

static void
kill_one(void)
{
    uint32_t place = WITNESS + 1 + (uint32_t)(ring_rig_random(&chance) % (PLACES - WITNESS - 1));
    int status;

    kill(children[place].pid, SIGKILL);
    REQUIRE(waitpid(children[place].pid, &status, 0) == children[place].pid);
    succeed(place, status);
}

/* It stands still wherever it is, with whatever it holds. */
static void
stop_one(void)
{
    stopped = 1 + (uint32_t)(ring_rig_random(&chance) % (PLACES - 1));
    stopped_ticks = 0;
    stops++;
    kill(children[stopped].pid, SIGSTOP);
}

static void
continue_stopped(void)
{
    if (stopped)
        kill(children[stopped].pid, SIGCONT);
    stopped = 0;
}

static void
say_who_waits(void)
{
    fprintf(stderr, "stuck in round %" PRIu64 ": tail %" PRIu64 ", minimum %" PRIu64 "\n",
            board->round, ring_tail(&master), ring_min(&master));
    for (uint32_t i = 1; i < PLACES; i++) {
        const struct member_shm *member = &rig.segment.members[i];
        fprintf(stderr,
                "  place %" PRIu32 ": cursor %" PRId64 ", sleeping %" PRIu32 ", need %" PRIu64
                ", waits %" PRIu32 ", published %" PRIu64 "\n",
                i, (int64_t)member->cursor, member->sleeping, member->need_seq, board->waiting[i],
                board->produced[i]);
    }
}

static void
await_progress(void)
{
    struct pollfd fds[] = {{.fd = progress_fd, .events = POLLIN},
                           {.fd = signal_fd, .events = POLLIN}};

    if (poll(fds, 2, stopped ? STOPPED_MS : RING_RIG_DEADLINE_MS) < 1 && !stopped) {
        say_who_waits();
        exit(1);
    }
    if (stopped && (!ring_rig_woken(progress_fd) || ++stopped_ticks == STOPPED_TICKS))
        continue_stopped();
    (void)ring_rig_woken(progress_fd);
}

static bool
at_rest(void)
{
    uint64_t tail = ring_tail(&master);

    for (uint32_t i = 1; i < PLACES; i++) {
        if (roles[i].publishes && atomic_load_acquire(&board->idle[i]) != board->round)
            return false;
        if (roles[i].reads && atomic_load_acquire(&rig.segment.members[i].cursor) != tail)
            return false;
    }
    return true;
}

/* Every reader has seen each message that was reported, once, and at most one more of a life that
 * was killed. */
static void
balance(void)
{
    char why[RING_WHY_BYTES];

    if (!ring_check(&master, why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    for (uint32_t reader = 1; reader < PLACES; reader++) {
        for (uint32_t place = 1; place < PLACES; place++) {
            const struct seen *seen = &board->seen[reader][place];
            if (!roles[reader].reads || !roles[place].publishes || seen->life == 0)
                continue;
            life_check_end(place, seen, children[place].life + 1);
            REQUIRE(children[place].killed[seen->life] ||
                    seen->number == board->done[place][seen->life]);
        }
    }
}

static void
next_round(void)
{
    uint64_t round = board->round + 1;

    for (uint32_t i = 0; i < PLACES; i++)
        atomic_store_relaxed(&board->produced[i], (uint64_t)0);
    atomic_store_relaxed(&board->deadly, (uint32_t)(round % 2));
    atomic_store_release(&board->round, round);
    wake_all(&master.wake);
}

static void
add_up(void)
{
    uint64_t published = ring_tail(&master) - RING_FIRST_SEQ;
    uint64_t reported = 0;

    for (uint32_t i = 1; i < PLACES; i++) {
        for (uint32_t life = 1; life <= children[i].life; life++)
            reported += board->done[i][life];
    }
    REQUIRE(board->first[WITNESS] == RING_FIRST_SEQ);
    REQUIRE(board->read[WITNESS] == published);
    REQUIRE(published >= reported && published <= reported + kills);
    REQUIRE(board->gates > 0 && board->waits > 0);
    printf("%s: %" PRIu64 " broadcasts in %" PRIu64 " rounds, %" PRIu64 " kills, %" PRIu64
           " stops, %" PRIu64 " waits for room, %" PRIu64 " gates\n",
           threads ? "threads" : "processes", published, board->round, kills, stops, board->waits,
           board->gates);
    REQUIRE(threads || stops > 10);
    REQUIRE(board->empty > 0 && board->largest > 0);
}

static void
report_points(void)
{
#ifdef CRIER_TESTPOINTS
    static const char *const names[] = {
#define X(name) #name,
        TESTPOINTS(X)
#undef X
    };
    for (unsigned i = 0; i < POINTS && !threads; i++)
        printf("  %-24s %" PRIu64 " kills\n", names[i], board->point_kills[i]);
#endif
}

static void
stop_all(void)
{
    continue_stopped();
    atomic_store_release(&board->stop, 1U);
    wake_all(&master.wake);
    for (uint32_t i = 1; i < PLACES; i++) {
        int status = 0;
        if (threads)
            REQUIRE(pthread_join(children[i].thread, NULL) == 0);
        else
            REQUIRE(waitpid(children[i].pid, &status, 0) > 0 && status == 0);
        ring_retire(&master, i);
    }
}

static void
begin(bool with_threads)
{
    sigset_t child;

    threads = with_threads;
    kills = stops = 0;
    memset(children, 0, sizeof(children));
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(board != MAP_FAILED);
    board->round = 1;
    progress_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    if (!threads) {
        sigprocmask(SIG_BLOCK, &child, NULL);
        signal_fd = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    }
    ring_rig_open(&rig, PLACES, SLOT_BITS, ARENA_BYTES);
    REQUIRE(ring_open(&master, &rig.segment, 0, rig.wake_fds) == 0);
#ifdef CRIER_TESTPOINTS
    testpoint_hook = die_or_yield;
#endif
}

static void
end(void)
{
    ring_rig_close(&rig);
    close(progress_fd);
    if (signal_fd >= 0)
        close(signal_fd);
    signal_fd = -1;
    munmap(board, sizeof(*board));
}

/* Beside the time: everything has happened that is to be shown. */
static bool
is_enough(void)
{
    if (threads)
        return board->round > 8;
    if (getenv("CRIER_LONG") && kills < LONG_KILLS)
        return false;
#ifdef CRIER_TESTPOINTS
    if (board->point_kills[rarest_point()] < POINT_KILLS)
        return false;
#endif
    return board->round > 8;
}

static void
torture(bool with_threads, uint64_t seconds)
{
    uint64_t until = ring_rig_now_ns() + seconds * 1000000000U;
    unsigned left = KILLS_PER_ROUND;

    begin(with_threads);
    spawn(WITNESS);
    while (atomic_load_acquire(&board->first[WITNESS]) == 0) /* its first cursor is a low one: J1 */
        await_progress();
    for (uint32_t i = WITNESS + 1; i < PLACES; i++)
        spawn(i);
    for (;;) {
        await_progress();
        reap();
        if (at_rest()) {
            balance();
            if (ring_rig_now_ns() >= until && is_enough())
                break;
            REQUIRE(ring_rig_now_ns() < until + 20 * seconds * 1000000000U);
            left = KILLS_PER_ROUND;
            next_round();
        } else if (!threads && board->deadly && left && ring_rig_random(&chance) % 4 == 0) {
            left--;
            kill_one();
        } else if (!threads && !stopped && ring_rig_random(&chance) % 64 == 0) {
            stop_one();
        }
    }
    stop_all();
    balance();
    add_up();
    report_points();
    end();
}

int
main(void)
{
    bool is_long = getenv("CRIER_LONG") != NULL;

    chance = ring_rig_now_ns();
    printf("seed %" PRIu64 "\n", chance);
#ifndef __SANITIZE_THREAD__
    torture(false, is_long ? 120 : 4);
#endif
    torture(true, is_long ? 60 : 1);
    return 0;
}
