#include "worker/proto/extension.h"

#include <stdio.h>

enum {
    EXTENSION_VALUE_BYTES = 2, /* the longest value that any parameter may have */
};

/* Parameters of permessage-deflate, as bits: which ones were seen in an offer. */
enum extension_param_bit {
    EXTENSION_SERVER_TAKEOVER = 1,
    EXTENSION_CLIENT_TAKEOVER = 2,
    EXTENSION_SERVER_BITS = 4,
    EXTENSION_CLIENT_BITS = 8,
};

/* A parameter as it was written. Of a value only the beginning is kept: what is longer is wrong. */
struct extension_param {
    struct http1_slice name;
    bool has_value;
    size_t value_bytes; /* without quotes and backslashes */
    char value[EXTENSION_VALUE_BYTES];
};

/* ---- the grammar, RFC 6455 section 9.1 ------------------------------------------------------- */

static void
extension_skip(struct http1_slice *rest)
{
    rest->at++;
    rest->bytes--;
}

/* White space may stand between any two words and separators: RFC 2616 section 2.1, which this
 * grammar is written in. */
static void
extension_skip_blanks(struct http1_slice *rest)
{
    while (rest->bytes && (rest->at[0] == ' ' || rest->at[0] == '\t'))
        extension_skip(rest);
}

/* Takes the separator `c` if it is next. */
static bool
extension_take(struct http1_slice *rest, char c)
{
    extension_skip_blanks(rest);
    if (!rest->bytes || rest->at[0] != c)
        return false;
    extension_skip(rest);
    return true;
}

static bool
extension_take_token(struct http1_slice *rest, struct http1_slice *token)
{
    extension_skip_blanks(rest);
    *token = (struct http1_slice){rest->at, 0};
    while (rest->bytes && http1_is_token_char(rest->at[0])) {
        extension_skip(rest);
        token->bytes++;
    }
    return token->bytes > 0;
}

static void
extension_add_value(struct extension_param *param, char c)
{
    if (param->value_bytes < EXTENSION_VALUE_BYTES)
        param->value[param->value_bytes] = c;
    param->value_bytes++;
}

/* The rest of a quoted string, RFC 9110 section 5.6.4. */
static bool
extension_take_quoted(struct http1_slice *rest, struct extension_param *param)
{
    while (rest->bytes) {
        char c = rest->at[0];

        extension_skip(rest);
        if (c == '"')
            return true;
        if (c == '\\') {
            if (!rest->bytes)
                return false;
            c = rest->at[0];
            extension_skip(rest);
        }
        extension_add_value(param, c);
    }
    return false;
}

static bool
extension_take_value(struct http1_slice *rest, struct extension_param *param)
{
    struct http1_slice token;

    if (extension_take(rest, '"'))
        return extension_take_quoted(rest, param);
    if (!extension_take_token(rest, &token))
        return false;
    for (size_t i = 0; i < token.bytes; i++)
        extension_add_value(param, token.at[i]);
    return true;
}

static bool
extension_take_param(struct http1_slice *rest, struct extension_param *param)
{
    *param = (struct extension_param){.has_value = false};
    if (!extension_take_token(rest, &param->name))
        return false;
    param->has_value = extension_take(rest, '=');
    return !param->has_value || extension_take_value(rest, param);
}

/* ---- what parameters mean, RFC 7692 section 7.1 ---------------------------------------------- */

/* A number from 8 to 15 without leading zeroes; 0: the value is something else. */
static uint8_t
extension_window_bits(const struct extension_param *param)
{
    const char *v = param->value;

    if (param->value_bytes == 1 && (v[0] == '8' || v[0] == '9'))
        return (uint8_t)(v[0] - '0');
    if (param->value_bytes == 2 && v[0] == '1' && v[1] >= '0' && v[1] <= '5')
        return (uint8_t)(10 + v[1] - '0');
    return 0;
}

