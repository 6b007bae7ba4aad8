/*
 * crier_ring.c: crier-ring, which shows the ring of a running server or of an image: members,
 * cursors, lag, room, last messages. It only reads, so it works while every process of the server
 * is stopped; what a server at work shows is true for a moment, not all for the same one.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/atomic.h"
#include "shm/member.h"
#include "shm/ring.h"
#include "shm/util/escape.h"
#include "shm/util/output.h"
#include "shm/util/program.h"
#include "tools/image.h"
#include "tools/locate.h"

enum {
    RING_TOOL_LAST = 10,
    RING_TOOL_LAST_MAX = 1000000,
    RING_TOOL_TEXT_BYTES = 72,
    RING_TOOL_TRIES = 10, /* of the invariants, in a ring that does not hold still */
    RING_TOOL_EXIT_USAGE = 2,
};

static const char usage[] = /* of printf: the name of the program, twice */
    "Usage: %s [--last N] [--counters] [PID|IMAGE]\n"
    "       %s --save IMAGE [PID]\n"
    "Shows the ring of the server that runs, of the one with process PID, or of an image\n"
    "that --save has written: members, cursors, lag, room, and the last messages.\n\n"
    "  -n, --last N      show the last N messages (default: 10)\n"
    "  -c, --counters    show every counter and histogram, summed over all members, instead\n"
    "      --save IMAGE  write an image of the segment; the file must not exist\n"
    "      --help        this text\n"
    "      --version     the version\n";

/* --- the ring as a whole --- */

/* Bytes from the oldest record that is still needed to the newest, of one publisher. */
static uint64_t
arena_used(const struct ring *ring, uint32_t member, uint64_t min, uint64_t end)
{
    uint64_t used = 0;
    uint64_t at = 0;

    if (end - min > ring->mask + 1)
        min = end - ring->mask - 1;
    for (uint64_t seq = min; seq != end; seq++) {
        struct ring_place place;
        if (ring_place(ring, seq, &place) != 1 || place.owner != member)
            continue;
        if (used > 0) /* and what lies between the last one and this */
            used += (place.offset + ring->arena_bytes - at) % ring->arena_bytes;
        used += place.record_bytes;
        at = place.offset + place.record_bytes;
    }
    return used < ring->arena_bytes ? used : ring->arena_bytes;
}

static void
print_head(const struct located *located, const struct ring *ring, uint64_t min, uint64_t end)
{
    char image[4 * PATH_MAX];
    const struct segment_shm *head = located->segment.head;
    uint32_t starving = atomic_load_relaxed(&head->starving);

    if (located->image) {
        escape_text(image, sizeof(image), located->image, strlen(located->image), ESCAPE_LINE);
        printf("image %s of", image);
    }
    printf("%s server %" PRIu32 ", phase %s, epoch %016" PRIx64 "\n",
           located->image ? "" : "running", atomic_load_relaxed(&ring->members[MEMBER_MASTER].pid),
           phase_name((enum phase)atomic_load_relaxed(&head->phase)), head->epoch);
    printf("next message #%" PRIu64 ", needed from #%" PRIu64 " on; %" PRIu64 " of %" PRIu64
           " slots in use, %" PRIu64 " bytes per publisher%s\n\n",
           end, min, end - min, ring->mask + 1, ring->arena_bytes,
           starving ? "; a publisher waits for room" : "");
}

