#include "shm/util/escape.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ESCAPE_CUT_BYTES = 3 }; /* "..." */

/* Characters beyond ASCII that are not shown: C1, Cf, Zl, Zp, default ignorables, noncharacters. */
static const struct {
    uint32_t first;
    uint32_t last;
} escape_hidden[] = {
    {0x80, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},     {0x600, 0x605},
    {0x61c, 0x61c},     {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},
    {0x8e2, 0x8e2},     {0x115f, 0x1160},   {0x17b4, 0x17b5},   {0x180b, 0x180f},
    {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},   {0x3164, 0x3164},
    {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb},
    {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1345f}, {0x1bca0, 0x1bca3},
    {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
};

static bool
escape_is_hidden(uint32_t character)
{
    if ((character & 0xfffe) == 0xfffe)
        return true;
    for (size_t i = 0; i < sizeof(escape_hidden) / sizeof(escape_hidden[0]); i++)
        if (character >= escape_hidden[i].first && character <= escape_hidden[i].last)
            return true;
    return false;
}

/* Bytes of the UTF-8 sequence that `text` begins with, RFC 3629 section 4; 0: it is none. */
static size_t
escape_sequence(const uint8_t *text, size_t bytes, uint32_t *character)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t lead = text[0];
    size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

    if (lead < 0xc2 || lead > 0xf4 || length > bytes)
        return 0;
    *character = lead & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        *character = *character << 6 | (text[i] & 0x3fU);
    }
    if (*character < smallest[length] || *character > 0x10ffff ||
        (*character >= 0xd800 && *character <= 0xdfff))
        return 0;
    return length;
}

static size_t
escape_byte(char out[4], uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";

    out[0] = '\\';
    out[1] = 'x';
    out[2] = digits[byte >> 4];
    out[3] = digits[byte & 15];
    return 4;
}

/* What the character that `text` begins with becomes; `*taken` of its bytes. */
static size_t
escape_next(char out[16], const uint8_t *text, size_t bytes, size_t *taken, enum escape_style style,
            bool utf8)
{
    uint32_t character = text[0];
    size_t length = text[0] < 0x80 ? 1 : escape_sequence(text, bytes, &character);
    bool shown = length > 1 ? utf8 && !escape_is_hidden(character)
                            : length == 1 && character >= ' ' && character < 0x7f;
    size_t used = 0;

    *taken = length ? length : 1;
    if (!shown) {
        for (size_t i = 0; i < *taken; i++)
            used += escape_byte(out + used, text[i]);
        return used;
    }
    if (style == ESCAPE_QUOTED && (character == '"' || character == '\\'))
        out[used++] = '\\';
    memcpy(out + used, text, length);
    return used + length;
}

size_t
escape_text_as(char *out, size_t out_bytes, const void *text, size_t bytes, enum escape_style style,
               bool utf8)
{
    const uint8_t *at = text;
    const uint8_t *end = at + bytes;
    size_t cut = 0; /* as much as leaves room for "..." */
    size_t used = 0;

    assert(out_bytes > ESCAPE_CUT_BYTES);
    while (at < end) {
        char part[16];
        size_t taken;
        size_t part_bytes = escape_next(part, at, (size_t)(end - at), &taken, style, utf8);

        if (used + part_bytes >= out_bytes) {
            memcpy(out + cut, "...", ESCAPE_CUT_BYTES);
            used = cut + ESCAPE_CUT_BYTES;
            break;
        }
        memcpy(out + used, part, part_bytes);
        used += part_bytes;
        if (used + ESCAPE_CUT_BYTES < out_bytes)
            cut = used;
        at += taken;
    }
    out[used] = '\0';
    return used;
}

size_t
escape_text(char *out, size_t out_bytes, const void *text, size_t bytes, enum escape_style style)
{
    return escape_text_as(out, out_bytes, text, bytes, style, escape_locale_is_utf8());
}

static bool
escape_names_utf8(const char *locale)
{
    return strcasestr(locale, "utf-8") || strcasestr(locale, "utf8");
}

bool
escape_locale_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    static int answer = -1;

    for (size_t i = 0; answer < 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        const char *locale = getenv(names[i]);

        if (locale && *locale)
            answer = escape_names_utf8(locale);
    }
    if (answer < 0)
        answer = 0;
    return answer;
}
