/*
 * fuzz_deflate.c: what inflate.h makes of any payload is what zlib makes of it block by block,
 * in whatever rooms it is made, and whatever was inflated before; what deflate.h makes of any message,
 * with any window, inflates to that message again, in bounds.
 *
 *   input: cuts (of the output) | window | how much of the rest was a message before | the payload
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/wire_check.h"
#include "worker/proto/deflate.h"
#include "worker/proto/inflate.h"

enum { MADE_MAX = 1 << 16 };

struct made {
    uint8_t bytes[MADE_MAX];
    size_t used;
    enum inflate_status status; /* INFLATE_MORE: there is more than MADE_MAX */
};

static void
inflate_in_rooms(struct inflate *inflater, struct fuzz_input payload, struct fuzz_cuts rooms,
                 struct made *made)
{
    uint8_t *copy = fuzz_copy(payload.at, payload.bytes);

    made->used = 0;
    made->status = INFLATE_MORE;
    inflate_begin(inflater, copy, payload.bytes);
    while (made->status == INFLATE_MORE && made->used < MADE_MAX) {
        size_t room = fuzz_cuts_next(&rooms, MADE_MAX - made->used);
        uint8_t *out = malloc(room); /* so that a byte too many is seen */
        size_t more = 0;

        REQUIRE(out);
        made->status = inflate_more(inflater, out, room, &more);
        REQUIRE(more <= room);
        REQUIRE(made->status != INFLATE_MORE || more == room);
        REQUIRE(made->status != INFLATE_NO_MEMORY);
        memcpy(made->bytes + made->used, out, more);
        made->used += more;
        free(out);
    }
    free(copy);
}

/* How much there is of a broken message depends on where zlib stopped to look. */
static void
require_same(const struct made *got, const struct made *wanted)
{
    bool full = wanted->status == INFLATE_MORE && got->used == MADE_MAX;

    /* What is wrong right behind the last byte that there is room for may be seen at once. */
    REQUIRE(got->status == wanted->status || (full && got->status == INFLATE_BROKEN));
    if (wanted->status == INFLATE_BROKEN)
        return;
    REQUIRE(got->used == wanted->used);
    REQUIRE(got->used == 0 || memcmp(got->bytes, wanted->bytes, got->used) == 0);
}

static void
inflate_plainly(struct fuzz_input payload, struct made *made)
{
    uint8_t *out;
    bool too_big;
    bool right = wire_inflate(payload.at, payload.bytes, MADE_MAX, &out, &made->used, &too_big);

    made->status = right ? INFLATE_END : INFLATE_BROKEN;
    if (too_big || made->used == MADE_MAX) {
        made->status = INFLATE_MORE; /* there is no room to hear what comes next */
        made->used = MADE_MAX;
    }
    memcpy(made->bytes, out, made->used);
    free(out);
}

static void
check_inflate(struct inflate *inflater, struct fuzz_input before, struct fuzz_input payload,
              struct fuzz_cuts rooms)
{
    static const struct fuzz_cuts at_once = {.count = 0};
    static struct made wanted, got;

    inflate_plainly(payload, &wanted);
    inflate_in_rooms(inflater, payload, at_once, &got);
    require_same(&got, &wanted);
    inflate_in_rooms(inflater, before, rooms, &got);
    inflate_in_rooms(inflater, payload, rooms, &got);
    require_same(&got, &wanted);
}

static void
check_round_trip(struct inflate *inflater, struct deflate *deflater, struct fuzz_input message,
                 unsigned bits, struct fuzz_cuts rooms)
{
    static struct made made;
    size_t room = message.bytes + message.bytes / 8 + 64;
    uint8_t *out = malloc(room + DEFLATE_TAIL_BYTES);
    size_t bytes;

    REQUIRE(out);
    bytes = deflate_message(deflater, bits, message.at, message.bytes, out, room);
    REQUIRE(bytes >= 1 && bytes <= room);
    inflate_in_rooms(inflater, (struct fuzz_input){out, bytes}, rooms, &made);
    REQUIRE(made.status == INFLATE_END && made.used == message.bytes);
    REQUIRE(made.used == 0 || memcmp(made.bytes, message.at, made.used) == 0);
    free(out);
    /* The room is what counts: one byte less and it does not fit, exactly that much and it does. */
    for (size_t less = 0; less < 2 && bytes > less; less++) {
        uint8_t *exact = malloc(bytes - less + DEFLATE_TAIL_BYTES);

        REQUIRE(exact);
        REQUIRE(deflate_message(deflater, bits, message.at, message.bytes, exact, bytes - less) ==
                (less ? 0 : bytes));
        free(exact);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct inflate *inflater;
    static struct deflate *deflater;
    struct fuzz_input rest = {data, bytes};
    struct fuzz_cuts rooms = fuzz_cuts_read(&rest);
    unsigned bits = 9 + fuzz_byte(&rest) % 7;
    size_t before_bytes = fuzz_byte(&rest);
    struct fuzz_input before = {rest.at, before_bytes < rest.bytes ? before_bytes : rest.bytes};
    struct fuzz_input payload = {rest.at + before.bytes, rest.bytes - before.bytes};

    if (!inflater) {
        inflater = inflate_new();
        deflater = deflate_new();
        REQUIRE(inflater && deflater);
    }
    check_inflate(inflater, before, payload, rooms);
    check_round_trip(inflater, deflater, rest, bits, rooms);
    return 0;
}
