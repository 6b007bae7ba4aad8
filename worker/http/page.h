/*
 * page.h: the page that a browser gets at /, which connects back and shows what is broadcast.
 *
 * It contains no absolute path, so that it works below a prefix that a proxy removes.
 *
 * Role:     worker.
 * Context:  any thread: constants.
 */
#ifndef CRIER_WORKER_HTTP_PAGE_H
#define CRIER_WORKER_HTTP_PAGE_H

#include "worker/proto/http1.h"

/* The headers that the page has beyond those of response.h, each with CR LF. */
extern const char page_headers[];

/* The page itself; static. */
struct http1_slice page_content(void);

#endif
