#include "shm/util/program.h"

#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shm/util/escape.h"

enum { PROGRAM_LINE_BYTES = 1024 };

static char program[PROGRAM_NAME_BYTES] = "crier";

void
program_open(char *const *argv, const char *fallback)
{
    const char *path = argv && argv[0] ? argv[0] : "";
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    snprintf(program, sizeof(program), "%s", *name ? name : fallback);
    for (char *at = program; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("._+-", *at))
            *at = '_';
    }
}

const char *
program_name(void)
{
    return program;
}

void
program_vcomplain(const char *format, va_list args)
{
    char line[PROGRAM_LINE_BYTES];
    char shown[PROGRAM_LINE_BYTES];

    vsnprintf(line, sizeof(line), format, args);
    escape_text(shown, sizeof(shown), line, strlen(line), ESCAPE_LINE);
    fprintf(stderr, "%s: %s\n", program, shown);
}

void
program_complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    program_vcomplain(format, args);
    va_end(args);
}

void
program_complain_option(char *const *argv, const struct option *longs, int value)
{
    while (longs->name && longs->val != optopt)
        longs++;
    if (optopt == 0) /* a long one that is not there, or short for several */
        program_complain("%s is not an option; --help lists them", argv[optind - 1]);
    else if (!longs->name)
        program_complain("-%c is not an option; --help lists them", optopt);
    else if (value == ':')
        program_complain("--%s wants an argument", longs->name);
    else
        program_complain("--%s takes no argument", longs->name);
}
