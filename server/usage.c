#include "server/usage.h"

#include <stdio.h>
#include <string.h>

#include "shm/util/program.h"

enum { USAGE_COLUMN = 30, USAGE_WIDTH = 80 };

/* Prints `text` in the right column, broken between words. `at` is where the cursor stands. */
static void
usage_print_wrapped(const char *text, int at)
{
    if (at > USAGE_COLUMN - 2) { /* two blanks at least */
        putchar('\n');
        at = 0;
    }
    printf("%*s", USAGE_COLUMN - at, "");
    at = USAGE_COLUMN;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (at > USAGE_COLUMN && at + 1 + word > USAGE_WIDTH) {
            printf("\n%*s", USAGE_COLUMN, "");
            at = USAGE_COLUMN;
        }
        at += printf("%s%.*s", at > USAGE_COLUMN ? " " : "", word, text);
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void
usage_print_row(const struct options_row *row)
{
    char text[512];
    int at;

    if (row->short_name)
        at = printf("  -%c, --%s", row->short_name, row->name);
    else
        at = printf("      --%s", row->name);
    if (row->arg)
        at += printf(" %s", row->arg);
    if (row->arg && row->value && *row->value)
        snprintf(text, sizeof(text), "%s (default: %s)", row->help, row->value);
    else
        snprintf(text, sizeof(text), "%s", row->help);
    usage_print_wrapped(text, at);
}

void
usage_print(const struct options_row *rows, size_t count, const char *app_name)
{
    bool app_titled = false;

    printf("Usage: %s [OPTION]...\n"
           "A WebSocket broadcast server: each line of standard input goes to all clients.\n\n"
           "Server:\n",
           program_name());
    for (size_t i = 0; i < count; i++) {
        if (rows[i].app && !app_titled) {
            printf("\nApplication%s%s:\n", app_name ? " " : "", app_name ? app_name : "");
            app_titled = true;
        }
        usage_print_row(&rows[i]);
    }
    printf("\n"
           "  -h, --help                  print this\n"
           "  -V, --version               print the version\n\n"
           "SIZE takes k, M or G (powers of 1024). SECS takes fractions. A stall is a time\n"
           "in which a process of the server does not run: it is stopped, frozen or blocked.\n"
           "Each option is also read from the environment: --max-message from\n"
           "CRIER_MAX_MESSAGE. The command line wins, also where two options exclude each\n"
           "other.\n\n"
           "Signals: TERM, INT and HUP deliver what is published and stop; QUIT, or a second\n"
           "TERM or INT, stops at once.\n"
           "Exit codes: 0 stopped by a signal or the end of input, 1 cannot start, or with\n"
           "-E a part of the input was not read, broadcast or delivered, 2 usage, 3 cannot\n"
           "listen, 4 no worker is ready, and none can be started, or workers repeatedly end\n"
           "before they are ready.\n");
}

void
usage_print_version(void)
{
    const char *name = program_name();

    if (strcmp(name, "crier") == 0)
        printf("crier %s\n", CRIER_VERSION);
    else
        printf("%s (crier %s)\n", name, CRIER_VERSION);
}
