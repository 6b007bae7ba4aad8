/*
 * program.h: the name by which the program was called, and sentences that start with it.
 *
 * Role:     every process of the server, and the tools.
 * Owns:     a copy of the name.
 * Errors:   none.
 * Context:  main thread; program_name afterwards in any thread.
 *
 * An application is a program of its own: `./shout --nonsense` answers as shout, and so do its log lines.
 */
#ifndef CRIER_SHM_UTIL_PROGRAM_H
#define CRIER_SHM_UTIL_PROGRAM_H

#include <stdarg.h>

enum { PROGRAM_NAME_BYTES = 32 };

struct option;

/* Takes the last part of argv[0], or `fallback` without one, at the start of the program. A byte that is no
 * letter, digit, '.', '_', '+' or '-' becomes '_', and a longer name is cut. */
void program_open(char *const *argv, const char *fallback);

/* "crier" before program_open. */
const char *program_name(void);

/* One line on stderr: the name, a colon, the sentence. It is escaped (escape.h). */
void program_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void program_vcomplain(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* Says what is wrong with the argument for which getopt_long(3) has just returned `value`, '?' or ':'. The caller
 * sets `opterr` to 0, because getopt's own lines are not escaped, and its short options begin with ':'. */
void program_complain_option(char *const *argv, const struct option *longs, int value);

#endif
