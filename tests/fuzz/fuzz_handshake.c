/*
 * fuzz_handshake.c: of every request that http1.h has found right, the verdict is 101 exactly if a
 * second reading of its lines finds what RFC 6455 section 4.2.1 demands and what the policy allows;
 * Sec-WebSocket-Accept is computed a second time; every answer fits where it has to.
 *
 *   input: the request
 */
#include <ctype.h>
#include <openssl/evp.h>
#include <strings.h>

#include "tests/fuzz/fuzz.h"
#include "worker/proto/handshake.h"

static const char listed[] = "https://a.example,http://b:8080";

struct text {
    const char *at;
    size_t bytes;
};

static bool
text_is(struct text text, const char *word)
{
    return text.bytes == strlen(word) && strncasecmp(text.at, word, text.bytes) == 0;
}

static struct text
text_trim(struct text text)
{
    while (text.bytes && strchr(" \t", text.at[0])) {
        text.at++;
        text.bytes--;
    }
    while (text.bytes && strchr(" \t", text.at[text.bytes - 1]))
        text.bytes--;
    return text;
}

/* --- the request, read from its lines --- */

/* Counts the headers of that name; `value` is the last one's. */
static size_t
lines_named(struct text head, const char *name, struct text *value)
{
    size_t found = 0;

    *value = (struct text){"", 0};
    for (size_t at = 0; at < head.bytes;) {
        const char *line = head.at + at;
        const char *end = memchr(line, '\r', head.bytes - at);
        const char *colon = memchr(line, ':', (size_t)(end - line));

        if (at > 0 && colon && text_is((struct text){line, (size_t)(colon - line)}, name)) {
            *value = text_trim((struct text){colon + 1, (size_t)(end - colon - 1)});
            found++;
        }
        at = (size_t)(end - head.at) + 2;
    }
    return found;
}

static bool
list_has(struct text list, const char *token)
{
    for (size_t from = 0; from <= list.bytes;) {
        size_t to = from;

        while (to < list.bytes && list.at[to] != ',')
            to++;
        if (text_is(text_trim((struct text){list.at + from, to - from}), token))
            return true;
        from = to + 1;
    }
    return false;
}

/* Several headers of a name are one list: each is asked. */
static bool
lines_have_token(struct text head, const char *name, const char *token)
{
    for (size_t at = 0; at < head.bytes;) {
        const char *line = head.at + at;
        const char *end = memchr(line, '\r', head.bytes - at);
        struct text one = {line, (size_t)(end - line)};
        size_t name_bytes = strlen(name);

        if (at > 0 && one.bytes > name_bytes && line[name_bytes] == ':' &&
            strncasecmp(line, name, name_bytes) == 0 &&
            list_has((struct text){line + name_bytes + 1, one.bytes - name_bytes - 1}, token))
            return true;
        at += one.bytes + 2;
    }
    return false;
}

/* --- origins --- */

/* Is it HOST[:PORT] in either's words, a port that is left out being `port`? RFC 6454 section 4. */
static bool
same_authority(struct text a, struct text b, unsigned port)
{
    struct text sides[2] = {a, b};
    unsigned ports[2] = {port, port};

    for (size_t i = 0; i < 2; i++) {
        size_t colon = sides[i].bytes;

        while (colon > 0 && sides[i].at[colon - 1] >= '0' && sides[i].at[colon - 1] <= '9')
            colon--;
        if (colon == 0 || sides[i].at[colon - 1] != ':')
            continue;
        if (colon < sides[i].bytes)
            ports[i] = (unsigned)strtoul(sides[i].at + colon, NULL, 10);
        sides[i].bytes = colon - 1;
    }
    return ports[0] == ports[1] && sides[0].bytes == sides[1].bytes &&
           strncasecmp(sides[0].at, sides[1].at, sides[0].bytes) == 0;
}

