/*
 * fuzz_extension.c: of any lines of Sec-WebSocket-Extensions, in any number of headers, the answer
 * is that of a second reading of RFC 6455 section 9.1 and RFC 7692 section 7.1; what is answered is
 * itself a right offer that is agreed to with the same values.
 *
 *   input: the values of the headers, a line each
 */
#include <strings.h>

#include "tests/fuzz/fuzz.h"
#include "worker/proto/extension.h"

/* --- a second reading: words first, what they mean afterwards --- */

enum { WORD_BYTES = 64, PARAMS_MAX = 8 };

struct reader {
    const char *at;
    const char *end;
};

/* What is longer than any word with a meaning is cut: it has none either way. */
struct word {
    char text[WORD_BYTES + 1];
    size_t bytes;
};

struct offer {
    struct word name;
    size_t param_count;
    struct {
        struct word name;
        struct word value;
        bool has_value;
    } params[PARAMS_MAX];
};

static void
word_add(struct word *word, char c)
{
    if (word->bytes < WORD_BYTES)
        word->text[word->bytes++] = c;
    word->text[word->bytes] = '\0';
}

static char
read_peek(struct reader *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t'))
        in->at++;
    return in->at < in->end ? *in->at : '\0';
}

static bool
read_token(struct reader *in, struct word *word)
{
    *word = (struct word){.bytes = 0};
    (void)read_peek(in);
    while (in->at<in->end && * in->at> ' ' && *in->at < 0x7f &&
           !strchr("\"(),/:;<=>?@[\\]{}", *in->at))
        word_add(word, *in->at++);
    return word->bytes > 0;
}

static bool
read_value(struct reader *in, struct word *word)
{
    if (read_peek(in) != '"')
        return read_token(in, word);
    *word = (struct word){.bytes = 0};
    for (in->at++; in->at < in->end; in->at++) {
        if (*in->at == '"')
            return in->at++, true;
        if (*in->at == '\\' && ++in->at == in->end)
            return false;
        word_add(word, *in->at);
    }
    return false;
}

static bool
read_offer(struct reader *in, struct offer *offer)
{
    *offer = (struct offer){.param_count = 0};
    if (!read_token(in, &offer->name))
        return false;
    while (read_peek(in) == ';') {
        /* More than there are kinds: one occurs twice or is unknown, whichever is forgotten. */
        size_t i = offer->param_count < PARAMS_MAX ? offer->param_count++ : PARAMS_MAX - 1;

        in->at++;
        if (!read_token(in, &offer->params[i].name))
            return false;
        offer->params[i].has_value = read_peek(in) == '=';
        if (offer->params[i].has_value && (in->at++, !read_value(in, &offer->params[i].value)))
            return false;
    }
    return true;
}

/* A decimal number without a leading zero, 8 to 15, RFC 7692 section 7.1.2; or 0. */
static unsigned
window_bits(const struct word *word)
{
    static const char *const numbers[] = {"8", "9", "10", "11", "12", "13", "14", "15"};

    for (unsigned i = 0; i < 8; i++)
        if (strcmp(word->text, numbers[i]) == 0 && word->bytes == strlen(numbers[i]))
            return 8 + i;
    return 0;
}

static bool
offer_is_good(const struct offer *offer, struct extension_deflate *wanted)
{
    *wanted = (struct extension_deflate){.agreed = true, .server_window_bits = 15};
    if (strcasecmp(offer->name.text, "permessage-deflate") != 0 || offer->param_count > 4)
        return false;
    for (size_t i = 0; i < offer->param_count; i++) {
        const char *name = offer->params[i].name.text;
        unsigned bits = offer->params[i].has_value ? window_bits(&offer->params[i].value) : 0;
        bool takeover = strcasecmp(name, "server_no_context_takeover") == 0 ||
                        strcasecmp(name, "client_no_context_takeover") == 0;

        for (size_t k = 0; k < i; k++)
            if (strcasecmp(name, offer->params[k].name.text) == 0)
                return false;
        if (takeover && !offer->params[i].has_value)
            continue;
        if (strcasecmp(name, "server_max_window_bits") == 0 && bits > 8) {
            wanted->server_bits_asked = true;
            wanted->server_window_bits = (uint8_t)bits;
        } else if (strcasecmp(name, "client_max_window_bits") == 0 &&
                   (bits || !offer->params[i].has_value))
            wanted->client_window_bits = (uint8_t)bits;
        else
            return false;
    }
    return true;
}

/* False: the line does not follow the grammar. */
static bool
read_line(struct reader in, struct extension_deflate *wanted)
{
    struct extension_deflate one;
    struct offer offer;

    for (;;) {
        char next = read_peek(&in);

        if (next == ',') {
            in.at++;
            continue;
        }
        if (in.at == in.end)
            return true;
        if (!read_offer(&in, &offer))
            return false;
        if (offer_is_good(&offer, &one) && !wanted->agreed)
            *wanted = one;
        if (read_peek(&in) != ',')
            return in.at == in.end;
    }
}

/* --- the check --- */

static bool
same(const struct extension_deflate *a, const struct extension_deflate *b)
{
    return a->agreed == b->agreed && a->server_bits_asked == b->server_bits_asked &&
           a->server_window_bits == b->server_window_bits &&
           a->client_window_bits == b->client_window_bits;
}

static struct http1_header
header_of(const char *value, size_t bytes)
{
    return (struct http1_header){http1_slice_of("sec-websocket-extensions"), {value, bytes}};
}

static void
check_answer(const struct extension_deflate *deflate)
{
    char answer[EXTENSION_ANSWER_MAX_BYTES];
    size_t bytes = extension_answer(deflate, answer, sizeof(answer));
    struct http1_request echo = {.header_count = 1};
    struct extension_deflate again;

    if (!deflate->agreed) {
        REQUIRE(bytes == 0);
        return;
    }
    REQUIRE(bytes > 0 && bytes < sizeof(answer) && strlen(answer) == bytes);
    REQUIRE(strstr(answer, "; server_no_context_takeover"));
    REQUIRE(strstr(answer, "; client_no_context_takeover"));
    echo.headers[0] = header_of(answer, bytes);
    REQUIRE(extension_negotiate(&echo, &again) && same(deflate, &again));
    REQUIRE(extension_answer(deflate, answer, bytes) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct http1_request req;
    struct extension_deflate wanted = {.agreed = false};
    struct extension_deflate got;
    const char *text = (const char *)data;
    bool right = true;

    req.header_count = 0;
    for (size_t from = 0; from <= bytes && req.header_count < HTTP1_HEADERS_MAX;) {
        size_t to = from;

        while (to < bytes && text[to] != '\n')
            to++;
        req.headers[req.header_count++] = header_of(text + from, to - from);
        right = right && read_line((struct reader){text + from, text + to}, &wanted);
        from = to + 1;
    }
    if (!right)
        wanted = (struct extension_deflate){.agreed = false};
    REQUIRE(extension_negotiate(&req, &got) == right);
    REQUIRE(same(&got, &wanted));
    check_answer(&got);
    return 0;
}
