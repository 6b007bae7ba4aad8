/*
 * fuzz_frame.c: frame.h makes of a stream what a second decoder makes of it (frame_oracle.h),
 * wherever the stream is cut; never asks to keep more than it promises; and stays failed.
 *
 *   input: flags (1 masked, 2 deflate, 4 lower limit, 8 pieces are copied elsewhere) | cuts | stream
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/frame_oracle.h"
#include "worker/proto/frame.h"

struct setting {
    bool masked;
    bool deflate;
    bool apart;
    size_t max_message_bytes;
    struct fuzz_input stream;
};

/* One decoding, fed piece by piece. */
struct run {
    const struct setting *setting;
    struct frame_parser parser;
    struct frame_log log;
    uint8_t *message;
    size_t message_bytes;
    uint64_t frame_left; /* as the last piece said: the next one of the frame goes on there */
    uint8_t opcode;      /* of the open message */
    bool compressed;
    bool failed;
};

static void
run_data(struct run *run, struct frame_event *ev)
{
    uint8_t *to = run->setting->apart ? run->message + run->message_bytes : ev->data;

    REQUIRE(ev->first == !run->opcode);
    REQUIRE(ev->bytes > 0 || ev->last);
    REQUIRE(ev->first || (ev->opcode == run->opcode && ev->compressed == run->compressed));
    REQUIRE(!run->frame_left || run->frame_left == ev->bytes + ev->expect_bytes);
    if (ev->first)
        run->message_bytes = 0;
    if (ev->first && run->setting->apart)
        to = run->message;
    if (!frame_take(&run->parser, ev, to)) {
        REQUIRE(ev->close_code == FRAME_CLOSE_BAD_TEXT && ev->reason);
        run->failed = true;
        frame_log_fail(&run->log, ev->close_code);
        return;
    }
    if (ev->bytes && !run->setting->apart)
        memcpy(run->message + run->message_bytes, to, ev->bytes);
    run->message_bytes += ev->bytes;
    run->frame_left = ev->expect_bytes;
    run->opcode = ev->last ? 0 : ev->opcode;
    run->compressed = ev->compressed;
    if (ev->last)
        frame_log_add(&run->log, 'M', ev->opcode, ev->compressed, run->message, run->message_bytes);
}

/* The code of a Close: which ones may be on the wire is RFC 6455 section 7.4 and IANA's registry. */
static void
check_close(const uint8_t *data, size_t bytes)
{
    uint16_t code = 0;
    bool right = frame_close_parse(data, bytes, &code);
    unsigned said = bytes >= 2 ? (unsigned)data[0] << 8 | data[1] : 1005;
    bool allowed = said >= 1000 && said < 5000 && said != 1004 && said != 1006 && said != 1015 &&
                   !(said > 1015 && said < 3000) && (said != 1005 || bytes == 0);

    if (bytes == 1 || !allowed)
        REQUIRE(!right && code == FRAME_CLOSE_PROTOCOL);
    else if (bytes > 2 && utf8_oracle(data + 2, bytes - 2) != UTF8_ORACLE_WHOLE)
        REQUIRE(!right && code == FRAME_CLOSE_BAD_TEXT);
    else
        REQUIRE(right && code == said);
}

