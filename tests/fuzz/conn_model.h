/*
 * conn_model.h: what the application of fuzz_conn.c, behind a right server, answers to a client, and
 * what it publishes for it.
 *
 * Role:     fuzz_conn.c. What a message begins with says what becomes of it: `b` is for all clients,
 *           `o` for all others and goes back, too, `c` and `f` close, all else goes back.
 * Owns:     what it inflates: model_free, heard_free.
 * Errors:   whatever was not to be sent aborts with a sentence.
 */
#ifndef CRIER_TESTS_FUZZ_CONN_MODEL_H
#define CRIER_TESTS_FUZZ_CONN_MODEL_H

#include "shm/layout.h"
#include "tests/fuzz/conn_journal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/frame_oracle.h"
#include "tests/lib/wire_check.h"
#include "worker/proto/frame.h"

enum { MODEL_MESSAGE_MAX_BYTES = 1000 };

/* When a client has come, and has gone. */
#define MODEL_WELCOME "b welcome"
#define MODEL_GOODBYE "b goodbye"

/* --- the model: what the client is to be told --- */

enum {
    WANTED_MAX = 8192,
    ANY_FAILURE = 0xff, /* as an opcode: a Close with a code of the protocol's */
};

struct wanted {
    uint8_t opcode;
    const uint8_t *payload;
    size_t bytes;
    uint8_t code[2];
};

struct model {
    struct wanted answers[WANTED_MAX]; /* to the client alone */
    size_t answer_count;
    struct wanted news[WANTED_MAX]; /* to all clients; `others` below: not to the client itself */
    bool others[WANTED_MAX];
    size_t news_count;
    uint8_t *owned[WANTED_MAX]; /* what was inflated */
    size_t owned_count;
    bool closing; /* the last answer is a Close */
    bool ends;    /* and the worker then hangs up without being asked to */
};

static inline struct wanted *
model_answer(struct model *model, uint8_t opcode, const uint8_t *payload, size_t bytes)
{
    struct wanted *wanted = &model->answers[model->answer_count++];

    REQUIRE(model->answer_count < WANTED_MAX);
    *wanted = (struct wanted){.opcode = opcode, .payload = payload, .bytes = bytes};
    return wanted;
}

static inline void
model_close(struct model *model, unsigned code, bool ends)
{
    struct wanted *wanted = model_answer(model, FRAME_OP_CLOSE, NULL, code ? 2 : 0);

    wanted->code[0] = (uint8_t)(code >> 8);
    wanted->code[1] = (uint8_t)code;
    wanted->payload = wanted->code;
    model->closing = true;
    model->ends = ends;
}

static inline void
model_news(struct model *model, uint8_t opcode, const void *payload, size_t bytes, bool others)
{
    struct wanted *wanted = &model->news[model->news_count];

    *wanted = (struct wanted){.opcode = opcode, .payload = payload, .bytes = bytes};
    model->others[model->news_count++] = others;
    REQUIRE(model->news_count < WANTED_MAX);
}

/* The application above, and RFC 6455 section 8.1 for what is compressed. */
static inline void
model_message(struct model *model, uint8_t opcode, bool compressed, const uint8_t *payload,
              size_t bytes)
{
    uint8_t *owned = NULL;
    bool too_big;
    char kind;

    if (compressed) {
        bool right =
            wire_inflate(payload, bytes, MODEL_MESSAGE_MAX_BYTES, &owned, &bytes, &too_big);

        payload = owned;
        if (!right ||
            (opcode == FRAME_OP_TEXT && utf8_oracle(payload, bytes) != UTF8_ORACLE_WHOLE)) {
            free(owned);
            /* Of bad text in front of what is too long either may be found first. */
            model_close(model, 0, true);
            model->answers[model->answer_count - 1].opcode = ANY_FAILURE;
            return;
        }
    }
    kind = bytes ? (char)payload[0] : 'e';
    if (kind == 'c' || kind == 'f')
        model_close(model, kind == 'c' ? 4000 : 1011, false);
    if (kind == 'b' || kind == 'o')
        model_news(model, opcode, payload, bytes, kind == 'o');
    if (kind != 'b' && kind != 'c' && kind != 'f')
        model_answer(model, opcode, payload, bytes);
    model->owned[model->owned_count++] = owned;
    REQUIRE(model->owned_count < WANTED_MAX);
}

