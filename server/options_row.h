/*
 * options_row.h: one table of all options, the server's and the application's; finds and sets them.
 *
 * Role:     master, for options.c, options_check.c and usage.c.
 * Owns:     the table, from options_rows_init to options_rows_fini; what it points to is borrowed.
 * Errors:   false: a sentence was printed that says what is accepted.
 * Context:  main thread.
 */
#ifndef CRIER_SERVER_OPTIONS_ROW_H
#define CRIER_SERVER_OPTIONS_ROW_H

#include <stdbool.h>
#include <stddef.h>

#include "server/options.h"

/* One option, of the server or of the application. Strings are borrowed. */
struct options_row {
    const char *name;
    int short_name;
    const char *arg;   /* NULL: takes none */
    const char *value; /* the default, or NULL */
    const char *help;
    const struct conf_row *server;  /* NULL: it is the application's */
    const struct crier_option *app; /* NULL: it is the server's */
    enum conf_source source;        /* of its value */
};

struct options_rows {
    struct options *options; /* what the rows set */
    const struct crier_app *app;
    struct options_row *list;
    size_t count;
};

/* The rows of shm/conf.def, then those of the application. */
void options_rows_init(struct options_rows *rows, struct options *options,
                       const struct crier_app *app);
void options_rows_fini(struct options_rows *rows);

/* Sets each value to its default. */
bool options_rows_set_defaults(struct options_rows *rows) __attribute__((warn_unused_result));

/* The row of that name, which is in the table. */
struct options_row *options_row_named(struct options_rows *rows, const char *name);

/* The row whose value `row` sets: --no-welcome sets that of --welcome. */
struct options_row *options_row_target(struct options_rows *rows, struct options_row *row);

/* `text` is the value that `source` gives. Of a list, a second text of the same source is added. */
bool options_row_set(struct options_rows *rows, struct options_row *row, const char *text,
                     enum conf_source source) __attribute__((warn_unused_result));

/* The option as its source gives it: "--ring", "CRIER_RING". Returns `text`. */
const char *options_row_name(const struct options_row *row, char text[CONF_NAME_BYTES]);

/* Prints a sentence, which begins with the name of the row as `source` gives it. Returns false. */
bool options_row_refuse(const struct options_row *row, enum conf_source source, const char *why);

/* Prints the sentence. Returns false. */
bool options_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
