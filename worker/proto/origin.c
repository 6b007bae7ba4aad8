#include "worker/proto/origin.h"

#include <string.h>

#define ORIGIN_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

struct origin {
    struct http1_slice scheme;
    struct http1_slice host;
    unsigned port; /* 0: not given, and the scheme has no default one */
    unsigned default_port;
};

static unsigned
origin_default_port(struct http1_slice scheme)
{
    static const struct {
        const char *scheme;
        unsigned port;
    } defaults[] = {{"http", 80}, {"https", 443}, {"ws", 80}, {"wss", 443}};

    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        if (http1_slice_equal_nocase(scheme, http1_slice_of(defaults[i].scheme)))
            return defaults[i].port;
    return 0;
}

static struct http1_slice
origin_trim(struct http1_slice text)
{
    if (text.bytes && text.at[text.bytes - 1] == '/')
        text.bytes--;
    return text;
}

/* False: it is not of the form scheme://host[:port]. */
static bool
origin_split(struct http1_slice text, struct origin *origin)
{
    const char *colon = text.bytes ? memchr(text.at, ':', text.bytes) : NULL;
    size_t scheme_bytes = colon ? (size_t)(colon - text.at) : 0;
    size_t host_at = scheme_bytes + 3;

    if (scheme_bytes == 0 || text.bytes < host_at || memcmp(colon, "://", 3) != 0)
        return false;
    origin->scheme = (struct http1_slice){text.at, scheme_bytes};
    origin->default_port = origin_default_port(origin->scheme);
    if (!http1_authority_split(
            origin_trim((struct http1_slice){text.at + host_at, text.bytes - host_at}),
            &origin->host, &origin->port))
        return false;
    if (!origin->port)
        origin->port = origin->default_port;
    return true;
}

bool
origin_is_of_host(struct http1_slice origin, struct http1_slice own)
{
    struct origin page;
    struct http1_slice own_host;
    unsigned own_port;

    return origin_split(origin, &page) && page.default_port &&
           http1_authority_split(own, &own_host, &own_port) &&
           http1_slice_equal_nocase(page.host, own_host) &&
           page.port == (own_port ? own_port : page.default_port);
}

static bool
origin_equal(struct http1_slice a, struct http1_slice b)
{
    struct origin of_a, of_b;

    if (!origin_split(a, &of_a) || !origin_split(b, &of_b))
        return http1_slice_equal_nocase(a, b);
    return http1_slice_equal_nocase(of_a.scheme, of_b.scheme) &&
           http1_slice_equal_nocase(of_a.host, of_b.host) && of_a.port == of_b.port;
}

bool
origin_is_listed(struct http1_slice origin, const char *list)
{
    struct http1_slice rest = http1_slice_of(list);
    struct http1_slice element;

    while (http1_list_next(&rest, &element))
        if (origin_equal(origin, element))
            return true;
    return false;
}

static bool
origin_has_only(struct http1_slice text, const char *characters)
{
    for (size_t i = 0; i < text.bytes; i++)
        if (!text.at[i] || !strchr(characters, text.at[i]))
            return false;
    return true;
}

/* Of what a Host may hold, browsers leave much out of an origin, among it the '*' of a pattern, which would
 * match nothing. RFC 3986 section 3.1 for the scheme. */
bool
origin_is_listable(struct http1_slice origin)
{
    struct origin page;
    struct http1_slice trimmed = origin_trim(origin);

    return origin_split(origin, &page) && trimmed.at[trimmed.bytes - 1] != ':' &&
           origin_has_only((struct http1_slice){page.scheme.at, 1}, ORIGIN_LETTERS) &&
           origin_has_only(page.scheme, ORIGIN_LETTERS "0123456789+-.") &&
           origin_has_only(page.host, ORIGIN_LETTERS "0123456789-._~:[]");
}
