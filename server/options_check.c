/*
 * options_check.c: read options_check.h first.
 */
#define _GNU_SOURCE
#include "server/options_check.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/listen_address.h"
#include "server/supervise.h"
#include "shm/ring.h"
#include "worker/proto/origin.h"
#include "worker/proto/subprotocol.h"

enum {
    OPTIONS_WORKERS_MAX = RING_OWNERS_MAX - 1, /* the master is a member, too */
    OPTIONS_POOL_MIN_BYTES = 64 * 1024,        /* sixteen pages: a buffer has one at least */
};

/* Four of them and their heads fit the largest arena. */
static const uint64_t options_message_max_bytes = 255ULL << 20;

static bool
options_refuse_named(struct options_rows *rows, const char *name, const char *why)
{
    const struct options_row *row = options_row_named(rows, name);

    return options_row_refuse(row, row->source, why);
}

static bool
options_refuse_size(struct options_rows *rows, const char *name, const char *range, uint64_t bytes)
{
    char given[CONF_NAME_BYTES];
    char text[OPTIONS_SIZE_TEXT_BYTES];

    return options_refuse("%s wants %s %s", options_row_name(options_row_named(rows, name), given),
                          range, options_size_text(bytes, text));
}

static bool
options_is_both_levels(const struct conf_shm *conf)
{
    return conf->verbose && conf->quiet;
}

static bool
options_is_end_of_nothing(const struct conf_shm *conf)
{
    return conf->exit_on_eof && conf->console == CONF_CONSOLE_OFF;
}

static bool
options_is_lag_of_block(const struct conf_shm *conf)
{
    return conf->max_lag.amount > 0 && conf->slow == CONF_SLOW_BLOCK;
}

/* What cannot be together; the sentence has the names of both. */
static const struct options_pair {
    const char *names[2];
    bool (*is_given)(const struct conf_shm *conf);
    const char *sentence;
} options_pairs[] = {
    {{"verbose", "quiet"},
     options_is_both_levels,
     "%s and %s exclude each other: give one of them"},
    {{"exit-on-eof", "stdin"},
     options_is_end_of_nothing,
     "%s needs standard input, but %s is off: give one of them"},
    {{"max-lag", "slow"},
     options_is_lag_of_block,
     "%s means nothing while %s is block, which waits however long it takes"},
};

/* Of two sources the command line wins. */
static bool
options_check_pair(struct options_rows *rows, const struct options_pair *pair)
{
    struct options_row *one = options_row_named(rows, pair->names[0]);
    struct options_row *other = options_row_named(rows, pair->names[1]);
    struct options_row *weaker = one->source < other->source ? one : other;
    char given[2][CONF_NAME_BYTES];
    char why[CONF_WHY_BYTES];

    if (!pair->is_given(&rows->options->conf))
        return true;
    if (one->source == other->source)
        return options_refuse(pair->sentence, options_row_name(one, given[0]),
                              options_row_name(other, given[1]));
    weaker->source = CONF_DEFAULT;
    return conf_set(&rows->options->conf, weaker->server, weaker->value, false, why) == 0;
}

static bool
options_check_exclusive(struct options_rows *rows)
{
    for (size_t i = 0; i < sizeof(options_pairs) / sizeof(options_pairs[0]); i++) {
        if (!options_check_pair(rows, &options_pairs[i]))
            return false;
    }
    return true;
}

static uint32_t
options_cpus(void)
{
    cpu_set_t cpus;
    long count;

    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        count = CPU_COUNT(&cpus);
    else
        count = sysconf(_SC_NPROCESSORS_ONLN); /* more of them than a cpu_set_t holds */
    if (count < 1)
        return 1;
    return count > OPTIONS_WORKERS_MAX ? OPTIONS_WORKERS_MAX : (uint32_t)count;
}

static bool
options_check_workers(struct options_rows *rows)
{
    struct options *options = rows->options;
    const char *text = options->conf.workers;
    char name[CONF_NAME_BYTES];
    char *end;
    unsigned long count;

    if (strcmp(text, "auto") == 0) {
        options->workers = options_cpus();
        return true;
    }
    errno = 0;
    count = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno || *end || count < 1 ||
        count > OPTIONS_WORKERS_MAX)
        return options_refuse("%s wants a number from 1 to %d, or auto, not '%.80s'",
                              options_row_name(options_row_named(rows, "workers"), name),
                              OPTIONS_WORKERS_MAX, text);
    options->workers = (uint32_t)count;
    return true;
}

/* At least four of the longest messages: a default grows to that, a value that was given does
 * not. */