/* Which parameter is it? 0: none that RFC 7692 defines. */
static unsigned
extension_param_bit(struct http1_slice name)
{
    static const struct {
        const char *name;
        enum extension_param_bit bit;
    } params[] = {
        {"server_no_context_takeover", EXTENSION_SERVER_TAKEOVER},
        {"client_no_context_takeover", EXTENSION_CLIENT_TAKEOVER},
        {"server_max_window_bits", EXTENSION_SERVER_BITS},
        {"client_max_window_bits", EXTENSION_CLIENT_BITS},
    };

    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
        if (http1_slice_equal_nocase(name, http1_slice_of(params[i].name)))
            return params[i].bit;
    return 0;
}

/* Adds a parameter to an offer. False: the offer is to be declined. */
static bool
extension_accept_param(const struct extension_param *param, unsigned *seen,
                       struct extension_deflate *offer)
{
    unsigned bit = extension_param_bit(param->name);

    if (*seen & bit)
        return false;
    *seen |= bit;
    switch (bit) {
    case EXTENSION_SERVER_TAKEOVER:
    case EXTENSION_CLIENT_TAKEOVER: return !param->has_value;
    case EXTENSION_SERVER_BITS:
        offer->server_bits_asked = true;
        offer->server_window_bits = extension_window_bits(param);
        return offer->server_window_bits > 8;
    case EXTENSION_CLIENT_BITS:
        offer->client_window_bits = extension_window_bits(param);
        return !param->has_value || offer->client_window_bits;
    }
    return false;
}

/* ---- the list -------------------------------------------------------------------------------- */

/* One element of the list, which counts if it is the first that can be accepted. False: it does not
 * follow the grammar. */
static bool
extension_take_offer(struct http1_slice *rest, struct extension_deflate *deflate)
{
    struct extension_deflate offer = {.server_window_bits = 15};
    struct extension_param param;
    struct http1_slice name;
    unsigned seen = 0;

    if (!extension_take_token(rest, &name))
        return false;
    offer.agreed = http1_slice_equal_nocase(name, http1_slice_of("permessage-deflate"));
    while (extension_take(rest, ';')) {
        if (!extension_take_param(rest, &param))
            return false;
        offer.agreed = offer.agreed && extension_accept_param(&param, &seen, &offer);
    }
    if (offer.agreed && !deflate->agreed)
        *deflate = offer;
    return true;
}

static bool
extension_take_list(struct http1_slice rest, struct extension_deflate *deflate)
{
    do {
        extension_skip_blanks(&rest);
        if (rest.bytes && rest.at[0] != ',' && !extension_take_offer(&rest, deflate))
            return false;
    } while (extension_take(&rest, ','));
    return !rest.bytes;
}

bool
extension_negotiate(const struct http1_request *req, struct extension_deflate *deflate)
{
    const struct http1_header *line = NULL;

    *deflate = (struct extension_deflate){.agreed = false};
    while ((line = http1_header_next(req, line, "Sec-WebSocket-Extensions"))) {
        if (!extension_take_list(line->value, deflate)) {
            *deflate = (struct extension_deflate){.agreed = false};
            return false;
        }
    }
    return true;
}

/* ---- the answer ------------------------------------------------------------------------------ */

size_t
extension_answer(const struct extension_deflate *deflate, char *out, size_t out_bytes)
{
    char server_bits[32] = "", client_bits[32] = "";
    int written;

    if (!deflate->agreed)
        return 0;
    if (deflate->server_bits_asked)
        snprintf(server_bits, sizeof(server_bits), "; server_max_window_bits=%u",
                 deflate->server_window_bits);
    if (deflate->client_window_bits)
        snprintf(client_bits, sizeof(client_bits), "; client_max_window_bits=%u",
                 deflate->client_window_bits);
    written = snprintf(out, out_bytes,
                       "permessage-deflate; server_no_context_takeover; "
                       "client_no_context_takeover%s%s",
                       server_bits, client_bits);
    return written > 0 && (size_t)written < out_bytes ? (size_t)written : 0;
}
