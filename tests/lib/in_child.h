/*
 * in_child.h: a part of a cmocka test in a process of its own, for what a process cannot undo.
 */
#ifndef CRIER_TESTS_LIB_IN_CHILD_H
#define CRIER_TESTS_LIB_IN_CHILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The expression is 0 there; any other value is printed. */
#define ASSERT_0_IN_CHILD(expression)                                                              \
    do {                                                                                           \
        int child_status;                                                                          \
        pid_t child = fork();                                                                      \
        if (child == 0) {                                                                          \
            int value = (expression);                                                              \
            if (value == 0)                                                                        \
                _exit(0);                                                                          \
            print_error("%s: %d\n", #expression, value);                                           \
            _exit(1);                                                                              \
        }                                                                                          \
        assert_true(child > 0);                                                                    \
        assert_int_equal(waitpid(child, &child_status, 0), child);                                 \
        assert_int_equal(child_status, 0);                                                         \
    } while (0)

#endif
