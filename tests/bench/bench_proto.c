/*
 * bench_proto.c: what it costs to unmask a payload and to check its text, beside memcpy and beside
 * a byte-wise automaton, in the same run.
 *
 *   64 KiB     The payload of one frame, to another place or left where it is, by each
 *              implementation of wide.h. Source and target begin where payloads do: behind the head
 *              of a client's frame, and behind the head of a server's. memcpy moves the same bytes
 *              between the same places. In place the key is zero, so that text stays text: the work
 *              is the same.
 *   automaton  The plain one: a row of 256 bytes for each state, one look-up per byte. It has only
 *              to look at the text; what it is compared with unmasks and copies it too.
 *   short      Nanoseconds per call, one call after the other, for payloads of a few bytes.
 *
 * Everything runs once in each round, one after the other, so that a noisy neighbour meets all of
 * it: compare figures of one run with each other only. The exit status does not depend on the
 * targets.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/proto/mask.h"
#include "worker/proto/utf8.h"
#include "worker/proto/wide.h"

enum {
    ROUNDS = 101,
    LARGE_BYTES = 65536,
    LARGE_CALLS = 32, /* in a round */
    SHORT_CALLS = 4096,
    FROM_OFFSET = 14, /* heads of frames with a payload of 64 KiB, RFC 6455 section 5.2 */
    TO_OFFSET = 10,
    PAGE_BYTES = 4096,
    ROOM_BYTES = LARGE_BYTES + PAGE_BYTES,
    CELLS_MAX = 64,
};

static const uint8_t a_key[4] = {0x37, 0xfa, 0x21, 0x3d};
static const uint8_t no_key[4];

static const char ascii[] = "The quick brown fox jumps over the lazy dog, 1234567890 times. ";
static const char mixed[] =
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, à côté de l'été. "
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Съешь же ещё этих мягких французских булок. "
    "いろはにほへと散りぬるを、我が世誰ぞ常ならむ。天地玄黃宇宙洪荒。키스의 고유조건은 입술끼리. "
    "😀👍🏽🚀🎉 👩‍👩‍👧‍👦 ";

enum what { WHAT_MASK, WHAT_ASCII, WHAT_MIXED, WHATS };

static const uint8_t short_bytes[] = {5, 64};

enum { SHORTS = sizeof(short_bytes) / sizeof(short_bytes[0]) };

struct cell {
    const struct wide *wide;
    enum what what;
    bool in_place;
    size_t bytes;
    double ns[ROUNDS]; /* per call */
};

static struct cell cells[CELLS_MAX];
static int cell_count;

/* A text without and with its mask, and room to copy to. */
static _Alignas(PAGE_BYTES) uint8_t plain[ROOM_BYTES];
static _Alignas(PAGE_BYTES) uint8_t sent[ROOM_BYTES];
static _Alignas(PAGE_BYTES) uint8_t target[ROOM_BYTES];

static void
require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "bench_proto: %s\n", what);
        abort();
    }
}

/* --- the automaton --- */

enum {
    STATE_BETWEEN,
    STATE_BAD,
    STATE_TAIL_1,
    STATE_TAIL_2,
    STATE_TAIL_3,
    STATE_E0,
    STATE_ED,
    STATE_F0,
    STATE_F4,
    STATES,
};

static uint8_t automaton[STATES][256];

static void
automaton_build(void)
{
    static const struct {
        uint8_t state, first, last, next;
    } edges[] = {
        {STATE_BETWEEN, 0x00, 0x7f, STATE_BETWEEN}, {STATE_BETWEEN, 0xc2, 0xdf, STATE_TAIL_1},
        {STATE_BETWEEN, 0xe0, 0xe0, STATE_E0},      {STATE_BETWEEN, 0xe1, 0xec, STATE_TAIL_2},
        {STATE_BETWEEN, 0xed, 0xed, STATE_ED},      {STATE_BETWEEN, 0xee, 0xef, STATE_TAIL_2},
        {STATE_BETWEEN, 0xf0, 0xf0, STATE_F0},      {STATE_BETWEEN, 0xf1, 0xf3, STATE_TAIL_3},
        {STATE_BETWEEN, 0xf4, 0xf4, STATE_F4},      {STATE_TAIL_1, 0x80, 0xbf, STATE_BETWEEN},
        {STATE_TAIL_2, 0x80, 0xbf, STATE_TAIL_1},   {STATE_TAIL_3, 0x80, 0xbf, STATE_TAIL_2},
        {STATE_E0, 0xa0, 0xbf, STATE_TAIL_1},       {STATE_ED, 0x80, 0x9f, STATE_TAIL_1},
        {STATE_F0, 0x90, 0xbf, STATE_TAIL_2},       {STATE_F4, 0x80, 0x8f, STATE_TAIL_2},
    };

    memset(automaton, STATE_BAD, sizeof(automaton));
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        for (unsigned byte = edges[i].first; byte <= edges[i].last; byte++)
            automaton[edges[i].state][byte] = edges[i].next;
}

