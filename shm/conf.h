/*
 * conf.h: the options of the server, parsed, as every process sees them.
 *
 * Role:     the master sets them before the first fork, all processes read. The table is conf.def.
 * Lifetime: struct conf_shm lies in the segment's header and is not written once workers run. The
 *           master and each worker use a copy of their own.
 * Errors:   conf_set returns -EINVAL and fills `why` with one sentence without its subject, which is how
 *           the option was given (conf_given_as): "wants 1 or 0, not 'yes'".
 * Context:  any thread once the segment is shared.
 */
#ifndef CRIER_SHM_CONF_H
#define CRIER_SHM_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONF_TEXT_BYTES = 1024, CONF_APP_BYTES = 4096, CONF_WHY_BYTES = 256, CONF_NAME_BYTES = 64 };

enum conf_kind {
    CONF_TEXT,
    CONF_LIST,
    CONF_COUNT,
    CONF_SIZE,
    CONF_SECS,
    CONF_FLAG,
    CONF_CHOICE,
    CONF_LAG,
};

/* Where a value comes from, the weakest first. */
enum conf_source { CONF_DEFAULT, CONF_ENVIRONMENT, CONF_COMMAND_LINE };

/* How far behind: so many of a unit. */
enum conf_lag_unit { CONF_LAG_BROADCASTS, CONF_LAG_BYTES, CONF_LAG_MS };

struct conf_lag_shm {
    uint64_t amount;
    uint64_t unit; /* enum conf_lag_unit */
};

#define CONF_FIELD_TEXT(field) char field[CONF_TEXT_BYTES];
#define CONF_FIELD_LIST(field) char field[CONF_TEXT_BYTES];
#define CONF_FIELD_COUNT(field) uint64_t field;
#define CONF_FIELD_SIZE(field) uint64_t field;
#define CONF_FIELD_SECS(field) uint64_t field;
#define CONF_FIELD_FLAG(field) uint64_t field;
#define CONF_FIELD_CHOICE(field) uint64_t field;
#define CONF_FIELD_LAG(field) struct conf_lag_shm field;

struct conf_shm {
#define CONF_ROW(kind, field, name, short_name, arg, value, help) CONF_FIELD_##kind(field)
#include "shm/conf.def"
#undef CONF_ROW
    /* The application's options: "name=value" behind one byte for the source, each ended by NUL, the
     * list by an empty one. */
    char app[CONF_APP_BYTES];
};

/* The words of `--stdin`, in the order of its row in conf.def. */
enum conf_console { CONF_CONSOLE_AUTO, CONF_CONSOLE_ON, CONF_CONSOLE_OFF };

/* The words of `--slow`. */
enum conf_slow { CONF_SLOW_CLOSE, CONF_SLOW_SKIP, CONF_SLOW_LATEST, CONF_SLOW_BLOCK };

/* The words of `--log-broadcasts`. */
enum conf_log_broadcasts { CONF_LOG_BROADCASTS_ON, CONF_LOG_BROADCASTS_OFF };

/* The words of `--compress`. */
enum conf_compress { CONF_COMPRESS_ON, CONF_COMPRESS_OFF };

/* One option, of the server or of the application. All strings are static. */
struct conf_row {
    enum conf_kind kind;
    size_t offset; /* of the field in struct conf_shm; the application's rows have none */
    const char *name;
    int short_name;
    const char *arg;
    const char *value; /* the default, as it would be typed */
    const char *help;
};

/* The server's rows, in the order of conf.def. */
const struct conf_row *conf_rows(size_t *count);

/* Copies options that another process can write, and terminates every text in the copy. */
void conf_copy(struct conf_shm *to, const struct conf_shm *from);

/* Every row's default. `conf` is cleared first. */
void conf_init(struct conf_shm *conf);

/* Sets one field of `conf` from the text of one of conf_rows(). `again`: not the first value that
 * the row gets from this source, so that a LIST grows instead of being replaced. */
int conf_set(struct conf_shm *conf, const struct conf_row *row, const char *text, bool again,
             char why[CONF_WHY_BYTES]) __attribute__((warn_unused_result));

/* Is `text` one of the words of `choices` ("a|b|c")? Its index, or -1. */
int conf_choice(const char *choices, const char *text);

/* How `source` gives the option called max-message: --max-message, or CRIER_MAX_MESSAGE. Returns `text`. */
const char *conf_given_as(enum conf_source source, const char *name, char text[CONF_NAME_BYTES]);

/* Appends to the application's options; -ENOSPC when CONF_APP_BYTES are used up. */
int conf_app_set(struct conf_shm *conf, const char *name, const char *value,
                 enum conf_source source) __attribute__((warn_unused_result));

/* The last value set under `name`, or NULL. Borrowed from `conf`. */
const char *conf_app_get(const struct conf_shm *conf, const char *name);

/* Where that comes from. */
enum conf_source conf_app_source(const struct conf_shm *conf, const char *name);

#endif