static inline void
model_control(struct model *model, uint8_t opcode, const uint8_t *payload, size_t bytes)
{
    unsigned code = bytes >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 0;
    bool allowed = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
                   (code >= 3000 && code <= 4999) || bytes == 0;

    if (opcode == FRAME_OP_PING)
        model_answer(model, FRAME_OP_PONG, payload, bytes);
    if (opcode != FRAME_OP_CLOSE)
        return;
    if (!allowed)
        code = 1002;
    else if (bytes > 2 && utf8_oracle(payload + 2, bytes - 2) != UTF8_ORACLE_WHOLE)
        code = 1007;
    model_close(model, code, true);
}

static inline void
model_entries(struct model *model, const struct frame_log *log)
{
    for (size_t at = 0; at < log->used && !model->closing;) {
        const uint8_t *entry = log->bytes + at;
        uint32_t bytes;
        uint16_t code;

        memcpy(&bytes, entry + 3, sizeof(bytes));
        at += 7 + bytes;
        switch (entry[0]) {
        case 'M': model_message(model, entry[1], entry[2], entry + 7, bytes); break;
        case 'C': model_control(model, entry[1], entry + 7, bytes); break;
        case 'F': memcpy(&code, entry + 7, sizeof(code)); model_close(model, code, true);
        }
    }
}

static inline void
model_free(struct model *model)
{
    for (size_t i = 0; i < model->owned_count; i++)
        free(model->owned[i]);
    model->answer_count = model->news_count = model->owned_count = 0;
    model->closing = model->ends = false;
}

/* --- what was sent, held against it --- */

static inline bool
is_wanted(const struct wire_frame *frame, const struct wanted *wanted)
{
    if (wanted->opcode == ANY_FAILURE)
        return frame->opcode == FRAME_OP_CLOSE && frame->bytes >= 2;
    if (frame->opcode != wanted->opcode)
        return false;
    if (frame->opcode == FRAME_OP_CLOSE) /* a reason may be given */
        return wanted->bytes ? frame->bytes >= 2 && memcmp(frame->payload, wanted->payload, 2) == 0
                             : frame->bytes == 0;
    return frame->bytes == wanted->bytes &&
           (frame->bytes == 0 || memcmp(frame->payload, wanted->payload, frame->bytes) == 0);
}

/* What broadcasts tell the client; echoes begin with something else. */
static inline bool
is_news(const struct wire_frame *frame)
{
    return frame->opcode < FRAME_OP_CLOSE && frame->bytes > 0 && frame->payload[0] == 'b';
}

static inline bool
is_close_with(const struct wire_frame *frame, unsigned code)
{
    return frame->opcode == FRAME_OP_CLOSE && frame->bytes >= 2 &&
           ((unsigned)frame->payload[0] << 8 | frame->payload[1]) == code;
}

/* What a client was sent behind the 101. */
struct heard {
    struct wire_frame answers[WANTED_MAX];
    size_t answer_count;
    struct hearing news;
    bool overloaded; /* was told so */
    bool too_slow;   /* the same */
    bool cut;
    struct wire_frame half;
};

