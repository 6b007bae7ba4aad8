/*
 * usage.h: what --help and --version print.
 *
 * Role:     master, for options.c.
 * Errors:   none. Writes to stdout.
 * Context:  main thread.
 */
#ifndef CRIER_SERVER_USAGE_H
#define CRIER_SERVER_USAGE_H

#include <stddef.h>

#include "server/options_row.h"

/* Every row, the server's and then the application's, with its default. */
void usage_print(const struct options_row *rows, size_t count, const char *app_name);

void usage_print_version(void);

#endif
