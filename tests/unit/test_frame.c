/*
 * frame.h against an encoder of our own. Whatever is parsed is written to a log: whole messages,
 * control frames with the place in the message where they came, the failure. A stream must give the
 * same log however it is cut.
 */
/* long: an encoder and a reader, which only these tests use, come first */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/frame.h"

enum {
    FIN = 0x80,
    MAX_MESSAGE_BYTES = 1 << 20,
    STREAM_ROOM = 1 << 20,
};

struct bytes {
    size_t count;
    uint8_t at[STREAM_ROOM];
};

/* What a connection would hold, and the log of what it heard. */
struct reader {
    struct frame_parser parser;
    size_t max_message_bytes;
    uint8_t rest[FRAME_REST_MAX_BYTES];
    size_t rest_count;
    size_t fed_count;
    size_t expect_bytes; /* of the last piece */
    bool in_message;
    uint16_t close_code;
    const char *reason;
    struct bytes message;
    struct bytes log;
};

static struct bytes stream, expected;
static struct reader reader;

static void
bytes_add(struct bytes *to, const void *data, size_t count)
{
    assert_true(count <= sizeof(to->at) - to->count);
    if (count)
        memcpy(to->at + to->count, data, count);
    to->count += count;
}

/* ---- the encoder ----------------------------------------------------------------------------- */

/* The head of a frame with the length in a field of 0, 2 or 8 bytes, fitting or not. */
static void
put_head(uint8_t byte_0, uint64_t length, size_t field_bytes, const uint8_t *key)
{
    uint8_t head[2 + 8] = {byte_0, (uint8_t)length};

    if (field_bytes)
        head[1] = field_bytes == 2 ? 126 : 127;
    for (size_t i = 0; i < field_bytes; i++)
        head[2 + i] = (uint8_t)(length >> (8 * (field_bytes - 1 - i)));
    if (key)
        head[1] |= 0x80;
    bytes_add(&stream, head, 2 + field_bytes);
    if (key)
        bytes_add(&stream, key, 4);
}

static void
put_frame(uint8_t byte_0, const void *payload, size_t length, const uint8_t *key)
{
    size_t field_bytes = length < 126 ? 0 : length <= 65535 ? 2 : 8;
    uint8_t *start;

    put_head(byte_0, length, field_bytes, key);
    start = stream.at + stream.count;
    bytes_add(&stream, payload, length);
    for (size_t i = 0; key && i < length; i++)
        start[i] ^= key[i % 4];
}

static void
put_text(uint8_t byte_0, const char *text)
{
    put_frame(byte_0, text, strlen(text), NULL);
}

/* ---- the log --------------------------------------------------------------------------------- */

/* `after`: bytes of the message that had come before a control frame. */
static void
log_add(struct bytes *log, char kind, unsigned number, const void *data, size_t bytes, size_t after)
{
    uint64_t head[] = {(uint64_t)kind, number, bytes, after};

    bytes_add(log, head, sizeof(head));
    bytes_add(log, data, bytes);
}

static void
expect_message(uint8_t opcode, const char *text)
{
    log_add(&expected, 'M', opcode, text, strlen(text), 0);
}

/* ---- the reader ------------------------------------------------------------------------------ */

static void
reader_init(bool expect_masked, size_t max_message_bytes)
{
    memset(&reader, 0, offsetof(struct reader, message));
    reader.message.count = reader.log.count = 0;
    reader.max_message_bytes = max_message_bytes;
    frame_parser_init(&reader.parser, expect_masked, false);
}

/* False: the text is not UTF-8. */
static bool
reader_take_piece(struct frame_event *ev)
{
    assert_int_equal(ev->first, !reader.in_message);
    assert_true(ev->bytes > 0 || ev->last);
    assert_true(!ev->last || ev->expect_bytes == 0);
    assert_true(ev->bytes <= sizeof(reader.message.at) - reader.message.count);
    if (!frame_take(&reader.parser, ev, reader.message.at + reader.message.count))
        return false;
    reader.message.count += ev->bytes;
    reader.expect_bytes = ev->expect_bytes;
    reader.in_message = !ev->last;
    if (!ev->last)
        return true;
    log_add(&reader.log, 'M', ev->opcode, reader.message.at, reader.message.count, 0);
    reader.message.count = 0;
    return true;
}