static void
print_member(const struct ring *ring, uint32_t i, uint64_t min, uint64_t end)
{
    const struct member_shm *member = &ring->members[i];
    uint64_t cursor = atomic_load_acquire(&member->cursor);
    uint64_t need = atomic_load_relaxed(&member->need_seq);
    uint64_t pressure = atomic_load_relaxed(&member->pressure_seq);
    char words[LAST_WORDS_BYTES];
    char shown[4 * LAST_WORDS_BYTES];
    char cursor_text[24] = "-";
    char lag_text[24] = "-";

    if (cursor != MEMBER_NO_CURSOR) {
        snprintf(cursor_text, sizeof(cursor_text), "%" PRIu64, cursor);
        snprintf(lag_text, sizeof(lag_text), "%" PRId64, (int64_t)(end - cursor));
    }
    printf("%4" PRIu32 "  %-6s %8" PRIu32 "  %-8s %5" PRIu32 " %9" PRIu64 " %8" PRIu64
           " %12s %8s %5.1f%%  #%" PRIu64,
           i, i == MEMBER_MASTER ? "master" : "worker", atomic_load_relaxed(&member->pid),
           member_state_name((enum member_state)atomic_load_relaxed(&member->state)),
           atomic_load_relaxed(&member->life), atomic_load_relaxed(&member->heartbeat),
           atomic_load_relaxed(&member->clients_open), cursor_text, lag_text,
           100.0 * (double)arena_used(ring, i, min, end) / (double)ring->arena_bytes,
           atomic_load_relaxed(&member->floor_seq));
    if (atomic_load_relaxed(&member->sleeping))
        printf(", asleep");
    if (need)
        printf(", waits until all have passed #%" PRIu64, need);
    if (pressure)
        printf(", pressure below #%" PRIu64, pressure);
    putchar('\n');
    if (*member_last_words(member, 0, words)) {
        escape_text(shown, sizeof(shown), words, strlen(words), ESCAPE_LINE);
        printf("      last words of life %" PRIu32 ": %s\n",
               atomic_load_relaxed(&member->last_words_life), shown);
    }
}

/* Of a ring at work a part may have moved on while another was looked at. */
static void
print_invariants(const struct ring *ring)
{
    char why[RING_WHY_BYTES];
    int tries = RING_TOOL_TRIES;

    while (tries > 0 && !ring_check(ring, why))
        tries--;
    if (tries > 0)
        printf("\nthe invariants hold\n");
    else
        printf("\nthe invariants did not hold in %d readings, which a busy ring may cause: %s\n",
               RING_TOOL_TRIES, why);
}

/* --- messages --- */

static void
print_payload(const struct record_shm *record)
{
    const uint8_t *payload = record_frame(record) + record->frame_head_bytes;
    uint32_t bytes = record->frame_bytes - record->frame_head_bytes;
    uint32_t shown = bytes < RING_TOOL_TEXT_BYTES ? bytes : RING_TOOL_TEXT_BYTES;
    char text[4 * RING_TOOL_TEXT_BYTES + 1];

    while (shown < bytes && shown > 0 && (payload[shown] & 0xc0) == 0x80)
        shown--; /* not in the middle of a character */
    escape_text(text, sizeof(text), payload, shown, ESCAPE_QUOTED);
    printf("\"%s\"%s\n", text, shown < bytes ? "..." : "");
}

