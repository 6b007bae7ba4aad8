/*
 * utf8_oracle.h: UTF-8 by arithmetic on code points, RFC 3629, to hold worker/proto/utf8.h against.
 *
 * Role:     tests. Slow, and as little like a table of states as possible.
 * Errors:   UTF8_ORACLE_BAD.
 */
#ifndef CRIER_TESTS_LIB_UTF8_ORACLE_H
#define CRIER_TESTS_LIB_UTF8_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum utf8_oracle {
    UTF8_ORACLE_WHOLE,  /* whole characters */
    UTF8_ORACLE_INSIDE, /* ends inside a character that more bytes can still complete */
    UTF8_ORACLE_BAD,    /* whatever follows */
};

/* Is there a character of that many bytes with a code point in [low, high]? */
static inline bool
utf8_oracle_possible(size_t length, uint32_t low, uint32_t high)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};

    if (low < smallest[length])
        low = smallest[length];
    if (high > 0x10ffff)
        high = 0x10ffff;
    if (low >= 0xd800 && low <= 0xdfff)
        low = 0xe000;
    if (high >= 0xd800 && high <= 0xdfff)
        high = 0xd7ff;
    return low <= high;
}

/* Reads one character; `*used` is its bytes, as far as they are there. */
static inline enum utf8_oracle
utf8_oracle_char(const uint8_t *data, size_t bytes, size_t *used)
{
    size_t length = data[0] < 0x80    ? 1
                    : data[0] >= 0xf8 ? 0
                    : data[0] >= 0xf0 ? 4
                    : data[0] >= 0xe0 ? 3
                    : data[0] >= 0xc0 ? 2
                                      : 0;
    uint32_t point;

    if (length == 0)
        return UTF8_ORACLE_BAD;
    point = length == 1 ? data[0] : data[0] & (0x7fu >> length);
    for (*used = 1;; ++*used) {
        unsigned missing_bits = 6 * (unsigned)(length - *used);
        uint32_t low = point << missing_bits;

        if (!utf8_oracle_possible(length, low, low | ((1u << missing_bits) - 1)))
            return UTF8_ORACLE_BAD;
        if (*used == length)
            return UTF8_ORACLE_WHOLE;
        if (*used == bytes)
            return UTF8_ORACLE_INSIDE;
        if (data[*used] >> 6 != 2)
            return UTF8_ORACLE_BAD;
        point = point << 6 | (data[*used] & 0x3f);
    }
}

/* What data[0, bytes) is, given that the first `*border` bytes are whole characters; moves the
 * border up to the last character that is not. */
static inline enum utf8_oracle
utf8_oracle_from(size_t *border, const uint8_t *data, size_t bytes)
{
    enum utf8_oracle result = UTF8_ORACLE_WHOLE;

    while (*border < bytes) {
        size_t used = 0;

        result = utf8_oracle_char(data + *border, bytes - *border, &used);
        if (result != UTF8_ORACLE_WHOLE)
            break;
        *border += used;
    }
    return result;
}

static inline enum utf8_oracle
utf8_oracle(const uint8_t *data, size_t bytes)
{
    size_t border = 0;

    return utf8_oracle_from(&border, data, bytes);
}

#endif
