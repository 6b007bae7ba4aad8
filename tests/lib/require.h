/*
 * require.h: an assertion that every build keeps, for tests without a framework.
 */
#ifndef CRIER_TESTS_LIB_REQUIRE_H
#define CRIER_TESTS_LIB_REQUIRE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold (errno: %s)\n", __FILE__, __LINE__,           \
                    #condition, strerror(errno));                                                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