/* All that is in [buf, buf + bytes); returns what is not consumed. */
static size_t
run_feed(struct run *run, uint8_t *buf, size_t bytes)
{
    size_t used = 0;

    while (!run->failed) {
        struct frame_event ev;
        enum frame_status status = frame_parse(&run->parser, buf + used, bytes - used,
                                               run->setting->max_message_bytes, &ev);

        REQUIRE(ev.consumed <= bytes - used);
        if (status == FRAME_DATA || status == FRAME_CONTROL)
            REQUIRE(ev.data >= buf + used && ev.bytes <= ev.consumed &&
                    ev.data + ev.bytes == buf + used + ev.consumed);
        used += ev.consumed;
        switch (status) {
        case FRAME_NEED_MORE: REQUIRE(bytes - used <= FRAME_REST_MAX_BYTES); return used;
        case FRAME_DATA: run_data(run, &ev); break;
        case FRAME_CONTROL:
            frame_log_add(&run->log, 'C', ev.opcode, false, ev.data, ev.bytes);
            if (ev.opcode == FRAME_OP_CLOSE)
                check_close(ev.data, ev.bytes);
            break;
        case FRAME_FAIL:
            REQUIRE(ev.reason && strlen(ev.reason) <= FRAME_CONTROL_MAX_BYTES - 2);
            REQUIRE(ev.consumed == bytes - (used - ev.consumed));
            frame_log_fail(&run->log, ev.close_code);
            run->failed = true;
        }
    }
    return bytes;
}

static void
run_check_failed(struct run *run)
{
    uint8_t more[2] = {0x82, 0x80};
    struct frame_event ev;

    REQUIRE(frame_parse(&run->parser, more, sizeof(more), SIZE_MAX, &ev) == FRAME_FAIL);
    REQUIRE(ev.consumed == sizeof(more));
}

/* Each piece, with what was left over in front of it, in a buffer of just that size. */
static struct frame_log
decode(const struct setting *setting, struct fuzz_cuts cuts)
{
    struct run run = {.setting = setting};
    struct fuzz_input left = setting->stream;
    uint8_t rest[FRAME_REST_MAX_BYTES] = {0};
    size_t rest_bytes = 0;

    frame_parser_init(&run.parser, setting->masked, setting->deflate);
    run.message = malloc(left.bytes + 1);
    REQUIRE(run.message);
    while (left.bytes > 0 && !run.failed) {
        size_t piece = fuzz_cuts_next(&cuts, left.bytes);
        uint8_t *buf = malloc(rest_bytes + piece);
        size_t used;

        REQUIRE(buf);
        memcpy(buf, rest, rest_bytes);
        memcpy(buf + rest_bytes, left.at, piece);
        used = run_feed(&run, buf, rest_bytes + piece);
        rest_bytes = rest_bytes + piece - used;
        memcpy(rest, buf + used, rest_bytes);
        left.at += piece;
        left.bytes -= piece;
        free(buf);
    }
    if (run.failed)
        run_check_failed(&run);
    else if (run.parser.opcode) /* begun, though there may be nothing to report of it */
        frame_log_add(&run.log, 'U', run.parser.opcode, run.parser.compressed, run.message,
                      run.opcode ? run.message_bytes : 0);
    free(run.message);
    return run.log;
}

static struct frame_log
decode_plainly(const struct setting *setting)
{
    uint8_t *message = malloc(setting->stream.bytes + 1);
    struct frame_oracle oracle = {
        .at = setting->stream.at,
        .left = setting->stream.bytes,
        .masked = setting->masked,
        .deflate = setting->deflate,
        .max_message_bytes = setting->max_message_bytes,
        .message = message,
    };
    struct frame_log log = {0};

    REQUIRE(message);
    while (frame_oracle_step(&oracle, &log))
        ;
    free(message);
    return log;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct fuzz_cuts bytewise = {.count = 1};
    static const struct fuzz_cuts at_once = {.count = 0};
    struct setting setting = {.stream = {data, bytes}};
    uint8_t flags = fuzz_byte(&setting.stream);
    struct fuzz_cuts cuts = fuzz_cuts_read(&setting.stream);
    const struct fuzz_cuts *all[] = {&at_once, &bytewise, &cuts};
    struct frame_log wanted;

    setting.masked = flags & 1;
    setting.deflate = flags & 2;
    setting.max_message_bytes = flags & 4 ? 100 : 1 << 20;
    setting.apart = flags & 8;
    wanted = decode_plainly(&setting);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct frame_log got = decode(&setting, *all[i]);

        REQUIRE(frame_log_equal(&got, &wanted));
        frame_log_free(&got);
    }
    frame_log_free(&wanted);
    return 0;
}