/* False when the parser failed. */
static bool
reader_take(enum frame_status *status, struct frame_event *ev)
{
    if (*status == FRAME_DATA && !reader_take_piece(ev))
        *status = FRAME_FAIL;
    switch (*status) {
    case FRAME_DATA: return true;
    case FRAME_CONTROL:
        log_add(&reader.log, 'C', ev->opcode, ev->data, ev->bytes, reader.message.count);
        return true;
    case FRAME_FAIL:
        assert_non_null(ev->reason);
        reader.close_code = ev->close_code;
        reader.reason = ev->reason;
        log_add(&reader.log, 'F', ev->close_code, NULL, 0, 0);
        return false;
    case FRAME_NEED_MORE: break;
    }
    fail();
    return false;
}

/* Feeds the next bytes in a buffer of exactly their size, so that a step outside is noticed. */
static bool
reader_feed(const uint8_t *data, size_t count)
{
    size_t bytes = reader.rest_count + count, at = 0;
    uint8_t *buf = malloc(bytes + !bytes);
    struct frame_event ev;
    enum frame_status status;

    assert_non_null(buf);
    memcpy(buf, reader.rest, reader.rest_count);
    memcpy(buf + reader.rest_count, data, count);
    reader.fed_count += count;
    for (;;) {
        status = frame_parse(&reader.parser, buf + at, bytes - at, reader.max_message_bytes, &ev);
        assert_in_range(ev.consumed, 0, bytes - at);
        if (status == FRAME_NEED_MORE || !reader_take(&status, &ev))
            break;
        assert_true(ev.consumed > 0);
        at += ev.consumed;
    }
    at += ev.consumed;
    reader.rest_count = bytes - at;
    assert_in_range(reader.rest_count, 0, FRAME_REST_MAX_BYTES);
    memcpy(reader.rest, buf + at, reader.rest_count);
    free(buf);
    return status != FRAME_FAIL;
}

static void
assert_log_is_expected(void)
{
    assert_int_equal(reader.log.count, expected.count);
    assert_memory_equal(reader.log.at, expected.at, expected.count);
}

static void
read_in_steps(bool masked, size_t max_message_bytes, size_t step)
{
    bool good = true;

    reader_init(masked, max_message_bytes);
    for (size_t at = 0; good && at < stream.count; at += step)
        good = reader_feed(stream.at + at, step < stream.count - at ? step : stream.count - at);
}

static void
read_split_at(bool masked, size_t max_message_bytes, size_t cut)
{
    reader_init(masked, max_message_bytes);
    if (reader_feed(stream.at, cut))
        (void)reader_feed(stream.at + cut, stream.count - cut);
}

static void
assert_expected_however_cut(bool masked, size_t max_message_bytes)
{
    read_in_steps(masked, max_message_bytes, stream.count);
    assert_log_is_expected();
    read_in_steps(masked, max_message_bytes, 1);
    assert_log_is_expected();
    for (size_t cut = 0; cut <= stream.count; cut++) {
        read_split_at(masked, max_message_bytes, cut);
        assert_log_is_expected();
    }
}

static void
begin(void)
{
    stream.count = expected.count = 0;
}

/* ---- random streams -------------------------------------------------------------------------- */

static uint64_t random_state = 7;

static uint32_t
random_below(uint32_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % limit;
}

static const uint8_t *
random_key(bool masked, uint8_t key[4])
{
    for (int i = 0; i < 4; i++)
        key[i] = (uint8_t)random_below(256);
    return masked ? key : NULL;
}