static bool
options_check_room(struct options_rows *rows, const char *name, uint64_t *bytes)
{
    uint64_t least = ARENA_RECORDS_MIN * rows->options->conf.max_message_bytes;
    const struct options_row *row = options_row_named(rows, name);
    char given[2][CONF_NAME_BYTES];
    char text[OPTIONS_SIZE_TEXT_BYTES];

    if (*bytes >= least)
        return true;
    if (row->source != CONF_DEFAULT)
        return options_refuse("%s wants at least %d x %s, which is %s",
                              options_row_name(row, given[0]), ARENA_RECORDS_MIN,
                              options_row_name(options_row_named(rows, "max-message"), given[1]),
                              options_size_text(least, text));
    *bytes = least;
    return true;
}

static bool
options_check_memory(struct options_rows *rows)
{
    struct options *options = rows->options;
    struct conf_shm *conf = &options->conf;
    uint64_t records;

    if (conf->max_message_bytes < 1 || conf->max_message_bytes > options_message_max_bytes)
        return options_refuse_size(rows, "max-message", "a size from 1 to",
                                   options_message_max_bytes);
    if (!options_check_room(rows, "ring", &conf->ring_bytes) ||
        !options_check_room(rows, "pool", &conf->pool_bytes))
        return false;
    if (conf->ring_bytes > RING_ARENA_MAX_BYTES)
        return options_refuse_size(rows, "ring", "at most", RING_ARENA_MAX_BYTES);
    if (conf->pool_bytes < OPTIONS_POOL_MIN_BYTES)
        return options_refuse_size(rows, "pool", "at least", OPTIONS_POOL_MIN_BYTES);
    records = ARENA_RECORDS_MIN * record_size(conf->max_message_bytes);
    options->arena_bytes = conf->ring_bytes > records ? conf->ring_bytes : records;
    assert(options->arena_bytes <= RING_ARENA_MAX_BYTES);
    return true;
}

static bool
options_check_listen(struct options_rows *rows)
{
    const char *at = rows->options->conf.listen;
    char address[CONF_TEXT_BYTES];
    char why[CONF_WHY_BYTES];

    for (;;) {
        size_t bytes = strcspn(at, "\n");
        memcpy(address, at, bytes);
        address[bytes] = '\0';
        if (listen_address_check(address, why) != 0)
            return options_refuse_named(rows, "listen", why);
        if (!at[bytes])
            return true;
        at += bytes + 1;
    }
}

static bool
options_check_origin(struct options_rows *rows)
{
    const char *at = rows->options->conf.origin;
    char name[CONF_NAME_BYTES];

    if (strcmp(at, "same") == 0 || strcmp(at, "any") == 0)
        return true;
    for (;;) {
        size_t bytes = strcspn(at, ",");
        if (!origin_is_listable((struct http1_slice){at, bytes}))
            return options_refuse("%s wants same, any, or a list of origins such as "
                                  "https://example.org,http://localhost:3000; '%.*s' is no origin",
                                  options_row_name(options_row_named(rows, "origin"), name),
                                  bytes < 80 ? (int)bytes : 80, at);
        if (!at[bytes])
            return true;
        at += bytes + 1;
    }
}

static bool
options_check_subprotocol(struct options_rows *rows)
{
    const char *text = rows->options->conf.subprotocol;
    const struct options_row *row = options_row_named(rows, "subprotocol");
    char name[CONF_NAME_BYTES];

    if (row->source == CONF_DEFAULT || subprotocol_wanted_valid(text))
        return true;
    return options_refuse("%s wants any, or names such as chat,graphql-ws without blanks "
                          "(RFC 9110 tokens of up to %d bytes), not '%.80s'",
                          options_row_name(row, name), SUBPROTOCOL_NAME_MAX_BYTES, text);
}

/* What takes less is merely busy. */
static bool
options_check_timeout(struct options_rows *rows, const char *name, uint64_t ms, unsigned min_ms)
{
    char given[CONF_NAME_BYTES];

    if (ms == 0 || ms >= min_ms)
        return true;
    return options_refuse("%s wants at least %u second, or 0 to turn it off",
                          options_row_name(options_row_named(rows, name), given), min_ms / 1000);
}

static bool
options_check_timeouts(struct options_rows *rows)
{
    const struct conf_shm *conf = &rows->options->conf;

    return options_check_timeout(rows, "start-timeout", conf->start_timeout_ms,
                                 SUPERVISE_START_MIN_MS) &&
           options_check_timeout(rows, "stuck-timeout", conf->stuck_timeout_ms,
                                 SUPERVISE_STUCK_MIN_MS);
}

bool
options_check(struct options_rows *rows)
{
    return options_check_exclusive(rows) && options_check_workers(rows) &&
           options_check_memory(rows) && options_check_timeouts(rows) &&
           options_check_listen(rows) && options_check_origin(rows) &&
           options_check_subprotocol(rows);
}
