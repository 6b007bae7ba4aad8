#include "worker/http/site.h"

#include "worker/http/page.h"
#include "worker/proto/handshake.h"

/* Is `c` what `text` begins with, as it is or escaped? A slash does not equal its escape: RFC 3986 sections
 * 2.2 and 6.2.2.2. Returns how many bytes it takes; 0: no. */
static size_t
site_match(struct http1_slice text, char c)
{
    static const char digits[] = "0123456789abcdef";
    char escape[] = {'%', digits[(unsigned char)c >> 4], digits[c & 15]};

    if (text.bytes && text.at[0] == c)
        return 1;
    return c != '/' && text.bytes >= sizeof(escape) &&
                   http1_slice_equal_nocase((struct http1_slice){text.at, sizeof(escape)},
                                            (struct http1_slice){escape, sizeof(escape)})
               ? sizeof(escape)
               : 0;
}

/* Takes `prefix`, of slashes and characters that need no escape, off the path. */
static bool
site_cut_prefix(struct http1_slice *path, const char *prefix)
{
    for (; *prefix; prefix++) {
        size_t taken = site_match(*path, *prefix);

        if (taken == 0)
            return false;
        path->at += taken;
        path->bytes -= taken;
    }
    return true;
}

static bool
site_is_path(const struct http1_request *request, const char *path)
{
    struct http1_slice rest = request->path;

    return site_cut_prefix(&rest, path) && rest.bytes == 0;
}

/* RFC 9110 section 4.2.3: a path that is equivalent to one below /_/ is below it. */
static bool
site_is_reserved(const struct http1_request *request)
{
    struct http1_slice rest = request->path;

    return site_cut_prefix(&rest, "/_/");
}

static void
site_answer_page(struct site_answer *answer)
{
    *answer = (struct site_answer){.status = 200,
                                   .type = "text/html; charset=utf-8",
                                   .headers = page_headers,
                                   .content = page_content()};
}

static void
site_answer_reserved(const struct http1_request *request, struct site_answer *answer)
{
    static const struct site_answer health = {.status = 200,
                                              .type = "text/plain; charset=utf-8",
                                              .headers = "Cache-Control: no-store\r\n",
                                              .content = {"ok\n", 3}};

    if (site_is_path(request, "/_/healthz"))
        *answer = health;
    else
        *answer = (struct site_answer){
            .status = 404,
            .content =
                http1_slice_of("There is nothing here: paths below /_/ are the server's own.")};
}

static bool
site_wants_any(const struct http1_request *request, const char *condition)
{
    const struct http1_header *header = http1_header_find(request, condition);

    return header && http1_slice_equal(header->value, http1_slice_of("*"));
}

/* RFC 9110 section 13.2.2 for what is there, but has neither an entity tag nor a date: it matches "*" alone. */
static void
site_check_conditions(const struct http1_request *request, struct site_answer *answer)
{
    static const char failed[] = "Nothing here has the entity tag that If-Match names.\n";

    if (answer->status != 200)
        return;
    if (http1_header_find(request, "If-Match") && !site_wants_any(request, "If-Match"))
        *answer = (struct site_answer){
            .status = 412, .type = "text/plain; charset=utf-8", .content = http1_slice_of(failed)};
    else if (site_wants_any(request, "If-None-Match"))
        *answer = (struct site_answer){.status = 304, .headers = answer->headers};
}

bool
site_find(const struct http1_request *request, struct site_answer *answer)
{
    bool is_head = http1_is_method(request, "HEAD");

    if (request->has_body)
        return false;
    if (http1_is_method(request, "OPTIONS")) {
        *answer = (struct site_answer){.status = 204};
        return true;
    }
    if (!is_head && !http1_is_method(request, "GET"))
        return false;
    if (site_is_reserved(request)) {
        site_answer_reserved(request, answer);
        site_check_conditions(request, answer);
        return true;
    }
    if (!site_is_path(request, "/") || (!is_head && handshake_is_meant(request)))
        return false;
    site_answer_page(answer);
    site_check_conditions(request, answer);
    return true;
}