static bool
same_origin(struct text origin, struct text host)
{
    static const char *const schemes[] = {"http://", "ws://", "https://", "wss://"};
    struct http1_slice unused;
    unsigned port;

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t skip = strlen(schemes[i]);
        struct text rest = {origin.at + skip, origin.bytes - skip};

        if (origin.bytes <= skip || strncasecmp(origin.at, schemes[i], skip) != 0)
            continue;
        return http1_authority_split((struct http1_slice){rest.at, rest.bytes}, &unused, &port) &&
               same_authority(rest, host, i < 2 ? 80 : 443);
    }
    return false;
}

static bool
listed_origin(struct text origin, const char *scheme, const char *authority, unsigned port)
{
    size_t skip = strlen(scheme);
    struct text rest = {origin.at + skip, origin.bytes - skip};
    struct http1_slice unused;
    unsigned given;

    return origin.bytes > skip && strncasecmp(origin.at, scheme, skip) == 0 &&
           http1_authority_split((struct http1_slice){rest.at, rest.bytes}, &unused, &given) &&
           same_authority(rest, (struct text){authority, strlen(authority)}, port);
}

static bool
origin_allowed(const struct http1_request *req, struct text head, enum handshake_origin policy)
{
    struct text origin;
    size_t count = lines_named(head, "Origin", &origin);

    if (origin.bytes && origin.at[origin.bytes - 1] == '/')
        origin.bytes--;
    if (count == 0)
        return true;
    if (count > 1)
        return false;
    switch (policy) {
    case HANDSHAKE_ORIGIN_SAME:
        return same_origin(origin, (struct text){req->host.at, req->host.bytes});
    case HANDSHAKE_ORIGIN_LIST:
        return listed_origin(origin, "https://", "a.example", 443) ||
               listed_origin(origin, "http://", "b:8080", 80);
    case HANDSHAKE_ORIGIN_ANY: break;
    }
    return true;
}

/* --- subprotocols --- */

enum { NAMES_MAX = 64 };

/* The names of all lines, in order; false: not all are tokens, one is there twice, there is none
 * although there is a header, or there are more than 64. RFC 6455 section 4.1. */
static bool
read_names(struct text head, struct text names[NAMES_MAX], size_t *count)
{
    static const char separators[] = "()<>@,;:\\\"/[]?={} \t";
    static const char field[] = "Sec-WebSocket-Protocol:";
    bool is_there = false;

    *count = 0;
    for (size_t at = 0; at < head.bytes;) {
        struct text line = {head.at + at, 0};

        line.bytes = (size_t)((const char *)memchr(line.at, '\r', head.bytes - at) - line.at);
        at += line.bytes + 2;
        if (line.bytes < sizeof(field) - 1 || strncasecmp(line.at, field, sizeof(field) - 1) != 0)
            continue;
        is_there = true;
        for (size_t from = sizeof(field) - 1; from <= line.bytes;) {
            size_t to = from;
            struct text name;

            while (to < line.bytes && line.at[to] != ',')
                to++;
            name = text_trim((struct text){line.at + from, to - from});
            from = to + 1;
            if (!name.bytes)
                continue;
            for (size_t i = 0; i < name.bytes; i++)
                if (name.at[i] <= ' ' || name.at[i] > '~' || strchr(separators, name.at[i]))
                    return false;
            for (size_t i = 0; i < *count; i++)
                if (names[i].bytes == name.bytes && !memcmp(names[i].at, name.at, name.bytes))
                    return false;
            if (*count == NAMES_MAX)
                return false;
            names[(*count)++] = name;
        }
    }
    return *count > 0 || !is_there;
}

static bool
is_reserved(struct text name)
{
    static const char *const words[] = {"bearer", "basic", "authorization", "token",
                                        "jwt",    "key",   "secret",        "password"};
    char copy[256];

    if (name.bytes > 255)
        return true;
    memcpy(copy, name.at, name.bytes);
    copy[name.bytes] = '\0';
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        for (const char *at = copy; (at = strcasestr(at, words[i])); at++)
            if (at[strlen(words[i])] && !isalnum((unsigned char)at[strlen(words[i])]))
                return true;
    return strncasecmp(copy, "crier.", 6) == 0 || strncmp(copy, "eyJ", 3) == 0;
}

