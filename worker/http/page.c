#include "worker/http/page.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* page.html as it is, and its length. */
__asm__(".section .rodata\n"
        "page_html:\n"
        ".incbin \"worker/http/page.html\"\n"
        "0:\n"
        ".balign 8\n"
        "page_html_bytes:\n"
        ".quad 0b - page_html\n"
        ".previous\n");
extern const char page_html[] __attribute__((visibility("hidden")));
extern const uint64_t page_html_bytes __attribute__((visibility("hidden")));

bool
page_is_wanted(const struct http1_request *request)
{
    const struct http1_header *accept = http1_header_find(request, "Accept");

    return http1_slice_equal(request->method, http1_slice_of("GET")) && !request->has_body &&
           request->path.bytes == 1 && request->path.at[0] == '/' && accept &&
           memmem(accept->value.at, accept->value.bytes, "text/html", strlen("text/html")) &&
           !http1_header_find(request, "Upgrade");
}

const char *
page_response(size_t *bytes)
{
    static char response[8192];
    static size_t used;
    size_t page_bytes = page_html_bytes;

    if (!used) {
        int head = snprintf(response, sizeof(response),
                            "HTTP/1.1 200 OK\r\n"
                            "Content-Type: text/html; charset=utf-8\r\n"
                            "Content-Length: %zu\r\n"
                            "Content-Security-Policy: default-src 'none'; img-src data:; "
                            "style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                            "connect-src 'self'; frame-ancestors 'none'\r\n"
                            "Cache-Control: no-cache\r\n"
                            "Connection: close\r\n\r\n",
                            page_bytes);
        used = (size_t)head + page_bytes;
        assert(used <= sizeof(response));
        memcpy(response + head, page_html, page_bytes);
    }
    *bytes = used;
    return response;
}
