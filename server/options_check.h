/*
 * options_check.h: checks what shm/conf.def cannot say of a value: whether the options fit each
 * other, and the limits and the syntax of single ones (--workers, --listen, --origin, ...).
 *
 * Role:     master, for options.c.
 * Owns:     nothing.
 * Errors:   false: a sentence was printed that says what is accepted.
 * Context:  main thread.
 */
#ifndef CRIER_SERVER_OPTIONS_CHECK_H
#define CRIER_SERVER_OPTIONS_CHECK_H

#include "server/options_row.h"

/* All values are set. Of two that exclude each other the one from the weaker source gets its
 * default; a default that is too small for --max-message grows. Fills in `workers` and
 * `arena_bytes` of the options. */
bool options_check(struct options_rows *rows) __attribute__((warn_unused_result));

#endif
