/*
 * ring_hostile.c: words of a live segment are overwritten, and no member loops, crashes or accesses
 * memory outside of it for that.
 *
 * Each input is a list of strokes: overwrite a word (of the geometry, the header, a member, the
 * slots, a record, or anything), then do one of the things that members and lookers do. The mapping
 * has unmapped pages on both sides, an alarm ends a call that does not return, and the sanitizers
 * check the rest. A handle's own memory is not touched, as another process cannot write it either.
 * What the calls return does not matter, with three exceptions:
 *   - what a member has published is what a reader finds at that sequence, also after the member has
 *     published the next record;
 *   - the member's next place in its arena is one that a slot word can name;
 *   - what a reader is given lies inside one arena, and is no larger than a record may be.
 * Strokes also happen within calls: while a payload is deflated, and in the build with test points
 * (ring_hostile_narrow) at those. What was published meanwhile may have been hit; the rest holds.
 *
 * How many inputs are enough was measured: the checks of shared words in segment.c, ring.c, twin.c
 * and record.h were taken out one at a time. Most were missed within 10,000 inputs; the last one, a
 * record that reaches over the end of its arena, once in about 150,000. CRIER_LONG=1 takes 1,000,000.
 *
 *   ring_hostile             inputs from a seed that is printed
 *   ring_hostile SEED        the one that a failure has named
 *
 * With -DRING_HOSTILE_LIBFUZZER and clang's -fsanitize=fuzzer it is a target for libFuzzer.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/member.h"
#include "shm/testpoint.h"
#include "tests/lib/ring_rig.h"

enum {
    MASTER,
    READER,
    WRITER,
    DEAD,
    MEMBERS,
    BITS = 5,
    N = 1 << BITS,
    ARENA = 4096,
    GUARD = 1 << 20,
    STROKES = 40,
    CALL_SECONDS = 10,
    PAYLOAD_MAX_BYTES = 900,
#ifdef __SANITIZE_THREAD__ /* which has nothing to find in one thread, and is slow to map */
    INPUTS = 5000,
    INPUTS_LONG = 50000,
#else
    INPUTS = 100000,
    INPUTS_LONG = 1000000,
#endif
};

/* One step of an input. */
struct stroke {
    uint8_t where; /* enum area */
    uint8_t kind;  /* what is written */
    uint8_t act;
    uint8_t amount;
    uint32_t offset;
    uint64_t value;
};

enum area { AREA_HEAD, AREA_MEMBERS, AREA_SLOTS, AREA_RECORDS, AREA_GEOMETRY, AREA_ALL, AREAS };

static struct ring_rig rig;
static uint8_t *image; /* a ring at work, before anything in it was changed */
static struct segment segment;
static struct ring rings[MEMBERS];
static bool is_open[MEMBERS];
static char how_again[64];
static const struct stroke *within; /* the stroke that comes next within a call; NULL: none does */
static uint32_t member_within;
static uint64_t strokes_within;

/* What a call returns on rubbish is its own affair. */
static void
ignore(int result)
{
    (void)result;
}

/* --- the image --- */

/* What was published, until it may have been hit. */
struct published {
    uint64_t seq;
    size_t bytes;
    uint8_t fill;
};

static void
expect_found(const struct ring *ring, const struct published *published)
{
    struct record_ref record;

    REQUIRE(ring_read(ring, published->seq, &record) == 1);
    REQUIRE(record.head.frame_bytes - record.head.frame_head_bytes == published->bytes);
    REQUIRE(record.head.origin == published->fill && record.head.opcode == RECORD_TEXT);
    for (uint32_t i = record.head.frame_head_bytes; i < record.head.frame_bytes; i++)
        REQUIRE(record.frame[i] == published->fill);
}

/* A record, and what became of the one before it, `last` (seq 0: there is none). */
static void
put(struct ring *ring, size_t bytes, struct published *last)
{
    static uint8_t payload[PAYLOAD_MAX_BYTES];
    static uint8_t fill;
    struct published mine = {.bytes = bytes};
    uint64_t before = strokes_within;

    mine.fill = ++fill;
    memset(payload, fill, bytes);
    if (ring_publish(ring, RECORD_TEXT, payload, bytes, 0, fill, &mine.seq) != 0) {
        last->seq = 0;
        return;
    }
    REQUIRE(ring->arena.head % RECORD_ALIGN_BYTES == 0);
    if (strokes_within != before) {
        last->seq = 0;
        return;
    }
    expect_found(ring, &mine);
    if (last->seq && mine.seq - last->seq < N)
        expect_found(ring, last);
    *last = mine;
}