static inline void
hear(struct heard *heard, const struct journal *journal, struct wire *wire)
{
    struct wire_frame frame;
    enum wire_result result;

    heard->news = hearing_begin(journal, JOURNAL_CLIENT);
    heard->answer_count = 0;
    heard->overloaded = heard->too_slow = false;
    while ((result = wire_next(wire, &frame)) == WIRE_FRAME) {
        if (is_news(&frame)) {
            hear_broadcast(&heard->news, &frame);
            wire_frame_free(&frame);
        } else if (is_close_with(&frame, CLOSE_OVERLOAD))
            heard->overloaded = true;
        else if (is_close_with(&frame, CLOSE_TOO_SLOW))
            heard->too_slow = true;
        else {
            REQUIRE(heard->answer_count < WANTED_MAX);
            heard->answers[heard->answer_count++] = frame;
        }
    }
    heard->cut = result == WIRE_CUT;
    heard->half = frame;
}

static inline void
heard_free(struct heard *heard)
{
    for (size_t i = 0; i < heard->answer_count; i++)
        wire_frame_free(&heard->answers[i]);
}

static inline bool
is_pong(const struct wanted *wanted)
{
    return wanted->opcode == FRAME_OP_PONG;
}

/* What was answered was to be, in that order; of pongs any may be missing, and what is due behind
 * the last one. Returns how far that is in the model. */
static inline size_t
check_some_answers(const struct model *model, const struct heard *heard)
{
    size_t i = 0;

    for (size_t k = 0; k < heard->answer_count; k++) {
        while (i < model->answer_count && is_pong(&model->answers[i]) &&
               !is_wanted(&heard->answers[k], &model->answers[i]))
            i++;
        REQUIRE(i < model->answer_count && is_wanted(&heard->answers[k], &model->answers[i]));
        i++;
    }
    return i;
}

/* All was answered, but for pings that a later one made out of date: RFC 6455 section 5.5.3. From
 * the end, because that is where the pong must be. */
static inline void
check_all_answers(const struct model *model, const struct heard *heard)
{
    size_t i = model->answer_count;
    bool later_pong = false;

    for (size_t k = heard->answer_count; k-- > 0; i--) {
        while (i > 0 && later_pong && is_pong(&model->answers[i - 1]) &&
               !is_wanted(&heard->answers[k], &model->answers[i - 1]))
            i--;
        REQUIRE(i > 0 && is_wanted(&heard->answers[k], &model->answers[i - 1]));
        later_pong |= is_pong(&model->answers[i - 1]);
    }
    for (; i > 0; i--)
        REQUIRE(later_pong && is_pong(&model->answers[i - 1]));
}

/* Half a frame, and nothing else behind it: it begins as one that was due. */
static inline void
check_half(const struct model *model, const struct heard *heard, size_t answers)
{
    const struct wire_frame *half = &heard->half;

    if (half->bytes == 0 || half->compressed || half->opcode == FRAME_OP_CLOSE)
        return;
    if (is_news(half)) {
        hear_half_broadcast(heard->news, half);
        return;
    }
    for (size_t i = answers; i < model->answer_count; i++) {
        const struct wanted *wanted = &model->answers[i];
        if (half->opcode == wanted->opcode && half->bytes <= wanted->bytes &&
            memcmp(half->payload, wanted->payload, half->bytes) == 0)
            return;
        if (!is_pong(wanted))
            break;
    }
    REQUIRE(!"half a frame that no client was due");
}

/* What was published for the client is what it has asked for, all of it or the first of that. */
static inline void
check_published(const struct model *model, const struct journal *journal, bool all)
{
    size_t count = 0;

    for (size_t i = 0; i < journal->count; i++) {
        const struct journal_entry *entry = &journal->entries[i];
        const struct wanted *wanted = &model->news[count];

        if (entry->who != JOURNAL_CLIENT || !entry->said)
            continue;
        REQUIRE(count < model->news_count && entry->others == model->others[count]);
        REQUIRE(entry->opcode == wanted->opcode && entry->bytes == wanted->bytes &&
                memcmp(entry->payload, wanted->payload, entry->bytes) == 0);
        count++;
    }
    REQUIRE(!all || count == model->news_count);
}

#endif