static size_t
random_payload(uint8_t *out, size_t bytes, bool text)
{
    static const char *const pieces[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    size_t count = 0;

    while (count < bytes) {
        const char *piece = pieces[random_below(4)];

        if (!text)
            out[count++] = (uint8_t)random_below(256);
        else
            while (*piece)
                out[count++] = (uint8_t)*piece++;
    }
    return count;
}

static void
random_control(bool masked, size_t after)
{
    uint8_t opcode = (uint8_t)(FRAME_OP_CLOSE + random_below(3)), key[4], payload[125];
    size_t bytes = random_below(3) ? random_below(8) : random_below(sizeof(payload) + 1);

    random_payload(payload, bytes, false);
    put_frame(FIN | opcode, payload, bytes, random_key(masked, key));
    log_add(&expected, 'C', opcode, payload, bytes, after);
}

/* One message in up to `fragments` fragments, some of them empty, with control frames between. */
static void
random_message(bool masked, size_t bytes, unsigned fragments)
{
    static uint8_t payload[STREAM_ROOM];
    uint8_t opcode = (uint8_t)(1 + random_below(2)), key[4];
    size_t at = 0;

    bytes = random_payload(payload, bytes, opcode == FRAME_OP_TEXT);
    for (unsigned i = 0; i < fragments; i++) {
        bool last = i + 1 == fragments;
        size_t piece = last ? bytes - at : random_below((uint32_t)(bytes - at + 1));

        if (random_below(4) == 0)
            piece = last ? piece : 0;
        put_frame((uint8_t)((last ? FIN : 0) | (i ? 0 : opcode)), payload + at, piece,
                  random_key(masked, key));
        at += piece;
        if (!last && random_below(3) == 0)
            random_control(masked, at);
    }
    log_add(&expected, 'M', opcode, payload, bytes, 0);
}

static void
test_frame_random_streams_split_at_every_byte_give_the_same_events(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        bool masked = round % 2;

        begin();
        for (unsigned i = random_below(6); i < 6; i++) {
            if (random_below(3) == 0)
                random_control(masked, 0);
            random_message(masked, random_below(10) ? random_below(40) : random_below(300),
                           1 + random_below(5));
        }
        assert_expected_however_cut(masked, MAX_MESSAGE_BYTES);
    }
}

static void
test_frame_lengths_at_the_borders_of_their_forms_arrive_whole_in_any_steps(void **state)
{
    static const size_t lengths[] = {0, 1, 2, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (int masked = 0; masked < 2; masked++) {
            begin();
            random_message(masked, lengths[i], 1);
            random_message(masked, 3, 1);
            for (size_t step = 1; step < 40; step += 2) {
                read_in_steps(masked, MAX_MESSAGE_BYTES, step);
                assert_log_is_expected();
            }
            read_in_steps(masked, MAX_MESSAGE_BYTES, stream.count);
            assert_log_is_expected();
        }
}

/* ---- one thing at a time --------------------------------------------------------------------- */

static void
test_frame_the_examples_of_the_rfc_are_understood(void **state)
{
    static const uint8_t masked_hello[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d,
                                           0x7f, 0x9f, 0x4d, 0x51, 0x58};
    static const uint8_t fragmented_hello[] = {0x01, 0x03, 0x48, 0x65, 0x6c,
                                               0x80, 0x02, 0x6c, 0x6f};

    (void)state;
    begin();
    bytes_add(&stream, masked_hello, sizeof(masked_hello));
    expect_message(FRAME_OP_TEXT, "Hello");
    assert_expected_however_cut(true, MAX_MESSAGE_BYTES);

    stream.count = 0;
    bytes_add(&stream, fragmented_hello, sizeof(fragmented_hello));
    assert_expected_however_cut(false, MAX_MESSAGE_BYTES);
}

static void
test_frame_an_empty_message_is_one_event_that_is_first_and_last(void **state)
{
    uint8_t buf[] = {0x81, 0x00};
    struct frame_parser parser;
    struct frame_event ev;

    (void)state;
    frame_parser_init(&parser, false, false);
    assert_int_equal(frame_parse(&parser, buf, 2, 0, &ev), FRAME_DATA);
    assert_int_equal(ev.opcode, FRAME_OP_TEXT);
    assert_int_equal(ev.bytes, 0);
    assert_int_equal(ev.consumed, 2);
    assert_true(ev.first && ev.last);
    assert_int_equal(frame_parse(&parser, buf + 2, 0, 0, &ev), FRAME_NEED_MORE);
}

static void
test_frame_empty_fragments_do_not_take_first_away_and_do_not_loop(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 10; i++)
        put_text(i ? FRAME_OP_CONTINUATION : FRAME_OP_BINARY, "");
    put_text(FRAME_OP_CONTINUATION, "ab");
    put_text(FRAME_OP_CONTINUATION, "");
    put_text(FIN | FRAME_OP_CONTINUATION, "");
    expect_message(FRAME_OP_BINARY, "ab");
    assert_expected_however_cut(false, MAX_MESSAGE_BYTES);
}

