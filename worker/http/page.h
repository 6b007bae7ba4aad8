/*
 * page.h: the page that a browser gets at /, which connects back and shows what is broadcast.
 *
 * Role:     worker.
 * Context:  loop thread.
 */
#ifndef CRIER_WORKER_HTTP_PAGE_H
#define CRIER_WORKER_HTTP_PAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/proto/http1.h"

/* Is it a person's browser that asks for /, and not a WebSocket client or a program? */
bool page_is_wanted(const struct http1_request *request);

/* The whole HTTP response; static. */
const char *page_response(size_t *bytes);

#endif