static void
print_record(uint64_t seq, const struct record_shm *record, uint64_t wall_offset_ns)
{
    uint64_t time_ns = record->time_ns + wall_offset_ns;
    time_t seconds = (time_t)(time_ns / 1000000000U);
    char text[32] = "";
    struct tm tm;

    if (localtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%H:%M:%S", &tm);
    printf("#%-10" PRIu64 " %s.%03u  %-6s %8" PRIu32 " bytes  ", seq, text,
           (unsigned)(time_ns / 1000000 % 1000),
           record->opcode == RECORD_TEXT     ? "text"
           : record->opcode == RECORD_BINARY ? "binary"
                                             : "odd",
           record->frame_bytes - record->frame_head_bytes);
    if (record->twin_bytes)
        printf("deflated %" PRIu32 "  ", record->twin_bytes - record->twin_head_bytes);
    if (record->origin != RECORD_NO_ORIGIN)
        printf("client %" PRIu32 "  ", (uint32_t)record->origin);
    print_payload(record);
}

static bool
print_last(const struct ring *ring, uint64_t last)
{
    size_t room = ring->arena_bytes / ARENA_RECORDS_MIN;
    struct record_shm *copy = malloc(room + sizeof(*copy));
    uint64_t end = ring_end(ring);
    uint64_t seq = end - RING_FIRST_SEQ < last ? RING_FIRST_SEQ : end - last;
    uint64_t gone = 0;

    if (!copy) {
        program_complain("no memory for a message");
        return false;
    }
    for (; seq != end; seq++) {
        int rc = ring_read_at(ring, seq, copy, room);
        if (rc == 1)
            print_record(seq, copy, atomic_load_relaxed(&ring->head->wall_offset_ns));
        else if (rc == -ENODATA)
            gone++;
        else
            printf("#%-10" PRIu64 " is not readable\n", seq);
    }
    if (gone)
        printf("(%" PRIu64 " before or among them are gone)\n", gone);
    free(copy);
    return true;
}

static bool
print_all(const struct located *located, uint64_t last)
{
    struct ring ring;
    uint64_t min;
    uint64_t end;

    ring_look(&ring, &located->segment);
    min = ring_min(&ring);
    end = ring_end(&ring);
    print_head(located, &ring, min, end);
    printf("%4s  %-6s %8s  %-8s %5s %9s %8s %12s %8s %6s  %s\n", "no", "role", "pid", "state",
           "life", "heartbeat", "clients", "cursor", "lag", "arena", "history from");
    for (uint32_t i = 0; i < ring.member_count; i++)
        print_member(&ring, i, min, end);
    print_invariants(&ring);
    if (last)
        putchar('\n');
    return print_last(&ring, last);
}

static void
print_counters(const struct segment *segment)
{
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        printf("%-25s %12" PRIu64 "  %s\n", counter_name((enum counter)i),
               member_counter_sum(segment, (enum counter)i), counter_help((enum counter)i));
}

static void
print_histograms(const struct segment *segment)
{
    static const double percents[] = {50, 90, 99, 99.9};
    struct histogram_shm sum;

    for (unsigned i = 0; i < HISTOGRAM_COUNT; i++) {
        member_histogram_sum(segment, (enum histogram)i, &sum);
        printf("%-25s %12" PRIu64 "  ", histogram_name((enum histogram)i), histogram_count(&sum));
        for (size_t p = 0; p < sizeof(percents) / sizeof(percents[0]); p++)
            printf("p%g=%.1fus ", percents[p],
                   (double)histogram_value_at(&sum, percents[p] / 100) / 1e3);
        printf("max=%.1fus  %s\n", (double)sum.max_ns / 1e3, histogram_help((enum histogram)i));
    }
}

/* --- the command line --- */

struct arguments {
    bool counters;
    const char *save;
    const char *what;
    uint64_t last;
};

static bool
parse_last(const char *text, uint64_t *last)
{
    char *rest;

    *last = strtoull(text, &rest, 10);
    if (*text >= '0' && *text <= '9' && !*rest && *last <= RING_TOOL_LAST_MAX)
        return true;
    program_complain("--last wants a number up to %d, not '%.80s'", RING_TOOL_LAST_MAX, text);
    return false;
}

/* -1: go on; otherwise the exit code. */
static int
parse(struct arguments *arguments, int argc, char **argv)
{
    enum { OPTION_SAVE = 256, OPTION_HELP, OPTION_VERSION };
    static const struct option options[] = {
        {"last", required_argument, NULL, 'n'},         {"counters", no_argument, NULL, 'c'},
        {"save", required_argument, NULL, OPTION_SAVE}, {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION}, {NULL, 0, NULL, 0},
    };
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, ":n:c", options, NULL)) != -1) {
        if (option == '?' || option == ':') {
            program_complain_option(argv, options, option);
            return RING_TOOL_EXIT_USAGE;
        }
        if (option == OPTION_HELP) {
            printf(usage, program_name(), program_name());
            return EXIT_SUCCESS;
        }
        if (option == OPTION_VERSION) {
            printf("%s " CRIER_VERSION "\n", program_name());
            return EXIT_SUCCESS;
        }
        if (option == OPTION_SAVE)
            arguments->save = optarg;
        else if (option == 'c')
            arguments->counters = true;
        else if (option != 'n' || !parse_last(optarg, &arguments->last))
            return RING_TOOL_EXIT_USAGE;
    }
    if (optind < argc)
        arguments->what = argv[optind++];
    if (optind == argc)
        return -1;
    program_complain("one process or image at a time, not '%.80s' too", argv[optind]);
    return RING_TOOL_EXIT_USAGE;
}

static int
run(int argc, char **argv)
{
    struct arguments arguments = {.last = RING_TOOL_LAST};
    struct located located;
    bool good = true;
    int code = parse(&arguments, argc, argv);

    if (code >= 0)
        return code;
    if (!locate(&located, arguments.what))
        return EXIT_FAILURE;
    if (arguments.save)
        good = image_save(&located, arguments.save);
    else if (arguments.counters) {
        print_counters(&located.segment);
        print_histograms(&located.segment);
    } else
        good = print_all(&located, arguments.last);
    locate_close(&located);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
    int code;

    program_open(argv, "crier-ring");
    code = output_begin() == 0 ? run(argc, argv) : EXIT_FAILURE;
    return output_end() == 0 || code ? code : EXIT_FAILURE;
}
