/*
 * options.c: the command line is read before the environment, which then sets only what is left.
 */
#define _GNU_SOURCE
#include "server/options.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/options_check.h"
#include "server/options_row.h"
#include "server/usage.h"

enum {
    OPTIONS_HELP = 'h',
    OPTIONS_VERSION = 'V',
    OPTIONS_FIRST_ROW = 256, /* what getopt_long returns for row 0 */
};

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

/* --- the environment --- */

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
options_set_list(struct options_rows *rows, struct options_row *row, const char *text)
{
    char value[CONF_TEXT_BYTES];

    if (!text[strspn(text, options_separators)])
        return options_row_refuse(row, CONF_ENVIRONMENT, "has only separators and no value");
    for (text += strspn(text, options_separators); *text;
         text += strspn(text, options_separators)) {
        size_t bytes = options_value_bytes(text);
        if (bytes >= sizeof(value))
            return options_row_refuse(row, CONF_ENVIRONMENT, "wants a shorter text");
        memcpy(value, text, bytes);
        value[bytes] = '\0';
        if (!options_row_set(rows, row, value, CONF_ENVIRONMENT))
            return false;
        text += bytes;
    }
    return true;
}

static bool
options_read_environment(struct options_rows *rows)
{
    char variable[CONF_NAME_BYTES];

    for (size_t i = 0; i < rows->count; i++) {
        struct options_row *row = &rows->list[i];
        const char *text = getenv(conf_given_as(CONF_ENVIRONMENT, row->name, variable));

        if (!text || !*text || options_row_target(rows, row)->source == CONF_COMMAND_LINE)
            continue;
        if (row->server && row->server->kind == CONF_LIST) {
            if (!options_set_list(rows, row, text))
                return false;
        } else if (!options_row_set(rows, row, text, CONF_ENVIRONMENT)) {
            return false;
        }
    }
    return true;
}

static bool
options_is_known(const struct options_rows *rows, const char *variable, size_t bytes)
{
    char name[CONF_NAME_BYTES];

    for (size_t i = 0; i < rows->count; i++) {
        conf_given_as(CONF_ENVIRONMENT, rows->list[i].name, name);
        if (strlen(name) == bytes && memcmp(name, variable, bytes) == 0)
            return true;
    }
    return false;
}

/* Names variables that are probably meant for the server and set nothing. */
static void
options_find_ignored(struct options_rows *rows)
{
    static const char prefix[] = "CRIER_";
    char *ignored = rows->options->ignored;
    size_t room = OPTIONS_IGNORED_BYTES - sizeof(", ...");
    size_t used = 0;

    for (char **at = environ; *at; at++) {
        size_t bytes = strcspn(*at, "=");
        const char *comma = used ? ", " : "";

        if (strncmp(*at, prefix, strlen(prefix)) != 0 || !(*at)[bytes] || !(*at)[bytes + 1] ||
            options_is_known(rows, *at, bytes))
            continue;
        if (bytes + strlen(comma) > room - used) {
            snprintf(ignored + used, OPTIONS_IGNORED_BYTES - used, "%s...", comma);
            return;
        }
        used += (size_t)sprintf(ignored + used, "%s%.*s", comma, (int)bytes, *at);
    }
}

/* --- the command line --- */

/* What getopt_long returned, or left in optopt. NULL: none of the rows. */
static struct options_row *
options_row_of(struct options_rows *rows, int value)
{
    if (value >= OPTIONS_FIRST_ROW)
        return &rows->list[value - OPTIONS_FIRST_ROW];
    for (size_t i = 0; value && i < rows->count; i++) {
        if (rows->list[i].short_name == value)
            return &rows->list[i];
    }
    return NULL;
}