static uint8_t
automaton_walk(const uint8_t *text, size_t bytes)
{
    uint8_t state = STATE_BETWEEN;

    for (size_t i = 0; i < bytes; i++)
        state = automaton[state][text[i]];
    return state;
}

/* --- measuring --- */

static double
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* As many whole characters as there is room for, then blanks. */
static void
fill(uint8_t *to, size_t bytes, const char *text, size_t length)
{
    size_t at = 0;

    for (; bytes - at >= length; at += length)
        memcpy(to + at, text, length);
    length = bytes - at;
    while (length && ((uint8_t)text[length] & 0xc0) == 0x80)
        length--;
    memcpy(to + at, text, length);
    memset(to + at + length, ' ', bytes - at - length);
}

/* A cell without an implementation is what the others are compared with. */
static void
call_other(const struct cell *cell)
{
    if (cell->what == WHAT_MASK)
        memcpy(target + TO_OFFSET, sent + FROM_OFFSET, cell->bytes);
    else
        require(automaton_walk(plain + TO_OFFSET, cell->bytes) == STATE_BETWEEN, "not UTF-8");
}

static void
call_wide(const struct cell *cell)
{
    const uint8_t *key = cell->in_place ? no_key : a_key;
    uint8_t *to = target + TO_OFFSET;
    const uint8_t *from = cell->in_place ? to : sent + FROM_OFFSET;

    if (cell->what == WHAT_MASK)
        mask_copy(to, from, cell->bytes, key, 0);
    else
        require(utf8_unmask(UTF8_ACCEPT, to, from, cell->bytes, key, 0) == UTF8_ACCEPT,
                "not UTF-8");
}

static void
measure(struct cell *cell, int round)
{
    void (*call)(const struct cell *) = cell->wide ? call_wide : call_other;
    int calls = cell->bytes == LARGE_BYTES ? LARGE_CALLS : SHORT_CALLS;
    double begin_ns = 0;

    if (cell->what == WHAT_MIXED)
        fill(plain + TO_OFFSET, cell->bytes, mixed, sizeof(mixed) - 1);
    else
        fill(plain + TO_OFFSET, cell->bytes, ascii, sizeof(ascii) - 1);
    mask_copy(sent + FROM_OFFSET, plain + TO_OFFSET, cell->bytes, a_key, 0);
    memcpy(target, plain, sizeof(target));
    if (cell->wide)
        wide_use(cell->wide);
    for (int i = -1; i < calls; i++) { /* one to warm up */
        if (i == 0)
            begin_ns = now_ns();
        call(cell);
        __asm__ volatile("" ::: "memory"); /* each of them really happens */
    }
    cell->ns[round] = (now_ns() - begin_ns) / calls;
    if (cell->wide)
        require(!memcmp(target + TO_OFFSET, plain + TO_OFFSET, cell->bytes), "not what was sent");
}

static int
compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Values of the rounds are in order afterwards. */
static void
measure_all(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < cell_count; i++)
            measure(&cells[i], round);
    }
    for (int i = 0; i < cell_count; i++)
        qsort(cells[i].ns, ROUNDS, sizeof(cells[i].ns[0]), compare_double);
}

/* --- the cells --- */

static void
cell_add(const struct wide *wide, enum what what, bool in_place, size_t bytes)
{
    require(cell_count < CELLS_MAX, "too many cells");
    cells[cell_count++] =
        (struct cell){.wide = wide, .what = what, .in_place = in_place, .bytes = bytes};
}

