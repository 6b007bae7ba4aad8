/*
 * manual.c: writes crier(1): copies docs/crier.1.in from standard input to standard output and fills in the
 * options. Part of the build, not installed.
 *
 * The rows come from where the server has them: shm/conf.def, and the standard application's table. That
 * application is linked with this file's crier_run, which is called with the table instead of the server's.
 *
 *     @options server         the options of shm/conf.def, or, with `application`, of the application;
 *     @about slow             more about one of them, up to the next line that begins with @
 *     @end                    ends them
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/conf.h"
#include "shm/util/program.h"
#include "worker/api/crier.h"

enum { MANUAL_LINE_BYTES = 1024, MANUAL_ABOUTS_MAX = 128, MANUAL_ABOUT_BYTES = 4096 };

struct manual_about {
    char name[CONF_NAME_BYTES];
    char text[MANUAL_ABOUT_BYTES];
    bool is_used;
};

struct manual {
    const struct crier_app *app;
    struct manual_about abouts[MANUAL_ABOUTS_MAX];
    size_t count;
};

static void __attribute__((noreturn)) manual_fail(const char *what, const char *name)
{
    program_complain("docs/crier.1.in: %s: %s", what, name);
    exit(EXIT_FAILURE);
}

/* --- mdoc(7) --- */

/* A word in running text: backslashes are roff's. */
static void
manual_put_word(const char *word, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (word[i] == '\\')
            fputs("\\e", stdout);
        else
            putchar(word[i]);
    }
}

/* Bytes of the option that `word` is, without dashes and what follows: "--ring," has 4. 0: it is none. */
static size_t
manual_option_bytes(const char *word)
{
    if (strncmp(word, "--", 2) != 0 || !islower((unsigned char)word[2]))
        return 0;
    return strspn(word + 2, "abcdefghijklmnopqrstuvwxyz-");
}

/* One sentence, from the table: a capital, a full stop, options as .Fl on lines of their own. A line ends
 * before its eightieth column. */
static void
manual_put_sentence(const char *text)
{
    size_t column = 0;
    bool is_first = true;

    while (*text) {
        size_t bytes = strcspn(text, " ");
        size_t option = manual_option_bytes(text);
        const char *end = text[bytes] || text[bytes - 1] == '.' ? "" : ".";

        if (option) {
            printf("%s.Fl -%.*s%s%.*s%s%s\n", column ? "\n" : "", (int)option, text + 2,
                   bytes > option + 2 ? " " : "", (int)(bytes - option - 2), text + 2 + option,
                   *end ? " " : "", end);
            column = 0;
        } else {
            if (column + bytes + 2 > 78) {
                putchar('\n');
                column = 0;
            }
            if (column)
                putchar(' ');
            else if (*text == '.' || *text == '\'')
                fputs("\\&", stdout);
            if (is_first)
                putchar(toupper((unsigned char)*text));
            manual_put_word(text + is_first, bytes - is_first);
            column += bytes + 1;
            if (!text[bytes])
                puts(end);
        }
        is_first = false;
        text += bytes;
        text += strspn(text, " ");
    }
}

/* "same|any|LIST": words as they are typed, and what stands for a value. */
static void
manual_put_argument(const char *text)
{
    const char *bar = "";

    while (*text) {
        size_t bytes = strcspn(text, "|");
        printf("%s %s %.*s", bar, islower((unsigned char)*text) ? "Cm" : "Ar", (int)bytes, text);
        bar = " |";
        text += bytes + (text[bytes] == '|');
    }
}

static void
manual_put_about(struct manual *manual, const char *name)
{
    for (size_t i = 0; i < manual->count; i++) {
        if (strcmp(manual->abouts[i].name, name) != 0)
            continue;
        fputs(manual->abouts[i].text, stdout);
        manual->abouts[i].is_used = true;
    }
}

static void
manual_put_option(struct manual *manual, const char *name, int short_name, const char *arg,
                  const char *value, const char *help)
{
    printf(".It ");
    if (short_name)
        printf("Fl %c , ", short_name);
    printf("Fl -%s", name);
    if (arg)
        manual_put_argument(arg);
    putchar('\n');
    manual_put_sentence(help);
    if (arg && value && *value)
        printf("The default is\n.Ql %s%s .\n", value,
               strchr(".,:;!?)", value[strlen(value) - 1]) ? "\\&" : "");
    manual_put_about(manual, name);
}

static void
manual_put_options(struct manual *manual, bool is_server)
{
    size_t count;
    const struct conf_row *rows = conf_rows(&count);

    for (size_t i = 0; is_server && i < count; i++)
        manual_put_option(manual, rows[i].name, rows[i].short_name, rows[i].arg, rows[i].value,
                          rows[i].help);
    for (size_t i = 0; !is_server && i < manual->app->option_count; i++) {
        const struct crier_option *option = &manual->app->options[i];
        manual_put_option(manual, option->name, 0, option->arg, option->value, option->help);
    }
}

/* --- the page --- */

static void
manual_keep(struct manual *manual, const char *line)
{
    struct manual_about *about = &manual->abouts[manual->count - 1];
    size_t used = strlen(about->text);
    size_t bytes = strlen(line);

    if (used + bytes >= sizeof(about->text))
        manual_fail("@about has too much text", about->name);
    memcpy(about->text + used, line, bytes + 1);
}

static void
manual_begin_about(struct manual *manual, const char *line)
{
    struct manual_about *about = &manual->abouts[manual->count];

    if (manual->count == MANUAL_ABOUTS_MAX || sscanf(line, "@about %63s", about->name) != 1)
        manual_fail("cannot take this line", line);
    about->text[0] = '\0';
    about->is_used = false;
    manual->count++;
}

static void
manual_end_options(struct manual *manual, bool is_server)
{
    manual_put_options(manual, is_server);
    for (size_t i = 0; i < manual->count; i++) {
        if (!manual->abouts[i].is_used)
            manual_fail("there is no such option, or it stands in the other list",
                        manual->abouts[i].name);
    }
    manual->count = 0;
}

/* What stands between @options and @end. */
static void
manual_read_options(struct manual *manual, bool is_server)
{
    char line[MANUAL_LINE_BYTES];

    while (fgets(line, sizeof(line), stdin)) {
        if (strncmp(line, "@end", 4) == 0) {
            manual_end_options(manual, is_server);
            return;
        }
        if (*line == '@')
            manual_begin_about(manual, line);
        else if (manual->count > 0)
            manual_keep(manual, line);
        else
            manual_fail("text in front of the first @about", line);
    }
    manual_fail("missing at the end", "@end");
}

int
crier_run(int argc, char **argv, const struct crier_app *app)
{
    static struct manual manual;
    char line[MANUAL_LINE_BYTES];

    (void)argc;
    program_open(argv, "manual");
    manual.app = app;
    while (fgets(line, sizeof(line), stdin)) {
        if (strncmp(line, "@options ", 9) == 0)
            manual_read_options(&manual, strncmp(line + 9, "server", 6) == 0);
        else if (*line == '@')
            manual_fail("cannot take this line", line);
        else
            fputs(line, stdout);
    }
    return fflush(stdout) == 0 && !ferror(stdin) ? EXIT_SUCCESS : EXIT_FAILURE;
}
