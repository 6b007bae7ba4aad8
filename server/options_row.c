/*
 * options_row.c: read options_row.h first.
 */
#include "server/options_row.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/util/program.h"
#include "worker/proto/utf8.h"

bool
options_refuse(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    program_vcomplain(format, args);
    va_end(args);
    return false;
}

void
options_rows_init(struct options_rows *rows, struct options *options, const struct crier_app *app)
{
    size_t server_count;
    const struct conf_row *server = conf_rows(&server_count);
    struct options_row *row;

    *rows = (struct options_rows){.options = options, .app = app};
    rows->count = server_count + app->option_count;
    rows->list = calloc(rows->count, sizeof(*rows->list));
    if (!rows->list)
        abort(); /* a few kilobytes, before anything runs */
    row = rows->list;
    for (size_t i = 0; i < server_count; i++, row++) {
        *row = (struct options_row){
            server[i].name, server[i].short_name, server[i].arg, server[i].value,
            server[i].help, &server[i],           NULL,          CONF_DEFAULT};
    }
    for (size_t i = 0; i < app->option_count; i++, row++) {
        const struct crier_option *option = &app->options[i];
        *row = (struct options_row){option->name, 0,    option->arg, option->value,
                                    option->help, NULL, option,      CONF_DEFAULT};
    }
}

void
options_rows_fini(struct options_rows *rows)
{
    free(rows->list);
    rows->list = NULL;
}

struct options_row *
options_row_named(struct options_rows *rows, const char *name)
{
    for (size_t i = 0; i < rows->count; i++) {
        if (strcmp(rows->list[i].name, name) == 0)
            return &rows->list[i];
    }
    assert(!"no row has that name");
    return NULL;
}

const char *
options_row_name(const struct options_row *row, char text[CONF_NAME_BYTES])
{
    return conf_given_as(row->source, row->name, text);
}

bool
options_row_refuse(const struct options_row *row, enum conf_source source, const char *why)
{
    char name[CONF_NAME_BYTES];

    return options_refuse("%s %s", conf_given_as(source, row->name, name), why);
}

struct options_row *
options_row_target(struct options_rows *rows, struct options_row *row)
{
    return row->app && row->app->negates ? options_row_named(rows, row->app->negates) : row;
}

/* NULL: `text` is accepted. */
static const char *
options_row_check_app(const struct crier_option *option, const char *text, char why[CONF_WHY_BYTES])
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
options_row_set_app(struct options_rows *rows, struct options_row *row, const char *text,
                    enum conf_source source)
{
    struct options_row *target = options_row_target(rows, row);
    char why[CONF_WHY_BYTES];

    if (options_row_check_app(row->app, text, why))
        return options_row_refuse(row, source, why);
    if (!row->app->arg && strcmp(text, "0") == 0)
        return true;
    target->source = source;
    if (target != row) /* empty is the application's NULL */
        text = "";
    if (conf_app_set(&rows->options->conf, target->name, text, source) == 0)
        return true;
    snprintf(why, sizeof(why), "is too long: the application's options have %d bytes together",
             CONF_APP_BYTES);
    return options_row_refuse(row, source, why);
}

bool
options_row_set(struct options_rows *rows, struct options_row *row, const char *text,
                enum conf_source source)
{
    char why[CONF_WHY_BYTES];
    bool again = row->source == source;

    if (row->app)
        return options_row_set_app(rows, row, text, source);
    row->source = source;
    if (conf_set(&rows->options->conf, row->server, text, again, why) != 0)
        return options_row_refuse(row, source, why);
    return true;
}

bool
options_rows_set_defaults(struct options_rows *rows)
{
    conf_init(&rows->options->conf);
    for (size_t i = 0; i < rows->count; i++) {
        struct options_row *row = &rows->list[i];
        if (row->app && row->value && !options_row_set_app(rows, row, row->value, CONF_DEFAULT))
            return false;
    }
    return true;
}
