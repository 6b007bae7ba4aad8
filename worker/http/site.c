#include "worker/http/site.h"

#include "worker/http/page.h"
#include "worker/proto/handshake.h"

static bool
site_is_method(const struct http1_request *request, const char *method)
{
    return http1_slice_equal(request->method, http1_slice_of(method));
}

static bool
site_is_path(const struct http1_request *request, const char *path)
{
    return http1_slice_equal(request->path, http1_slice_of(path));
}

/* Below /_/, whose underscore may be escaped: RFC 3986 section 6.2.2.2. */
static bool
site_is_reserved(const struct http1_request *request)
{
    static const char *const prefixes[] = {"/_/", "/%5f/"};
    struct http1_slice path = request->path;

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        struct http1_slice prefix = http1_slice_of(prefixes[i]);

        if (path.bytes >= prefix.bytes &&
            http1_slice_equal_nocase((struct http1_slice){path.at, prefix.bytes}, prefix))
            return true;
    }
    return false;
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

bool
site_find(const struct http1_request *request, struct site_answer *answer)
{
    bool is_head = site_is_method(request, "HEAD");

    if (request->has_body)
        return false;
    if (site_is_method(request, "OPTIONS")) {
        *answer = (struct site_answer){.status = 204};
        return true;
    }
    if (!is_head && !site_is_method(request, "GET"))
        return false;
    if (site_is_reserved(request)) {
        site_answer_reserved(request, answer);
        return true;
    }
    if (!site_is_path(request, "/") || (!is_head && handshake_is_meant(request)))
        return false;
    site_answer_page(answer);
    return true;
}