static void
test_frame_a_ping_between_fragments_does_not_disturb_the_message(void **state)
{
    (void)state;
    begin();
    put_text(FRAME_OP_TEXT, "\xe2\x82"); /* in the middle of a character, too */
    put_text(FIN | FRAME_OP_PING, "\xff");
    put_text(FRAME_OP_CONTINUATION, "\xac");
    put_text(FIN | FRAME_OP_PONG, "");
    put_text(FIN | FRAME_OP_CONTINUATION, "!");
    log_add(&expected, 'C', FRAME_OP_PING, "\xff", 1, 2);
    log_add(&expected, 'C', FRAME_OP_PONG, NULL, 0, 3);
    expect_message(FRAME_OP_TEXT, "\xe2\x82\xac!");
    assert_expected_however_cut(false, MAX_MESSAGE_BYTES);
}

static void
test_frame_a_piece_is_reported_before_its_frame_is_whole(void **state)
{
    (void)state;
    begin();
    put_head(FIN | FRAME_OP_BINARY, 100000, 8, NULL);
    bytes_add(&stream, "abc", 3);
    read_in_steps(false, MAX_MESSAGE_BYTES, stream.count);
    assert_int_equal(reader.message.count, 3);
    assert_int_equal(reader.expect_bytes, 100000 - 3);
    assert_int_equal(reader.rest_count, 0);
}

static void
test_frame_a_control_frame_waits_until_it_is_whole(void **state)
{
    uint8_t payload[FRAME_CONTROL_MAX_BYTES] = {0}, key[4] = {1, 2, 3, 4};

    (void)state;
    begin();
    put_frame(FIN | FRAME_OP_PING, payload, sizeof(payload), key);
    reader_init(true, MAX_MESSAGE_BYTES);
    assert_true(reader_feed(stream.at, stream.count - 1));
    assert_int_equal(reader.rest_count, stream.count - 1);
    assert_int_equal(reader.log.count, 0);
}

/* ---- failures -------------------------------------------------------------------------------- */

/* A failure must come with the last byte of the stream, not before and not later. */
static void
assert_fails_with_the_last_byte(bool masked, uint16_t code, size_t max_message_bytes)
{
    struct frame_event ev;
    const char *reason;
    uint8_t ping[] = {0x89, 0x00};

    read_in_steps(masked, max_message_bytes, 1);
    assert_int_equal(reader.close_code, code);
    assert_int_equal(reader.fed_count, stream.count);
    reason = reader.reason;

    assert_int_equal(frame_parse(&reader.parser, ping, 2, max_message_bytes, &ev), FRAME_FAIL);
    assert_int_equal(ev.close_code, code);
    assert_string_equal(ev.reason, reason);

    read_in_steps(masked, max_message_bytes, stream.count);
    assert_int_equal(reader.close_code, code);
}

static void
test_frame_heads_that_break_the_protocol_fail_with_1002_at_their_byte(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        bool masked;
    } rows[] = {
        {"\x89\x7e", 2, false}, /* control frames that are too long */
        {"\x88\x7f", 2, false},
        {"\x8a\xfe", 2, true},
        {"\x81\x00\x80", 3, false}, /* continuation of nothing */
        {"\x01\x00\x81", 3, false}, /* a message inside a message */
        {"\x02\x01z\x01", 4, false},
        {"\x81\x85", 2, false}, /* masked, to a client */
        {"\x81\x05", 2, true},  /* not masked, to a server */
        {"\x89\x00", 2, true},
        {"\x82\x7e\x00\x7d", 4, false}, /* lengths that fit a shorter form */
        {"\x82\x7e\x00\x00", 4, false},
        {"\x82\x7f\0\0\0\0\0\0\xff\xff", 10, false},
        {"\x82\x7f\0\0\0\0\0\0\0\x01", 10, false},
        {"\x82\xff\0\0\0\0\0\0\xff\xff", 10, true},
        {"\x82\x7f\x80\0\0\0\0\0\0\0", 10, false}, /* top bit of the length */
        {"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        begin();
        bytes_add(&stream, rows[i].bytes, rows[i].count);
        assert_fails_with_the_last_byte(rows[i].masked, 1002, MAX_MESSAGE_BYTES);
    }
}

