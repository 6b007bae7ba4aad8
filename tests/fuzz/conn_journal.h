/*
 * conn_journal.h: what was published while fuzz_conn.c gave the worker one input, in that order, and
 * what a client heard of it.
 *
 * Role:     fuzz_conn.c. Each publication is written down; a client's stream is then held against it.
 * Owns:     copies of payloads: journal_free.
 * Errors:   a broadcast that was not published, twice, or out of order aborts with a sentence.
 */
#ifndef CRIER_TESTS_FUZZ_CONN_JOURNAL_H
#define CRIER_TESTS_FUZZ_CONN_JOURNAL_H

#include <stdbool.h>

#include "tests/fuzz/fuzz.h"
#include "tests/lib/wire_check.h"

enum { JOURNAL_MAX = 16384 };

enum journal_who { JOURNAL_LISTENER, JOURNAL_CLIENT, JOURNAL_TOWN };

struct journal_entry {
    enum journal_who who;
    bool welcome; /* the first that `who` is due */
    bool said;    /* in a message of `who` */
    bool others;  /* for all but `who` */
    uint8_t opcode;
    uint8_t *payload;
    size_t bytes;
};

struct journal {
    struct journal_entry entries[JOURNAL_MAX];
    size_t count;
};

static inline void
journal_add(struct journal *journal, struct journal_entry entry, const void *payload)
{
    REQUIRE(journal->count < JOURNAL_MAX);
    entry.payload = fuzz_copy(payload, entry.bytes);
    journal->entries[journal->count++] = entry;
}

static inline void
journal_free(struct journal *journal)
{
    while (journal->count > 0)
        free(journal->entries[--journal->count].payload);
}

/* How far a client's stream has been held against the journal. */
struct hearing {
    const struct journal *journal;
    enum journal_who who;
    size_t first; /* its own welcome */
    size_t next;
    size_t got;
    size_t own;    /* not for it */
    size_t missed; /* between what it got */
};

/* A client that was let in: its welcome was published before. */
static inline struct hearing
hearing_begin(const struct journal *journal, enum journal_who who)
{
    struct hearing hearing = {.journal = journal, .who = who};

    while (hearing.next < journal->count &&
           !(journal->entries[hearing.next].welcome && journal->entries[hearing.next].who == who))
        hearing.next++;
    REQUIRE(hearing.next < journal->count);
    hearing.first = hearing.next;
    return hearing;
}

/* What is due next. NULL: nothing. */
static inline const struct journal_entry *
hearing_next(struct hearing *hearing)
{
    while (hearing->next < hearing->journal->count) {
        const struct journal_entry *entry = &hearing->journal->entries[hearing->next++];
        if (!entry->others || entry->who != hearing->who)
            return entry;
        hearing->own++;
    }
    return NULL;
}

static inline void
hear_broadcast(struct hearing *hearing, const struct wire_frame *frame)
{
    const struct journal_entry *entry;

    while ((entry = hearing_next(hearing))) {
        if (entry->opcode == frame->opcode && entry->bytes == frame->bytes &&
            memcmp(entry->payload, frame->payload, frame->bytes) == 0) {
            hearing->got++;
            return;
        }
        hearing->missed++;
    }
    REQUIRE(!"a broadcast that was not due, or not in this order");
}

/* Half a frame at the end of a stream: it begins as one that was due. */
static inline void
hear_half_broadcast(struct hearing hearing, const struct wire_frame *half)
{
    const struct journal_entry *entry;

    if (half->bytes == 0)
        return;
    while ((entry = hearing_next(&hearing))) {
        if (half->opcode == entry->opcode && half->bytes <= entry->bytes &&
            memcmp(half->payload, entry->payload, half->bytes) == 0)
            return;
    }
    REQUIRE(!"half a broadcast that was not due");
}

/* Behind the stream's end: how many it was due and did not get, gaps and what is behind the last. */
static inline size_t
hearing_end(struct hearing *hearing)
{
    size_t count = hearing->missed;

    while (hearing_next(hearing))
        count++;
    return count;
}

#endif
