/*
 * options.c: one table of rows, three sources: defaults, command line, environment. The command line is
 * read before the environment, which then sets only what is left.
 */
#define _GNU_SOURCE
#include "server/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/listen_address.h"
#include "server/supervise.h"
#include "server/usage.h"
#include "shm/ring.h"
#include "shm/util/program.h"
#include "worker/proto/subprotocol.h"
#include "worker/proto/utf8.h"

enum {
    OPTIONS_HELP = 'h',
    OPTIONS_VERSION = 'V',
    OPTIONS_FIRST_ROW = 256,                   /* what getopt_long returns for row 0 */
    OPTIONS_WORKERS_MAX = RING_OWNERS_MAX - 1, /* the master is a member, too */
    OPTIONS_POOL_MIN_BYTES = 64 * 1024,        /* sixteen pages: a buffer has one at least */
};

/* Four of them and their heads fit the largest arena. */
static const uint64_t options_message_max_bytes = 255ULL << 20;

struct options_parser {
    struct options *options;
    const struct crier_app *app;
    struct options_row *rows;
    size_t count;
    struct option *longs;
    char *shorts;
};

static bool options_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the sentence; returns false. */
static bool
options_refuse(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    program_vcomplain(format, args);
    va_end(args);
    return false;
}

const char *
options_size_text(uint64_t bytes, char text[OPTIONS_SIZE_TEXT_BYTES])
{
    static const char units[] = {'k', 'M', 'G'};
    const char *unit = "";
    char suffix[2] = "";

    for (size_t i = 0; i < sizeof(units) && bytes && bytes % 1024 == 0; i++) {
        bytes /= 1024;
        suffix[0] = units[i];
        unit = suffix;
    }
    snprintf(text, OPTIONS_SIZE_TEXT_BYTES, "%" PRIu64 "%s", bytes, unit);
    return text;
}

/* --- rows --- */

static void
options_collect_rows(struct options_parser *parser)
{
    size_t server_count;
    const struct conf_row *server = conf_rows(&server_count);
    struct options_row *row;

    parser->count = server_count + parser->app->option_count;
    parser->rows = calloc(parser->count, sizeof(*parser->rows));
    parser->longs = calloc(parser->count + 3, sizeof(*parser->longs));
    parser->shorts = calloc(parser->count + 3, 2);
    if (!parser->rows || !parser->longs || !parser->shorts)
        abort(); /* a few kilobytes, before anything runs */
    row = parser->rows;
    for (size_t i = 0; i < server_count; i++, row++) {
        *row = (struct options_row){
            server[i].name, server[i].short_name, server[i].arg, server[i].value,
            server[i].help, &server[i],           NULL,          CONF_DEFAULT};
    }
    for (size_t i = 0; i < parser->app->option_count; i++, row++) {
        const struct crier_option *option = &parser->app->options[i];
        *row = (struct options_row){option->name, 0,    option->arg, option->value,
                                    option->help, NULL, option,      CONF_DEFAULT};
    }
}

static struct options_row *
options_row_named(struct options_parser *parser, const char *name)
{
    for (size_t i = 0; i < parser->count; i++) {
        if (strcmp(parser->rows[i].name, name) == 0)
            return &parser->rows[i];
    }
    assert(!"a name in this file that is not in conf.def");
    return NULL;
}

/* What getopt_long returned, or left in optopt. NULL: none of the rows. */
static struct options_row *
options_row_of(struct options_parser *parser, int value)
{
    if (value >= OPTIONS_FIRST_ROW)
        return &parser->rows[value - OPTIONS_FIRST_ROW];
    for (size_t i = 0; value && i < parser->count; i++) {
        if (parser->rows[i].short_name == value)
            return &parser->rows[i];
    }
    return NULL;
}

/* As it was given: "--ring", "CRIER_RING". Returns `text`. */
static const char *
options_name(const struct options_row *row, char text[CONF_NAME_BYTES])
{
    return conf_given_as(row->source, row->name, text);
}

/* `row` is named as `source` gives it. Returns false. */
static bool
options_refuse_value(const struct options_row *row, enum conf_source source, const char *why)
{
    char name[CONF_NAME_BYTES];

    return options_refuse("%s %s", conf_given_as(source, row->name, name), why);
}

