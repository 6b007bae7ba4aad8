/*
 * skip.h: skips a cmocka test with a reason, which tests/run.sh prints.
 */
#ifndef CRIER_TESTS_LIB_SKIP_H
#define CRIER_TESTS_LIB_SKIP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SKIP(reason)                                                                               \
    do {                                                                                           \
        print_message("[  REASON  ] %s: %s\n", __func__, reason);                                  \
        skip();                                                                                    \
    } while (0)

#endif