static void
test_frame_every_first_byte_is_either_known_or_fails_with_1002(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t buf = (uint8_t)byte;
        unsigned opcode = byte & 0x0f;
        bool good = !(byte & 0x70) &&
                    (opcode == 1 || opcode == 2 || (byte & FIN && opcode >= 8 && opcode <= 10));
        struct frame_parser parser;
        struct frame_event ev;

        frame_parser_init(&parser, true, false);
        assert_int_equal(frame_parse(&parser, &buf, 1, MAX_MESSAGE_BYTES, &ev),
                         good ? FRAME_NEED_MORE : FRAME_FAIL);
        assert_int_equal(ev.close_code, good ? 0 : 1002);
    }
}

static void
test_frame_a_message_over_the_limit_fails_with_1009_on_its_head(void **state)
{
    (void)state;
    begin();
    put_head(FIN | FRAME_OP_BINARY, 1001, 2, NULL);
    assert_fails_with_the_last_byte(false, 1009, 1000);

    begin(); /* the sum of its fragments counts, with empty ones and control frames between */
    put_text(FRAME_OP_BINARY, "0123456789");
    put_text(FRAME_OP_CONTINUATION, "");
    put_text(FIN | FRAME_OP_PING, "0123456789");
    put_head(FIN | FRAME_OP_CONTINUATION, 6, 0, NULL);
    assert_fails_with_the_last_byte(false, 1009, 15);

    begin(); /* even one that has nothing left to come */
    put_head(FIN | FRAME_OP_BINARY, 1, 0, NULL);
    assert_fails_with_the_last_byte(false, 1009, 0);
}

static void
test_frame_messages_of_exactly_the_limit_pass_one_after_the_other(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 3; i++) {
        put_text(FRAME_OP_BINARY, "01234567");
        put_text(FIN | FRAME_OP_CONTINUATION, "89");
        expect_message(FRAME_OP_BINARY, "0123456789");
    }
    assert_expected_however_cut(false, 10);
}

static void
test_frame_lengths_near_two_to_the_63_do_not_overflow_the_sum(void **state)
{
    static const uint64_t lengths[] = {UINT64_C(1) << 62, INT64_MAX, UINT64_C(1) << 32};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        begin();
        put_head(FIN | FRAME_OP_BINARY, lengths[i], 8, NULL);
        assert_fails_with_the_last_byte(false, 1009, MAX_MESSAGE_BYTES);

        begin();
        put_text(FRAME_OP_BINARY, "abc");
        put_head(FIN | FRAME_OP_CONTINUATION, lengths[i], 8, NULL);
        assert_fails_with_the_last_byte(false, 1009, MAX_MESSAGE_BYTES);
    }

    begin(); /* no limit at all: the frame is just long */
    put_head(FRAME_OP_BINARY, UINT64_C(1) << 62, 8, NULL);
    bytes_add(&stream, "x", 1);
    read_in_steps(false, SIZE_MAX, 1);
    assert_int_equal(reader.close_code, 0);
    assert_int_equal(reader.expect_bytes, (UINT64_C(1) << 62) - 1);
}

static void
test_frame_a_limit_lowered_inside_a_message_fails_with_1009(void **state)
{
    (void)state;
    begin();
    put_text(FRAME_OP_BINARY, "0123456789");
    read_in_steps(false, 10, stream.count);
    reader.max_message_bytes = 5;
    assert_false(reader_feed((const uint8_t *)"\x80\x00", 2));
    assert_int_equal(reader.close_code, 1009);
}

static void
test_frame_text_fails_with_1007_at_the_first_byte_that_is_not_utf8(void **state)
{
    (void)state;
    begin();
    put_head(FIN | FRAME_OP_TEXT, 100, 0, NULL);
    bytes_add(&stream, "good \xed\xa0", 7); /* a surrogate shows with its second byte */
    assert_fails_with_the_last_byte(false, 1007, MAX_MESSAGE_BYTES);

    begin(); /* across fragments, with a control frame between */
    put_text(FRAME_OP_TEXT, "\xf0\x9f");
    put_text(FIN | FRAME_OP_PING, "\x98\x80");
    put_head(FIN | FRAME_OP_CONTINUATION, 2, 0, NULL);
    bytes_add(&stream, "a", 1);
    assert_fails_with_the_last_byte(false, 1007, MAX_MESSAGE_BYTES);
}