/* The row whose value `row` sets: --no-welcome sets that of --welcome. */
static struct options_row *
options_target(struct options_parser *parser, struct options_row *row)
{
    return row->app && row->app->negates ? options_row_named(parser, row->app->negates) : row;
}

/* NULL: `text` is accepted. */
static const char *
options_check_app(const struct crier_option *option, const char *text, char why[CONF_WHY_BYTES])
{
    if (!option->arg && strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        snprintf(why, CONF_WHY_BYTES, "wants 1 or 0, not '%.80s'", text);
    else if (option->arg && strchr(option->arg, '|') && conf_choice(option->arg, text) < 0)
        snprintf(why, CONF_WHY_BYTES, "wants one of these words: %s, not '%.80s'", option->arg,
                 text);
    else if (!utf8_valid(text, strlen(text))) /* it may be meant for a text message */
        snprintf(why, CONF_WHY_BYTES, "wants UTF-8");
    else
        return NULL;
    return why;
}

static bool
options_set_app(struct options_parser *parser, struct options_row *row, const char *text,
                enum conf_source source)
{
    struct options_row *target = options_target(parser, row);
    char why[CONF_WHY_BYTES];

    if (options_check_app(row->app, text, why))
        return options_refuse_value(row, source, why);
    if (!row->app->arg && strcmp(text, "0") == 0)
        return true;
    target->source = source;
    if (target != row) /* empty is the application's NULL */
        text = "";
    if (conf_app_set(&parser->options->conf, target->name, text, source) == 0)
        return true;
    snprintf(why, sizeof(why), "is too long: the application's options have %d bytes together",
             CONF_APP_BYTES);
    return options_refuse_value(row, source, why);
}

static bool
options_set(struct options_parser *parser, struct options_row *row, const char *text,
            enum conf_source source)
{
    char why[CONF_WHY_BYTES];
    bool again = row->source == source;

    if (row->app)
        return options_set_app(parser, row, text, source);
    row->source = source;
    if (conf_set(&parser->options->conf, row->server, text, again, why) != 0)
        return options_refuse_value(row, source, why);
    return true;
}

/* --- sources --- */

static bool
options_set_defaults(struct options_parser *parser)
{
    conf_init(&parser->options->conf);
    for (size_t i = 0; i < parser->count; i++) {
        struct options_row *row = &parser->rows[i];
        if (row->app && row->value && !options_set_app(parser, row, row->value, CONF_DEFAULT))
            return false;
    }
    return true;
}

static const char options_separators[] = ", \t\n";

/* Does `text` begin with letters and an equals sign? */
static bool
options_is_parameter(const char *text)
{
    size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyz");

    return letters > 0 && text[letters] == '=';
}

/* Bytes of the value that `text` begins with: unix:PATH,mode=660 is one. */
static size_t
options_value_bytes(const char *text)
{
    size_t bytes = strcspn(text, options_separators);

    while (text[bytes] == ',' && options_is_parameter(text + bytes + 1))
        bytes += 1 + strcspn(text + bytes + 1, options_separators);
    return bytes;
}

/* The values of a list stand in one variable, between commas or blanks. */
static bool
options_set_list(struct options_parser *parser, struct options_row *row, const char *text)
{
    char value[CONF_TEXT_BYTES];

    for (text += strspn(text, options_separators); *text;
         text += strspn(text, options_separators)) {
        size_t bytes = options_value_bytes(text);
        if (bytes >= sizeof(value))
            return options_refuse_value(row, CONF_ENVIRONMENT, "wants a shorter text");
        memcpy(value, text, bytes);
        value[bytes] = '\0';
        if (!options_set(parser, row, value, CONF_ENVIRONMENT))
            return false;
        text += bytes;
    }
    return true;
}

static bool
options_read_environment(struct options_parser *parser)
{
    char variable[CONF_NAME_BYTES];

    for (size_t i = 0; i < parser->count; i++) {
        struct options_row *row = &parser->rows[i];
        const char *text = getenv(conf_given_as(CONF_ENVIRONMENT, row->name, variable));

        if (!text || !*text || options_target(parser, row)->source == CONF_COMMAND_LINE)
            continue;
        if (row->server && row->server->kind == CONF_LIST) {
            if (!options_set_list(parser, row, text))
                return false;
        } else if (!options_set(parser, row, text, CONF_ENVIRONMENT)) {
            return false;
        }
    }
    return true;
}

static bool
options_is_known(const struct options_parser *parser, const char *variable, size_t bytes)
{
    char name[CONF_NAME_BYTES];

    for (size_t i = 0; i < parser->count; i++) {
        conf_given_as(CONF_ENVIRONMENT, parser->rows[i].name, name);
        if (strlen(name) == bytes && memcmp(name, variable, bytes) == 0)
            return true;
    }
    return false;
}

/* Names variables that are probably meant for the server and set nothing. */
static void
options_find_ignored(struct options_parser *parser)
{
    static const char prefix[] = "CRIER_";
    char *ignored = parser->options->ignored;
    size_t room = OPTIONS_IGNORED_BYTES - sizeof(", ...");
    size_t used = 0;

    for (char **at = environ; *at; at++) {
        size_t bytes = strcspn(*at, "=");
        const char *comma = used ? ", " : "";

        if (strncmp(*at, prefix, strlen(prefix)) != 0 || !(*at)[bytes] || !(*at)[bytes + 1] ||
            options_is_known(parser, *at, bytes))
            continue;
        if (bytes + strlen(comma) > room - used) {
            snprintf(ignored + used, OPTIONS_IGNORED_BYTES - used, "%s...", comma);
            return;
        }
        used += (size_t)sprintf(ignored + used, "%s%.*s", comma, (int)bytes, *at);
    }
}

static void
options_fill_getopt(struct options_parser *parser)
{
    struct option *entry = parser->longs;
    char *at = parser->shorts;

    *at++ = '+'; /* do not reorder argv: workers get it as it is */
    *at++ = ':';
    *at++ = OPTIONS_HELP;
    *at++ = OPTIONS_VERSION;
    for (size_t i = 0; i < parser->count; i++) {
        const struct options_row *row = &parser->rows[i];
        *entry++ = (struct option){row->name, row->arg ? required_argument : no_argument, NULL,
                                   OPTIONS_FIRST_ROW + (int)i};
        if (row->short_name) {
            *at++ = (char)row->short_name;
            if (row->arg)
                *at++ = ':';
        }
    }
    *entry++ = (struct option){"help", no_argument, NULL, OPTIONS_HELP};
    *entry = (struct option){"version", no_argument, NULL, OPTIONS_VERSION};
}

static bool
options_refuse_argument(struct options_parser *parser, char **argv, bool missing)
{
    const struct options_row *row = options_row_of(parser, optopt);

    if (row && missing)
        return options_refuse("--%s wants an argument: %s", row->name, row->arg);
    if (row)
        return options_refuse("--%s takes no argument", row->name);
    if (optopt)
        return options_refuse("-%c is not an option; --help lists them", optopt);
    return options_refuse("%s is not an option; --help lists them", argv[optind - 1]);
}

static enum options_outcome
options_read_command_line(struct options_parser *parser, int argc, char **argv)
{
    int value;

    options_fill_getopt(parser);
    opterr = 0;
    optind = 0; /* the program may have used getopt before */
    while ((value = getopt_long(argc, argv, parser->shorts, parser->longs, NULL)) != -1) {
        struct options_row *row;

        if (value == OPTIONS_HELP) {
            usage_print(parser->rows, parser->count, parser->app->name);
            return OPTIONS_ANSWERED;
        }
        if (value == OPTIONS_VERSION) {
            usage_print_version();
            return OPTIONS_ANSWERED;
        }
        if (value == '?' || value == ':') {
            options_refuse_argument(parser, argv, value == ':');
            return OPTIONS_REFUSED;
        }
        row = options_row_of(parser, value);
        if (!options_set(parser, row, row->arg ? optarg : "1", CONF_COMMAND_LINE))
            return OPTIONS_REFUSED;
    }
    if (optind < argc) {
        options_refuse("'%.80s' is not an option, and nothing else is accepted; --help lists them",
                       argv[optind]);
        return OPTIONS_REFUSED;
    }
    return OPTIONS_SERVE;
}

/* --- what the values mean together --- */

static bool
options_refuse_named(struct options_parser *parser, const char *name, const char *why)
{
    const struct options_row *row = options_row_named(parser, name);

    return options_refuse_value(row, row->source, why);
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
options_check_pair(struct options_parser *parser, const struct options_pair *pair)
{
    struct options_row *one = options_row_named(parser, pair->names[0]);
    struct options_row *other = options_row_named(parser, pair->names[1]);
    struct options_row *weaker = one->source < other->source ? one : other;
    char given[2][CONF_NAME_BYTES];
    char why[CONF_WHY_BYTES];

    if (!pair->is_given(&parser->options->conf))
        return true;
    if (one->source == other->source)
        return options_refuse(pair->sentence, options_name(one, given[0]),
                              options_name(other, given[1]));
    weaker->source = CONF_DEFAULT;
    return conf_set(&parser->options->conf, weaker->server, weaker->value, false, why) == 0;
}

static bool
options_check_exclusive(struct options_parser *parser)
{
    for (size_t i = 0; i < sizeof(options_pairs) / sizeof(options_pairs[0]); i++) {
        if (!options_check_pair(parser, &options_pairs[i]))
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
options_check_workers(struct options_parser *parser)
{
    struct options *options = parser->options;
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
                              options_name(options_row_named(parser, "workers"), name),
                              OPTIONS_WORKERS_MAX, text);
    options->workers = (uint32_t)count;
    return true;
}

/* At least four of the longest messages: a default grows to that, a value that was given does not. */
static bool
options_check_room(struct options_parser *parser, const char *name, uint64_t *bytes)
{
    uint64_t least = ARENA_RECORDS_MIN * parser->options->conf.max_message_bytes;
    const struct options_row *row = options_row_named(parser, name);
    char given[2][CONF_NAME_BYTES];
    char text[OPTIONS_SIZE_TEXT_BYTES];

    if (*bytes >= least)
        return true;
    if (row->source != CONF_DEFAULT)
        return options_refuse("%s wants at least %d x %s, which is %s", options_name(row, given[0]),
                              ARENA_RECORDS_MIN,
                              options_name(options_row_named(parser, "max-message"), given[1]),
                              options_size_text(least, text));
    *bytes = least;
    return true;
}

static bool
options_check_memory(struct options_parser *parser)
{
    struct options *options = parser->options;
    struct conf_shm *conf = &options->conf;
    uint64_t records;

    if (conf->max_message_bytes < 1 || conf->max_message_bytes > options_message_max_bytes)
        return options_refuse_named(parser, "max-message", "wants a size from 1 to 255M");
    if (!options_check_room(parser, "ring", &conf->ring_bytes) ||
        !options_check_room(parser, "pool", &conf->pool_bytes))
        return false;
    if (conf->ring_bytes > RING_ARENA_MAX_BYTES)
        return options_refuse_named(parser, "ring", "wants at most 1G");
    if (conf->pool_bytes < OPTIONS_POOL_MIN_BYTES)
        return options_refuse_named(parser, "pool", "wants at least 64k");
    records = ARENA_RECORDS_MIN * record_size(conf->max_message_bytes);
    options->arena_bytes = conf->ring_bytes > records ? conf->ring_bytes : records;
    assert(options->arena_bytes <= RING_ARENA_MAX_BYTES);
    return true;
}

static bool
options_check_listen(struct options_parser *parser)
{
    const char *at = parser->options->conf.listen;
    char address[CONF_TEXT_BYTES];
    char why[CONF_WHY_BYTES];

    for (;;) {
        size_t bytes = strcspn(at, "\n");
        memcpy(address, at, bytes);
        address[bytes] = '\0';
        if (listen_address_check(address, why) != 0)
            return options_refuse_named(parser, "listen", why);
        if (!at[bytes])
            return true;
        at += bytes + 1;
    }
}

/* scheme://host[:port], what a browser sends (RFC 6454 section 6.2). */
static bool
options_is_origin(const char *text, size_t bytes)
{
    static const char host[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    const char *end = text + bytes;
    const char *at = text;
    size_t word;

    while (at < end && (isalnum((unsigned char)*at) || strchr("+-.", *at)))
        at++;
    if (at == text || !isalpha((unsigned char)*text) || end - at < 4 || memcmp(at, "://", 3) != 0)
        return false;
    at += 3;
    if (*at == '[') {
        word = strspn(at + 1, "0123456789abcdefABCDEF:.");
        at += word + 2;
        if (word == 0 || at > end || at[-1] != ']')
            return false;
    } else {
        word = strspn(at, host);
        at += word;
        if (word == 0)
            return false;
    }
    if (at < end && *at == ':') {
        word = strspn(++at, "0123456789");
        if (word < 1 || word > 5)
            return false;
        at += word;
    }
    if (at < end && *at == '/') /* the page's own path, which an origin does not have */
        at++;
    return at == end;
}

static bool
options_check_origin(struct options_parser *parser)
{
    const char *at = parser->options->conf.origin;
    char name[CONF_NAME_BYTES];

    if (strcmp(at, "same") == 0 || strcmp(at, "any") == 0)
        return true;
    for (;;) {
        size_t bytes = strcspn(at, ",");
        if (!options_is_origin(at, bytes))
            return options_refuse("%s wants same, any or a list such as "
                                  "https://example.org,http://localhost:3000, not '%.*s'",
                                  options_name(options_row_named(parser, "origin"), name),
                                  bytes < 80 ? (int)bytes : 80, at);
        if (!at[bytes])
            return true;
        at += bytes + 1;
    }
}

static bool
options_check_subprotocol(struct options_parser *parser)
{
    const char *text = parser->options->conf.subprotocol;
    const struct options_row *row = options_row_named(parser, "subprotocol");
    char name[CONF_NAME_BYTES];

    if (row->source == CONF_DEFAULT || subprotocol_wanted_valid(text))
        return true;
    return options_refuse("%s wants any, or names such as chat,graphql-ws without blanks "
                          "(RFC 9110 tokens of up to %d bytes), not '%.80s'",
                          options_name(row, name), SUBPROTOCOL_NAME_MAX_BYTES, text);
}

/* What takes less is merely busy. */
static bool
options_check_timeout(struct options_parser *parser, const char *name, uint64_t ms, unsigned min_ms)
{
    char given[CONF_NAME_BYTES];

    if (ms == 0 || ms >= min_ms)
        return true;
    return options_refuse("%s wants at least %u second, or 0 to turn it off",
                          options_name(options_row_named(parser, name), given), min_ms / 1000);
}

static bool
options_check_timeouts(struct options_parser *parser)
{
    const struct conf_shm *conf = &parser->options->conf;

    return options_check_timeout(parser, "start-timeout", conf->start_timeout_ms,
                                 SUPERVISE_START_MIN_MS) &&
           options_check_timeout(parser, "stuck-timeout", conf->stuck_timeout_ms,
                                 SUPERVISE_STUCK_MIN_MS);
}

static bool
options_check(struct options_parser *parser)
{
    return options_check_exclusive(parser) && options_check_workers(parser) &&
           options_check_memory(parser) && options_check_timeouts(parser) &&
           options_check_listen(parser) && options_check_origin(parser) &&
           options_check_subprotocol(parser);
}

enum options_outcome
options_parse(struct options *options, int argc, char **argv, const struct crier_app *app)
{
    struct options_parser parser = {.options = options, .app = app};
    enum options_outcome outcome = OPTIONS_REFUSED;

    options_collect_rows(&parser);
    options->ignored[0] = '\0';
    if (options_set_defaults(&parser))
        outcome = options_read_command_line(&parser, argc, argv);
    if (outcome == OPTIONS_SERVE && !(options_read_environment(&parser) && options_check(&parser)))
        outcome = OPTIONS_REFUSED;
    options_find_ignored(&parser);
    free(parser.rows);
    free(parser.longs);
    free(parser.shorts);
    return outcome;
}
