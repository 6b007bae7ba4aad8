/*
 * skip.h: skips a cmocka test with a reason, which tests/run.sh prints; and the most frequent reason.
 */
#ifndef CRIER_TESTS_LIB_SKIP_H
#define CRIER_TESTS_LIB_SKIP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Built with a sanitizer, which has an allocator of its own and costs time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define SKIP(reason)                                                                               \
    do {                                                                                           \
        print_message("[  REASON  ] %s: %s\n", __func__, reason);                                  \
        skip();                                                                                    \
    } while (0)

#endif
