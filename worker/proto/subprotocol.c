#include "worker/proto/subprotocol.h"

#include <ctype.h>
#include <string.h>

const char *
subprotocol_status_name(enum subprotocol_status status)
{
    switch (status) {
    case SUBPROTOCOL_OK: return "ok";
    case SUBPROTOCOL_MALFORMED: return "malformed";
    case SUBPROTOCOL_REPEATED: return "repeated";
    case SUBPROTOCOL_TOO_MANY: return "too many";
    }
    return "unknown";
}

static bool
subprotocol_is_token(struct http1_slice name)
{
    for (size_t i = 0; i < name.bytes; i++)
        if (!http1_is_token_char(name.at[i]))
            return false;
    return name.bytes > 0;
}

static bool
subprotocol_begins(struct http1_slice name, const char *prefix)
{
    struct http1_slice wanted = http1_slice_of(prefix);

    return name.bytes >= wanted.bytes &&
           http1_slice_equal_nocase((struct http1_slice){name.at, wanted.bytes}, wanted);
}

/* Does `word` stand in `name`, and neither a letter nor a digit behind it, but something? */
static bool
subprotocol_announces(struct http1_slice name, const char *word)
{
    size_t bytes = strlen(word);

    for (; name.bytes > bytes; name.at++, name.bytes--)
        if (subprotocol_begins(name, word) && !isalnum((unsigned char)name.at[bytes]))
            return true;
    return false;
}

/* This header is the only one that a page of a browser can set, so pages send credentials in it:
 * base64url.bearer.authorization.k8s.io.TOKEN, openai-insecure-api-key.KEY, or a JSON Web Token (RFC 7519),
 * which begins with {" in base64. */
static bool
subprotocol_may_be_secret(struct http1_slice name)
{
    static const char *const words[] = {"bearer", "basic", "authorization", "token",
                                        "jwt",    "key",   "secret",        "password"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (subprotocol_announces(name, words[i]))
            return true;
    return name.bytes >= 3 && memcmp(name.at, "eyJ", 3) == 0;
}

static bool
subprotocol_is_listed(struct http1_slice name, const char *wanted)
{
    struct http1_slice list = http1_slice_of(wanted);
    struct http1_slice listed;

    while (http1_list_next(&list, &listed))
        if (http1_slice_equal(listed, name))
            return true;
    return false;
}

static bool
subprotocol_is_wanted(struct http1_slice name, const char *wanted)
{
    if (strcmp(wanted, "any") != 0)
        return subprotocol_is_listed(name, wanted);
    return name.bytes <= SUBPROTOCOL_NAME_MAX_BYTES && !subprotocol_begins(name, "crier.") &&
           !subprotocol_may_be_secret(name);
}

/* Collects the names of all lines. */
static enum subprotocol_status
subprotocol_read(const struct http1_request *req, struct http1_slice names[SUBPROTOCOL_OFFERS_MAX],
                 size_t *count)
{
    const struct http1_header *line = NULL;
    struct http1_slice name;

    *count = 0;
    while ((line = http1_header_next(req, line, "Sec-WebSocket-Protocol"))) {
        struct http1_slice list = line->value;

        while (http1_list_next(&list, &name)) {
            if (!subprotocol_is_token(name))
                return SUBPROTOCOL_MALFORMED;
            for (size_t i = 0; i < *count; i++)
                if (http1_slice_equal(names[i], name))
                    return SUBPROTOCOL_REPEATED;
            if (*count == SUBPROTOCOL_OFFERS_MAX)
                return SUBPROTOCOL_TOO_MANY;
            names[(*count)++] = name;
        }
    }
    return SUBPROTOCOL_OK;
}

enum subprotocol_status
subprotocol_choose(const struct http1_request *req, const char *wanted, struct http1_slice *chosen)
{
    struct http1_slice names[SUBPROTOCOL_OFFERS_MAX];
    enum subprotocol_status status;
    size_t count;

    *chosen = (struct http1_slice){NULL, 0};
    if (!http1_header_find(req, "Sec-WebSocket-Protocol"))
        return SUBPROTOCOL_OK;
    status = subprotocol_read(req, names, &count);
    if (status != SUBPROTOCOL_OK)
        return status;
    if (count == 0)
        return SUBPROTOCOL_MALFORMED;
    for (size_t i = 0; wanted && i < count && !chosen->bytes; i++)
        if (subprotocol_is_wanted(names[i], wanted))
            *chosen = names[i];
    return SUBPROTOCOL_OK;
}

bool
subprotocol_wanted_valid(const char *wanted)
{
    for (;;) {
        struct http1_slice name = {wanted, strcspn(wanted, ",")};

        if (!subprotocol_is_token(name) || name.bytes > SUBPROTOCOL_NAME_MAX_BYTES)
            return false;
        if (!wanted[name.bytes])
            return true;
        wanted += name.bytes + 1;
    }
}
