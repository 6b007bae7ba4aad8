/*
 * The filler is a piece of one endless text of period FILLER_PERIOD, a prime; where it starts is
 * what depends on the stamp. So it is written with memcpy and checked with memcmp.
 */
#include "tools/bench_stamp.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

enum {
    FILLER_PERIOD = 1021,
    FILLER_PIECE = 1024, /* as much as is copied or compared at once */
    DIGIT_BITS = 6,
    DIGITS = 1 << DIGIT_BITS,
    ID_AT = 1,
    ID_DIGITS = 2,
    SEQ_AT = ID_AT + ID_DIGITS,
    SEQ_DIGITS = 5,
    DUE_AT = SEQ_AT + SEQ_DIGITS,
    DUE_DIGITS = 7,
    CHECK_AT = DUE_AT + DUE_DIGITS,
};

_Static_assert(CHECK_AT + 1 == BENCH_STAMP_BYTES, "the check ends the stamp");
_Static_assert(1 << (ID_DIGITS * DIGIT_BITS) == BENCH_STAMP_IDS, "ids fit");
_Static_assert(1 << (SEQ_DIGITS * DIGIT_BITS) == BENCH_STAMP_SEQS, "sequence numbers fit");

static const char digits[DIGITS + 1] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

static char filler_text[FILLER_PERIOD + FILLER_PIECE];
static uint8_t digit_values[256]; /* DIGITS: it is none */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void
tables_make(void)
{
    uint32_t dice = 1;

    memset(digit_values, DIGITS, sizeof(digit_values));
    for (int i = 0; i < DIGITS; i++)
        digit_values[(uint8_t)digits[i]] = (uint8_t)i;
    for (size_t i = 0; i < sizeof(filler_text); i++) {
        dice =
            dice * 1664525 + 1013904223; /* a linear congruence; its upper bits are good enough */
        filler_text[i] = i < FILLER_PERIOD ? digits[dice >> 26] : filler_text[i - FILLER_PERIOD];
    }
}

static void
number_write(char *to, int count, uint64_t value)
{
    for (int i = count - 1; i >= 0; i--) {
        to[i] = digits[value % DIGITS];
        value /= DIGITS;
    }
}

/* What is gathered over the digits of a stamp, each looked up once: this is the hottest place. */
struct digits_seen {
    uint32_t all; /* or of all: DIGITS and more when a character was none */
    uint32_t sum;
};

/* Odd weights: a digit that changes by less than 64 changes the sum modulo 64. */
static inline uint64_t
number_read(struct digits_seen *seen, const char *head, uint32_t at, uint32_t count)
{
    uint64_t value = 0;

#pragma GCC unroll 8
    for (uint32_t i = at; i < at + count; i++) {
        uint32_t digit = digit_values[(uint8_t)head[i]];

        seen->all |= digit;
        seen->sum += (2 * i + 1) * digit;
        value = value << DIGIT_BITS | digit;
    }
    return value;
}

static uint16_t
filler_start(const struct bench_stamp *stamp)
{
    uint64_t mixed =
        (stamp->due_ns / BENCH_STAMP_TICK_NS ^ (uint64_t)stamp->seq << 20 ^ stamp->id) *
        UINT64_C(0x9e3779b97f4a7c15);

    return (uint16_t)((mixed >> 32) % FILLER_PERIOD);
}

void
bench_stamp_write(const struct bench_stamp *stamp, char *to, size_t bytes)
{
    uint32_t filler = filler_start(stamp);
    struct digits_seen seen = {0};

    pthread_once(&tables_once, tables_make);
    assert(bytes >= BENCH_STAMP_BYTES);
    to[0] = '~';
    number_write(to + ID_AT, ID_DIGITS, stamp->id);
    number_write(to + SEQ_AT, SEQ_DIGITS, stamp->seq);
    number_write(to + DUE_AT, DUE_DIGITS, stamp->due_ns / BENCH_STAMP_TICK_NS);
    (void)number_read(&seen, to, ID_AT, CHECK_AT - ID_AT);
    to[CHECK_AT] = digits[seen.sum % DIGITS];
    for (size_t at = BENCH_STAMP_BYTES; at < bytes;) {
        size_t piece = bytes - at < FILLER_PIECE ? bytes - at : FILLER_PIECE;
        memcpy(to + at, filler_text + filler, piece);
        filler = (uint32_t)(filler + piece) % FILLER_PERIOD;
        at += piece;
    }
}

static enum bench_verdict
head_read(struct bench_reader *reader, const char *head)
{
    struct digits_seen seen = {0};
    uint64_t id = number_read(&seen, head, ID_AT, ID_DIGITS);
    uint64_t seq = number_read(&seen, head, SEQ_AT, SEQ_DIGITS);
    uint64_t due = number_read(&seen, head, DUE_AT, DUE_DIGITS);

    if (head[0] != '~')
        return BENCH_FOREIGN;
    if (seen.all >= DIGITS || head[CHECK_AT] != digits[seen.sum % DIGITS])
        return BENCH_CORRUPT;
    reader->stamp = (struct bench_stamp){
        .due_ns = due * BENCH_STAMP_TICK_NS, .seq = (uint32_t)seq, .id = (uint16_t)id};
    reader->filler = filler_start(&reader->stamp);
    return BENCH_MORE;
}

static void
filler_feed(struct bench_reader *reader, const char *data, size_t bytes)
{
    while (bytes > 0) {
        size_t piece = bytes < FILLER_PIECE ? bytes : FILLER_PIECE;

        if (memcmp(data, filler_text + reader->filler, piece) != 0) {
            reader->verdict = BENCH_CORRUPT;
            return;
        }
        reader->filler = (uint16_t)((reader->filler + piece) % FILLER_PERIOD);
        data += piece;
        bytes -= piece;
    }
}

void
bench_stamp_feed(struct bench_reader *reader, const char *data, size_t bytes)
{
    size_t head = 0;

    pthread_once(&tables_once, tables_make);
    if (reader->bytes == 0 && bytes >= BENCH_STAMP_BYTES) {
        head = BENCH_STAMP_BYTES;
        reader->verdict = head_read(reader, data);
    } else if (reader->bytes < BENCH_STAMP_BYTES) {
        head = BENCH_STAMP_BYTES - reader->bytes;
        head = bytes < head ? bytes : head;
        memcpy(reader->head + reader->bytes, data, head);
        if (reader->bytes + head == BENCH_STAMP_BYTES)
            reader->verdict = head_read(reader, reader->head);
    }
    reader->bytes += (uint32_t)bytes;
    if (reader->verdict == BENCH_MORE && bytes > head)
        filler_feed(reader, data + head, bytes - head);
}

enum bench_verdict
bench_stamp_end(struct bench_reader *reader, size_t bytes)
{
    enum bench_verdict verdict = reader->verdict;

    if (verdict == BENCH_MORE && reader->bytes < BENCH_STAMP_BYTES)
        verdict = BENCH_FOREIGN;
    else if (verdict == BENCH_MORE)
        verdict = reader->bytes == bytes ? BENCH_GOOD : BENCH_CORRUPT;
    reader->bytes = 0;
    reader->verdict = BENCH_MORE;
    return verdict;
}