static void
options_fill_getopt(const struct options_rows *rows, struct option *longs, char *shorts)
{
    struct option *entry = longs;
    char *at = shorts;

    *at++ = '+'; /* do not reorder argv: workers get it as it is */
    *at++ = ':';
    *at++ = OPTIONS_HELP;
    *at++ = OPTIONS_VERSION;
    for (size_t i = 0; i < rows->count; i++) {
        const struct options_row *row = &rows->list[i];
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

/* No name, or the start of several. */
static bool
options_refuse_name(const struct option *longs, const char *given)
{
    size_t bytes = strcspn(given, "=");
    const char *first = NULL;

    for (; longs->name && bytes > 2; longs++) {
        if (strncmp(longs->name, given + 2, bytes - 2) != 0)
            continue;
        if (first)
            return options_refuse("%.*s may be --%s or --%s; give the whole name", (int)bytes,
                                  given, first, longs->name);
        first = longs->name;
    }
    return options_refuse("%s is not an option; --help lists them", given);
}

static bool
options_refuse_argument(struct options_rows *rows, char **argv, const struct option *longs,
                        bool missing)
{
    const struct options_row *row = options_row_of(rows, optopt);

    if (row && missing)
        return options_refuse("--%s wants an argument: %s", row->name, row->arg);
    if (row)
        return options_refuse("--%s takes no argument", row->name);
    if (optopt == OPTIONS_HELP || optopt == OPTIONS_VERSION)
        return options_refuse("--%s takes no argument",
                              optopt == OPTIONS_HELP ? "help" : "version");
    if (optopt)
        return options_refuse("-%c is not an option; --help lists them", optopt);
    return options_refuse_name(longs, argv[optind - 1]);
}

static enum options_outcome
options_read_arguments(struct options_rows *rows, int argc, char **argv, const struct option *longs,
                       const char *shorts)
{
    int value;

    opterr = 0;
    optind = 0; /* the program may have used getopt before */
    while ((value = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        struct options_row *row;

        if (value == OPTIONS_HELP) {
            usage_print(rows->list, rows->count, rows->app->name);
            return OPTIONS_ANSWERED;
        }
        if (value == OPTIONS_VERSION) {
            usage_print_version();
            return OPTIONS_ANSWERED;
        }
        if (value == '?' || value == ':') {
            options_refuse_argument(rows, argv, longs, value == ':');
            return OPTIONS_REFUSED;
        }
        row = options_row_of(rows, value);
        if (!options_row_set(rows, row, row->arg ? optarg : "1", CONF_COMMAND_LINE))
            return OPTIONS_REFUSED;
    }
    if (optind < argc) {
        options_refuse("'%.80s' is not an option, and nothing else is accepted; --help lists them",
                       argv[optind]);
        return OPTIONS_REFUSED;
    }
    return OPTIONS_SERVE;
}

static enum options_outcome
options_read_command_line(struct options_rows *rows, int argc, char **argv)
{
    struct option *longs = calloc(rows->count + 3, sizeof(*longs)); /* --help, --version, the end */
    char *shorts = calloc(rows->count + 3, 2);                      /* "+:hV", the end */
    enum options_outcome outcome;

    if (!longs || !shorts)
        abort(); /* a few kilobytes, before anything runs */
    options_fill_getopt(rows, longs, shorts);
    outcome = options_read_arguments(rows, argc, argv, longs, shorts);
    free(longs);
    free(shorts);
    return outcome;
}

enum options_outcome
options_parse(struct options *options, int argc, char **argv, const struct crier_app *app)
{
    struct options_rows rows;
    enum options_outcome outcome = OPTIONS_REFUSED;

    options_rows_init(&rows, options, app);
    options->ignored[0] = '\0';
    if (options_rows_set_defaults(&rows))
        outcome = options_read_command_line(&rows, argc, argv);
    if (outcome == OPTIONS_SERVE && !(options_read_environment(&rows) && options_check(&rows)))
        outcome = OPTIONS_REFUSED;
    options_find_ignored(&rows);
    options_rows_fini(&rows);
    return outcome;
}