static void
test_frame_text_that_ends_inside_a_character_fails_with_1007(void **state)
{
    (void)state;
    begin();
    put_text(FIN | FRAME_OP_TEXT, "abc\xe2\x82");
    assert_fails_with_the_last_byte(false, 1007, MAX_MESSAGE_BYTES);

    begin(); /* where the last fragment is empty */
    put_text(FRAME_OP_TEXT, "abc\xe2\x82");
    put_text(FIN | FRAME_OP_CONTINUATION, "");
    assert_fails_with_the_last_byte(false, 1007, MAX_MESSAGE_BYTES);
}

static void
test_frame_masked_text_is_checked_after_the_mask_is_off(void **state)
{
    static const uint8_t key[4] = {0xff, 0xfe, 0xfd, 0xfc};

    (void)state;
    begin();
    put_frame(FIN | FRAME_OP_TEXT, "plain text", 10, key);
    put_frame(FIN | FRAME_OP_BINARY, "\xff\xff\xff", 3, key); /* never checked */
    expect_message(FRAME_OP_TEXT, "plain text");
    expect_message(FRAME_OP_BINARY, "\xff\xff\xff");
    put_frame(FIN | FRAME_OP_TEXT, "\xff", 1, key);
    log_add(&expected, 'F', 1007, NULL, 0, 0);
    assert_expected_however_cut(true, MAX_MESSAGE_BYTES);
}

static void
test_frame_random_bytes_never_lead_out_of_the_buffer(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        begin();
        stream.count = random_payload(stream.at, 1 + random_below(200), false);
        if (random_below(2)) { /* further than the first byte */
            stream.at[0] = (uint8_t)(random_below(2) ? FRAME_OP_BINARY : FIN | FRAME_OP_BINARY);
            stream.at[1] = (uint8_t)(0x80 | random_below(20));
        }
        read_in_steps(true, 1000, 1 + random_below(30));
        bytes_add(&expected, reader.log.at, reader.log.count);
        read_in_steps(true, 1000, 1);
        assert_log_is_expected();
    }
}

/* ---- Close ----------------------------------------------------------------------------------- */

static void
assert_close(const char *payload, size_t bytes, bool valid, uint16_t expected_code)
{
    uint16_t code = 0;

    assert_int_equal(frame_close_parse((const uint8_t *)payload, bytes, &code), valid);
    assert_int_equal(code, expected_code);
}

static void
test_frame_a_close_payload_is_nothing_or_a_code_and_a_reason_in_utf8(void **state)
{
    (void)state;
    assert_close(NULL, 0, true, 1005);
    assert_close("\x03\xe8", 1, false, 1002);
    assert_close("\x03\xe8", 2, true, 1000);
    assert_close("\x03\xe9going", 7, true, 1001);
    assert_close("\x03\xe8\xe2\x82\xac", 5, true, 1000);
    assert_close("\x03\xe8\xe2\x82", 4, false, 1007);
    assert_close("\x03\xe8\xff", 3, false, 1007);
    assert_close("\x03\xed\xff", 3, false, 1002); /* the code is looked at first */
}

static void
test_frame_exactly_the_registered_and_private_close_codes_are_valid(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= UINT16_MAX; code++) {
        bool valid =
            (code >= 1000 && code < 1015 && code != 1004 && code != 1005 && code != 1006) ||
            (code >= 3000 && code < 5000);
        uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};
        uint16_t got = 0;

        assert_int_equal(frame_close_parse(payload, 2, &got), valid);
        assert_int_equal(got, valid ? code : 1002);
    }
}

static enum frame_status
parse_all(struct frame_parser *parser, const char *frame, size_t bytes, struct frame_event *ev)
{
    static uint8_t buf[256];

    assert_true(bytes <= sizeof(buf));
    memcpy(buf, frame, bytes);
    return frame_parse(parser, buf, bytes, MAX_MESSAGE_BYTES, ev);
}