/* What is to be agreed on; no bytes: nothing. */
static struct text
wanted_name(const struct text *names, size_t count, bool any)
{
    for (size_t i = 0; i < count; i++) {
        bool is_listed = names[i].bytes == 4 &&
                         (!memcmp(names[i].at, "chat", 4) || !memcmp(names[i].at, "mqtt", 4));

        if (any ? !is_reserved(names[i]) : is_listed)
            return names[i];
    }
    return (struct text){"", 0};
}

/* --- RFC 6455 section 4.2.1, with section 4.1 for what a key is --- */

static bool
key_is_right(struct text key)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    return key.bytes == 24 && memcmp(key.at + 22, "==", 2) == 0 && strspn(key.at, digits) == 22;
}

/* Content-Length, if there is one, is 0: http1.h has seen that it is a number. */
static bool
is_bodiless(struct text head)
{
    struct text value;

    if (lines_named(head, "Content-Length", &value) > 0)
        for (size_t i = 0; i < value.bytes; i++)
            if (value.at[i] != '0')
                return false;
    return lines_named(head, "Transfer-Encoding", &value) == 0;
}

static bool
is_http10(struct text head)
{
    const char *end = memchr(head.at, '\r', head.bytes);

    return end[-1] == '0' && end[-2] == '.';
}

static bool
is_handshake(struct text head)
{
    struct text version, key;

    return is_bodiless(head) && !is_http10(head) && memcmp(head.at, "GET ", 4) == 0 &&
           lines_have_token(head, "Upgrade", "websocket") &&
           lines_have_token(head, "Connection", "upgrade") &&
           lines_named(head, "Sec-WebSocket-Version", &version) == 1 && text_is(version, "13") &&
           lines_named(head, "Sec-WebSocket-Key", &key) == 1 && key_is_right(key);
}

/* Section 4.2.2, step 5.4, with base64 (RFC 4648 section 4) done by hand. */
static void
check_accept(struct text head, const char *accept)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char input[24 + 36 + 1];
    unsigned char digest[EVP_MAX_MD_SIZE + 1] = {0};
    unsigned digest_bytes;
    struct text key;

    REQUIRE(lines_named(head, "Sec-WebSocket-Key", &key) == 1);
    snprintf(input, sizeof(input), "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.at);
    REQUIRE(EVP_Digest(input, sizeof(input) - 1, digest, &digest_bytes, EVP_sha1(), NULL) == 1);
    REQUIRE(digest_bytes == 20 && strlen(accept) == HANDSHAKE_ACCEPT_BYTES);
    digest[20] = 0; /* 160 bits are 26 digits and four bits, which four zero bits make a digit */
    for (size_t i = 0; i < 27; i++) {
        size_t bit = i * 6;
        unsigned two = (unsigned)digest[bit / 8] << 8 | digest[bit / 8 + 1];

        REQUIRE(accept[i] == digits[two >> (10 - bit % 8) & 0x3f]);
    }
    REQUIRE(accept[27] == '=');
}

/* --- answers --- */

/* One whole response whose Content-Length is right; RFC 9112 section 6. */
static void
check_error(const struct handshake_verdict *verdict)
{
    char out[RESPONSE_MAX_BYTES + 1];
    size_t bytes =
        response_refusal(verdict->status, verdict->sentence, false, 0, out, sizeof(out) - 1);
    const char *body;
    const char *length;

    REQUIRE(bytes > 0 && bytes < sizeof(out));
    out[bytes] = '\0';
    body = strstr(out, "\r\n\r\n");
    length = strstr(out, "Content-Length: ");
    REQUIRE(body && length && length < body);
    REQUIRE(strlen(body + 4) == strtoul(length + strlen("Content-Length: "), NULL, 10));
    REQUIRE(atoi(out + strlen("HTTP/1.1 ")) == verdict->status);
    for (size_t room = 0; room < bytes; room += 16)
        REQUIRE(response_refusal(verdict->status, verdict->sentence, false, 0, out, room) == 0);
}

