#include "worker/http/page.h"

#include <stdint.h>

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

const char page_headers[] = "Content-Security-Policy: default-src 'none'; img-src data:; "
                            "style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                            "connect-src 'self'; frame-ancestors 'none'\r\n"
                            "Cache-Control: no-cache\r\n";

struct http1_slice
page_content(void)
{
    return (struct http1_slice){page_html, page_html_bytes};
}