static void
cells_add(void)
{
    cell_add(NULL, WHAT_MASK, false, LARGE_BYTES);
    cell_add(NULL, WHAT_MIXED, false, LARGE_BYTES);
    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if (!(*wide)->runs_here())
            continue;
        for (enum what what = 0; what < WHATS; what++) {
            cell_add(*wide, what, false, LARGE_BYTES);
            cell_add(*wide, what, true, LARGE_BYTES);
            for (size_t i = 0; i < SHORTS; i++)
                cell_add(*wide, what, false, short_bytes[i]);
        }
    }
}

/* The median of a cell. */
static double
cell_ns(const struct wide *wide, enum what what, bool in_place, size_t bytes)
{
    const struct cell *cell = cells;

    while (cell->wide != wide || cell->what != what || cell->in_place != in_place ||
           cell->bytes != bytes)
        cell++;
    return cell->ns[ROUNDS / 2];
}

/* --- the report --- */

static void
print_large(double memcpy_ns, double automaton_ns)
{
    printf("proto: medians of %d rounds\n\n"
           "%d KiB, time relative to memcpy, which takes %.2f us (%.1f GB/s); the automaton takes "
           "%.1f us\n\n"
           "            unmask            ASCII text        mixed text        automaton /\n"
           "            copied in place   copied in place   copied in place   mixed text copied\n",
           ROUNDS, LARGE_BYTES >> 10, memcpy_ns / 1e3, LARGE_BYTES / memcpy_ns, automaton_ns / 1e3);
    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if (!(*wide)->runs_here())
            continue;
        printf("  %-8s", (*wide)->name);
        for (enum what what = 0; what < WHATS; what++)
            printf("  %6.2f %8.2f ", cell_ns(*wide, what, false, LARGE_BYTES) / memcpy_ns,
                   cell_ns(*wide, what, true, LARGE_BYTES) / memcpy_ns);
        printf("  %17.1f\n", automaton_ns / cell_ns(*wide, WHAT_MIXED, false, LARGE_BYTES));
    }
}

static void
print_short(void)
{
    printf("\nshort payloads, copied, nanoseconds per call\n\n");
    for (size_t i = 0; i < SHORTS; i++)
        printf("  %2d bytes         unmask  ASCII text  mixed text%s", short_bytes[i],
               i + 1 < SHORTS ? " " : "\n");
    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if (!(*wide)->runs_here())
            continue;
        for (size_t i = 0; i < SHORTS; i++) {
            printf("  %-14s", i ? "" : (*wide)->name);
            for (enum what what = 0; what < WHATS; what++)
                printf("  %8.1f", cell_ns(*wide, what, false, short_bytes[i]));
        }
        printf("\n");
    }
}

/* `shortfall` is how many times too slow it is: at most 1 when the target is met. */
static void
print_target(const char *what, double value, double shortfall)
{
    printf("  %-68s %6.2f times", what, value);
    if (shortfall <= 1)
        printf("  met\n");
    else
        printf("  MISSED by %.0f %%\n", (shortfall - 1) * 100);
}

static void
print_targets(const struct wide *best, double memcpy_ns, double automaton_ns)
{
    double unmask = cell_ns(best, WHAT_MASK, false, LARGE_BYTES) / memcpy_ns;
    double text = cell_ns(best, WHAT_ASCII, false, LARGE_BYTES) / memcpy_ns;
    double speed = automaton_ns / cell_ns(best, WHAT_MIXED, false, LARGE_BYTES);

    printf("\ntargets, for %s\n\n", best->name);
    print_target("unmask and copy: at most 1.2 times memcpy", unmask, unmask / 1.2);
    print_target("unmask, copy and check ASCII text: at most 2 times memcpy", text, text / 2);
    print_target("unmask, copy and check mixed text: 4 times as fast as the automaton", speed,
                 4 / speed);
}

int
main(void)
{
    const struct wide *best = wide_now;
    double memcpy_ns, automaton_ns;

    automaton_build();
    cells_add();
    measure_all();
    memcpy_ns = cell_ns(NULL, WHAT_MASK, false, LARGE_BYTES);
    automaton_ns = cell_ns(NULL, WHAT_MIXED, false, LARGE_BYTES);
    print_large(memcpy_ns, automaton_ns);
    print_short();
    print_targets(best, memcpy_ns, automaton_ns);
    return 0;
}