static void
check_101(const struct handshake_verdict *verdict, struct text head)
{
    char out[HANDSHAKE_ANSWER_MAX_BYTES];
    size_t bytes = handshake_answer_101(verdict, out, sizeof(out));
    struct text answer = {out, bytes};
    struct text value;

    check_accept(head, verdict->accept);
    REQUIRE(bytes > 4 && bytes <= sizeof(out));
    REQUIRE(memcmp(out, "HTTP/1.1 101 ", 13) == 0);
    REQUIRE(memcmp(out + bytes - 4, "\r\n\r\n", 4) == 0);
    REQUIRE(lines_named(answer, "Upgrade", &value) == 1 && text_is(value, "websocket"));
    REQUIRE(lines_named(answer, "Connection", &value) == 1 && text_is(value, "Upgrade"));
    REQUIRE(lines_named(answer, "Sec-WebSocket-Accept", &value) == 1);
    REQUIRE(value.bytes == HANDSHAKE_ACCEPT_BYTES &&
            memcmp(value.at, verdict->accept, value.bytes) == 0);
    REQUIRE(lines_named(answer, "Sec-WebSocket-Extensions", &value) == verdict->deflate.agreed);
    REQUIRE(lines_named(answer, "Sec-WebSocket-Protocol", &value) ==
            (verdict->subprotocol.bytes > 0 ? 1 : 0));
    REQUIRE(value.bytes == verdict->subprotocol.bytes &&
            memcmp(value.at, verdict->subprotocol.at ? verdict->subprotocol.at : "", value.bytes) ==
                0);
    REQUIRE(handshake_answer_101(verdict, out, bytes / 2) == 0);
}

static void
check_policy(const struct http1_request *req, struct text head, enum handshake_origin origin,
             bool deflate)
{
    bool any = origin == HANDSHAKE_ORIGIN_ANY;
    struct handshake_policy policy = {origin, listed, .deflate = deflate,
                                      .subprotocols = any ? "any" : "mqtt,chat"};
    struct extension_deflate agreed;
    bool extensions_right = extension_negotiate(req, &agreed); /* fuzz_extension.c */
    struct text names[NAMES_MAX];
    size_t name_count;
    bool names_right = read_names(head, names, &name_count);
    struct text name;
    struct handshake_verdict verdict;

    handshake_check(req, &policy, &verdict);
    REQUIRE((verdict.status == 101) == (is_handshake(head) && extensions_right && names_right &&
                                        origin_allowed(req, head, origin)));
    if (verdict.status == 101) {
        name = wanted_name(names, name_count, any);
        REQUIRE(verdict.subprotocol.bytes == name.bytes);
        REQUIRE(!name.bytes || verdict.subprotocol.at == name.at);
        REQUIRE(verdict.deflate.agreed == (deflate && agreed.agreed));
        check_101(&verdict, head);
        return;
    }
    REQUIRE(verdict.status == 400 || verdict.status == 403 || verdict.status == 405 ||
            verdict.status == 413 || verdict.status == 426 || verdict.status == 431 ||
            verdict.status == 501);
    check_error(&verdict);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const enum handshake_origin policies[] = {HANDSHAKE_ORIGIN_SAME, HANDSHAKE_ORIGIN_ANY,
                                                     HANDSHAKE_ORIGIN_LIST};
    struct http1_request req = {0};
    struct text head = {(const char *)data, 0};

    if (http1_parse((const char *)data, bytes, &req) != HTTP1_OK)
        return 0;
    head.bytes = req.head_bytes;
    if (head.at[0] == '\r') { /* an empty line in front */
        head.at += 2;
        head.bytes -= 2;
    }
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
        check_policy(&req, head, policies[i], i > 0);
    return 0;
}