/* Several laps, a reader behind, a publisher that waits, a sleeper, one that died between slot and
 * tail. */
static void
draw_image(void)
{
    struct published last[2] = {{0}};

    ring_rig_open(&rig, MEMBERS, BITS, ARENA);
    for (uint32_t i = 0; i < MEMBERS; i++)
        REQUIRE(ring_open(&rings[i], &rig.segment, i, rig.wake_fds) == 0);
    for (unsigned i = 0; i < 5 * N; i++)
        put(&rings[WRITER + i % 2], i * 7 % 300, &last[i % 2]);
    (void)ring_join(&rings[READER]);
    for (unsigned i = 0; i < 2 * N; i++)
        put(&rings[WRITER + i % 2], i * 11 % 200, &last[i % 2]);
    ignore(ring_sleep_begin(&rings[READER], ring_tail(&rings[READER])));
    rig.segment.head->tail--;
    rig.segment.members[READER].clients_deflate = 1; /* so that twins are made */
    image = malloc(rig.segment.bytes);
    REQUIRE(image);
    memcpy(image, rig.segment.head, rig.segment.bytes);
}

/* --- the mapping, between pages that must not be touched --- */

static bool
attach(void)
{
    static uint8_t *fence;
    uint8_t *base;
    ptrdiff_t by;
    int rc = segment_attach(&segment, rig.fd, false);

    if (rc)
        return false;
    if (!fence) {
        fence = mmap(NULL, segment.bytes + (size_t)2 * GUARD, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(fence != MAP_FAILED);
    }
    base = mremap(segment.head, segment.bytes, segment.bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                  fence + GUARD);
    REQUIRE(base == fence + GUARD);
    by = base - (uint8_t *)segment.head;
    segment.head = (struct segment_shm *)base;
    segment.conf = &segment.head->conf;
    segment.members = (struct member_shm *)((uint8_t *)segment.members + by);
    segment.slots = (uint64_t *)((uint8_t *)segment.slots + by);
    segment.clients = (struct client_shm *)((uint8_t *)segment.clients + by);
    segment.arenas += by;
    return true;
}

static void
detach(void)
{
    /* The hole is closed again, so that nothing else gets there. */
    const void *hole = mmap(segment.head, segment.bytes, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    REQUIRE(hole == segment.head);
}

/* --- scribbling --- */

static uint64_t *
place_of(uint8_t *base, const struct stroke *stroke)
{
    const struct geometry_shm *geometry = &rig.segment.geometry;
    uint64_t seq = stroke->offset % N;
    uint64_t begin = 0;
    uint64_t bytes = rig.segment.bytes;

    switch ((enum area)(stroke->where % AREAS)) {
    case AREA_HEAD: bytes = sizeof(struct segment_shm); break;
    case AREA_MEMBERS:
        begin = geometry->members_off;
        bytes = MEMBERS * sizeof(struct member_shm);
        break;
    case AREA_SLOTS:
        begin = geometry->slots_off;
        bytes = N * sizeof(uint64_t);
        break;
    case AREA_RECORDS: /* the head of one that a slot names */
        memcpy(&begin, image + geometry->slots_off + seq * sizeof(uint64_t), sizeof(begin));
        begin = geometry->arenas_off +
                (begin >> RING_OFFSET_BITS & (RING_OWNERS_MAX - 1)) * geometry->arena_bytes +
                (begin & ((1U << RING_OFFSET_BITS) - 1)) * RECORD_ALIGN_BYTES;
        bytes = RECORD_HEAD_BYTES;
        return (uint64_t *)(base + begin + (stroke->offset >> 8) % (bytes / 8) * 8);
    case AREA_GEOMETRY:
        begin = offsetof(struct segment_shm, geometry);
        bytes = sizeof(struct geometry_shm);
        break;
    case AREA_ALL:
    case AREAS: break;
    }
    return (uint64_t *)(base + begin + stroke->offset % (bytes / 8) * 8);
}

static void
overwrite(uint64_t *at, const struct stroke *stroke)
{
    switch (stroke->kind % 8) {
    case 0: break; /* nothing this time */
    case 1: *at = stroke->value; break;
    case 2: *at ^= 1ULL << stroke->value % 64; break;
    case 3: /* offsets of areas stay aligned */
        *at += (uint64_t)(int64_t)(int8_t)stroke->value *
               (stroke->where % AREAS == AREA_GEOMETRY ? LAYOUT_LINE : 1);
        break;
    case 4: *at = stroke->value % 2 ? UINT64_MAX : 0; break;
    case 5: memcpy(at, &stroke->value, sizeof(uint32_t)); break;
    case 6: *at = segment.slots ? segment.slots[stroke->value % N] : stroke->value; break;
    case 7: *at = (uint64_t)1 << stroke->value % 64; break;
    }
}

static void
scribble(uint8_t *base, const struct stroke *stroke)
{
    overwrite(place_of(base, stroke), stroke);
}

/* While a member is in a call: once a call, and every other time over the head of the record that
 * it is writing. */
static void
scribble_within(void)
{
    const struct arena *arena = &rings[member_within].arena;
    const struct stroke *stroke = within;

    if (!stroke)
        return;
    within = NULL;
    strokes_within++;
    if (stroke->offset % 2)
        overwrite((uint64_t *)(arena->base + arena->reserved % arena->bytes) +
                      stroke->offset / 2 % (RECORD_HEAD_BYTES / sizeof(uint64_t)),
                  stroke);
    else
        scribble((uint8_t *)segment.head, stroke);
}

#ifdef CRIER_TESTPOINTS
static uint32_t points_left; /* until then */

static void
on_testpoint(enum testpoint point)
{
    (void)point;
    if (points_left == 0)
        scribble_within();
    else
        points_left--;
}

void (*testpoint_hook)(enum testpoint point) = on_testpoint;
#endif

/* As worker/proto/deflate.h: all the room that it has been given, and what it may write behind. */
static size_t
deflate_all(struct deflate *deflate, unsigned window_bits, const void *payload,
            size_t payload_bytes, uint8_t *out, size_t room_bytes)
{
    (void)deflate;
    (void)window_bits;
    (void)payload;
    (void)payload_bytes;
    scribble_within();
    memset(out, 0x5a, room_bytes + TWIN_SLACK_BYTES);
    return room_bytes;
}

/* --- what members do --- */

static volatile uint64_t sum; /* or the bytes would not be looked at */

static void
read_lap(struct ring *ring)
{
    struct record_ref record;
    uint64_t seq = ring->members[ring->self].cursor;

    for (unsigned i = 0; i < 2 * N && ring_read(ring, seq, &record) == 1; i++, seq++) {
        uint64_t offset = (uint64_t)(record.frame - segment.arenas) % ARENA;
        REQUIRE(offset + record.head.record_bytes <= ARENA + RECORD_HEAD_BYTES);
        REQUIRE(record.head.record_bytes <= ARENA / ARENA_RECORDS_MIN);
        for (uint32_t k = 0; k < record.head.frame_bytes; k++)
            sum += record.frame[k];
    }
    ring_cursor_store(ring, seq);
}

static void
look_back(const struct ring *ring)
{
    static uint64_t room[ARENA / ARENA_RECORDS_MIN / sizeof(uint64_t)];
    uint64_t end = ring_end(ring);

    for (uint64_t seq = end - 3 * N; seq != end + 2; seq++)
        ignore(ring_read_at(ring, seq, (struct record_shm *)room, sizeof(room)));
}

static void
act_as(struct ring *ring, const struct stroke *stroke)
{
    char words[LAST_WORDS_BYTES];
    char why[RING_WHY_BYTES];
    struct published last = {0};
    struct ring looker;

    switch (stroke->act % 13) {
    case 0: put(ring, stroke->amount, &last); break;
    case 1:
        for (unsigned i = 0; i < stroke->amount; i++)
            put(ring, i * 5 % PAYLOAD_MAX_BYTES, &last);
        ring_flush(ring);
        break;
    case 2: read_lap(ring); break;
    case 3: (void)ring_join(ring); break;
    case 4: ring_cursor_store(ring, stroke->value); break;
    case 5:
        ignore(ring_sleep_begin(ring, ring_tail(ring)));
        ring_sleep_end(ring);
        break;
    case 6: look_back(ring); break;
    case 7: (void)ring_check(ring, why); break;
    case 8: ring_retire(ring, stroke->amount % MEMBERS); break;
    case 9: (void)(ring_min(ring) + ring_pressure_seq(ring)); break;
    case 10: ring_leave(ring); break;
    case 11:
        ring_look(&looker, &segment);
        look_back(&looker);
        (void)ring_check(&looker, why);
        break;
    case 12:
        (void)member_last_words(&segment.members[ring->self], 0, words);
        (void)(member_clients_open(&segment) + member_counter_sum(&segment, 0));
        break;
    }
}

static void
do_stroke(const struct stroke *stroke, const struct stroke *next)
{
    uint32_t member = stroke->amount % MEMBERS;

    scribble((uint8_t *)segment.head, stroke);
    member_within = member;
    within = stroke->value % 2 ? next : NULL;
#ifdef CRIER_TESTPOINTS
    points_left = stroke->value >> 1 & 7;
#endif
    if (!is_open[member] || stroke->act >= 240) { /* a successor */
        atomic_store_relaxed(&segment.members[member].pid, 0U);
        is_open[member] = ring_open(&rings[member], &segment, member, rig.wake_fds) == 0;
        if (is_open[member])
            twin_init(&rings[member].twin, &segment, member, deflate_all, (struct deflate *)&rig);
    }
    if (is_open[member])
        act_as(&rings[member], stroke);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct stroke strokes[STROKES];
    size_t count = bytes / sizeof(strokes[0]);

    if (!image)
        draw_image();
    if (count > STROKES)
        count = STROKES;
    memcpy(strokes, data, count * sizeof(strokes[0]));
    memcpy(rig.segment.head, image, rig.segment.bytes);
    memset(is_open, 0, sizeof(is_open));
    segment.slots = NULL;
    alarm(CALL_SECONDS);
    /* The first half of the strokes is there before a process attaches. */
    for (size_t i = 0; i < count / 2; i++)
        scribble((uint8_t *)rig.segment.head, &strokes[i]);
    if (!attach())
        return 0;
    for (size_t i = count / 2; i < count; i++)
        do_stroke(&strokes[i], &strokes[(i + 1) % count]);
    within = NULL;
    detach();
    return 0;
}

#ifndef RING_HOSTILE_LIBFUZZER
static void
say_how(int signal)
{
    if (write(STDERR_FILENO, how_again, strlen(how_again)) < 0)
        _exit(2);
    (void)raise(signal); /* SA_RESETHAND */
}

static bool
is_header(uint8_t where)
{
    return where % AREAS == AREA_HEAD || where % AREAS == AREA_GEOMETRY;
}

/* Before a member attaches most inputs leave the header alone, or none could; one in sixteen
 * overwrites one word of the geometry and nothing else there. */
static void
run_seed(uint64_t seed)
{
    struct stroke strokes[STROKES];
    uint64_t random = seed;

    snprintf(how_again, sizeof(how_again), "reproduce it with: ring_hostile %" PRIu64 "\n", seed);
    for (unsigned i = 0; i < STROKES; i++) {
        uint64_t r = ring_rig_random(&random);
        strokes[i] = (struct stroke){.where = (uint8_t)r,
                                     .kind = (uint8_t)(r >> 8),
                                     .act = (uint8_t)(r >> 16),
                                     .amount = (uint8_t)(r >> 24),
                                     .offset = (uint32_t)(r >> 32),
                                     .value = ring_rig_random(&random)};
        if (seed % 16 == 8 && i == 0)
            strokes[i].where = AREA_GEOMETRY;
        else if (seed % 16 && i < STROKES / 2 && is_header(strokes[i].where))
            strokes[i].where = AREA_SLOTS;
        if (seed % 4 == 0)
            strokes[i].kind &= (uint8_t)(i % 4 ? 0xf8 : 0xff); /* few strokes, much work */
    }
    (void)LLVMFuzzerTestOneInput((const uint8_t *)strokes, sizeof(strokes));
}

int
main(int argc, char **argv)
{
    static const int signals[] = {SIGALRM, SIGSEGV, SIGBUS, SIGABRT, SIGFPE};
    struct sigaction action = {.sa_handler = say_how, .sa_flags = (int)SA_RESETHAND};
    uint64_t inputs = getenv("CRIER_LONG") ? INPUTS_LONG : INPUTS;
    uint64_t seed = ring_rig_now_ns();

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
    if (argc > 1) {
        run_seed(strtoull(argv[1], NULL, 10));
        return 0;
    }
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout); /* what follows may not end */
    for (uint64_t i = 0; i < inputs; i++)
        run_seed(seed + i);
    printf("%" PRIu64 " inputs\n", inputs);
    alarm(0);
    free(image);
    ring_rig_close(&rig);
    return 0;
}
#endif
