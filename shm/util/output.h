/*
 * output.h: keeps descriptors 0 to 2 for what they stand for; flushes standard output at the end of a program, and
 * reports an error.
 *
 * Role:     the server, and the tools.
 * Context:  main thread.
 */
#ifndef CRIER_SHM_UTIL_OUTPUT_H
#define CRIER_SHM_UTIL_OUTPUT_H

/* At the start of a program, before it opens anything. No descriptor below 3 may become a socket, or the segment:
 * the next line that is printed would be written into it. Opens /dev/null in the place of each that is closed, of 1
 * for reading only, so that printing on a standard output that was closed remains an error. -1, or the number
 * of one that cannot be filled, with errno. */
int output_fill_standard(void) __attribute__((warn_unused_result));

/* The same, and reports an error as output_end does. */
int output_begin(const char *program) __attribute__((warn_unused_result));

/* When everything has been printed. Flushes stdout. A negative errno if any output, now or earlier, could not be written; one sentence on
 * stderr, which starts with `program`, has reported it. */
int output_end(const char *program) __attribute__((warn_unused_result));

#endif