static void
test_frame_control_frame_is_whole_with_its_last_byte(void **state)
{
    static const uint8_t opcodes[] = {FRAME_OP_CLOSE, FRAME_OP_PING, FRAME_OP_PONG};
    struct frame_parser parser;
    struct frame_event ev;

    (void)state;
    for (size_t i = 0; i < sizeof(opcodes); i++) {
        for (size_t payload = 0; payload <= FRAME_CONTROL_MAX_BYTES; payload++) {
            char frame[2 + FRAME_CONTROL_MAX_BYTES] = {(char)(0x80 | opcodes[i]), (char)payload};

            frame_parser_init(&parser, false, false);
            assert_int_equal(parse_all(&parser, frame, 2 + payload, &ev), FRAME_CONTROL);
            assert_int_equal(ev.bytes, payload);
            assert_int_equal(ev.consumed, 2 + payload);
            if (payload)
                assert_int_equal(parse_all(&parser, frame, 1 + payload, &ev), FRAME_NEED_MORE);
        }
    }
}

static void
test_frame_message_is_compressed_when_its_own_first_frame_says_so(void **state)
{
    struct frame_parser parser;
    struct frame_event ev;

    (void)state;
    frame_parser_init(&parser, false, true);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(parse_all(&parser, "\xc2\x01x", 3, &ev), FRAME_DATA);
        assert_true(ev.compressed);
        assert_int_equal(parse_all(&parser, "\x82\x01x", 3, &ev), FRAME_DATA);
        assert_false(ev.compressed);
        assert_int_equal(parse_all(&parser, "\x42\x01x", 3, &ev), FRAME_DATA);
        assert_int_equal(parse_all(&parser, "\x80\x01x", 3, &ev), FRAME_DATA);
        assert_true(ev.compressed && ev.last);
    }
    assert_int_equal(parse_all(&parser, "\x42\x01x", 3, &ev), FRAME_DATA);
    assert_int_equal(parse_all(&parser, "\xc0\x01x", 3, &ev), FRAME_FAIL);
    assert_int_equal(ev.close_code, FRAME_CLOSE_PROTOCOL);
    frame_parser_init(&parser, false, true);
    assert_int_equal(parse_all(&parser, "\xc9\x01x", 3, &ev), FRAME_FAIL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_random_streams_split_at_every_byte_give_the_same_events),
        cmocka_unit_test(
            test_frame_lengths_at_the_borders_of_their_forms_arrive_whole_in_any_steps),
        cmocka_unit_test(test_frame_the_examples_of_the_rfc_are_understood),
        cmocka_unit_test(test_frame_an_empty_message_is_one_event_that_is_first_and_last),
        cmocka_unit_test(test_frame_empty_fragments_do_not_take_first_away_and_do_not_loop),
        cmocka_unit_test(test_frame_a_ping_between_fragments_does_not_disturb_the_message),
        cmocka_unit_test(test_frame_a_piece_is_reported_before_its_frame_is_whole),
        cmocka_unit_test(test_frame_a_control_frame_waits_until_it_is_whole),
        cmocka_unit_test(test_frame_heads_that_break_the_protocol_fail_with_1002_at_their_byte),
        cmocka_unit_test(test_frame_every_first_byte_is_either_known_or_fails_with_1002),
        cmocka_unit_test(test_frame_a_message_over_the_limit_fails_with_1009_on_its_head),
        cmocka_unit_test(test_frame_messages_of_exactly_the_limit_pass_one_after_the_other),
        cmocka_unit_test(test_frame_lengths_near_two_to_the_63_do_not_overflow_the_sum),
        cmocka_unit_test(test_frame_a_limit_lowered_inside_a_message_fails_with_1009),
        cmocka_unit_test(test_frame_text_fails_with_1007_at_the_first_byte_that_is_not_utf8),
        cmocka_unit_test(test_frame_text_that_ends_inside_a_character_fails_with_1007),
        cmocka_unit_test(test_frame_masked_text_is_checked_after_the_mask_is_off),
        cmocka_unit_test(test_frame_random_bytes_never_lead_out_of_the_buffer),
        cmocka_unit_test(test_frame_a_close_payload_is_nothing_or_a_code_and_a_reason_in_utf8),
        cmocka_unit_test(test_frame_exactly_the_registered_and_private_close_codes_are_valid),
        cmocka_unit_test(test_frame_control_frame_is_whole_with_its_last_byte),
        cmocka_unit_test(test_frame_message_is_compressed_when_its_own_first_frame_says_so),
    };

    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
