/*
 * output.h: fills closed standard descriptors at the start of a program; flushes standard output at its end,
 * and reports an error.
 *
 * Role:     the server, and the tools.
 * Context:  main thread.
 */
#ifndef CRIER_SHM_UTIL_OUTPUT_H
#define CRIER_SHM_UTIL_OUTPUT_H

/* Call at the start of a program, before it opens a descriptor. Opens /dev/null in the place of each closed
 * descriptor of 0 to 2: if one became a socket or the segment, the next printed line would be written
 * into it. 1 is opened for reading only, so that printing to a closed standard output stays an error.
 * Returns -1, or the first descriptor that cannot be opened, with errno. */
int output_fill_standard(void) __attribute__((warn_unused_result));

/* As output_fill_standard, but returns 0 or a negative errno, and reports an error as output_end does. */
int output_begin(void) __attribute__((warn_unused_result));

/* Call after the last output. Flushes stdout. A negative errno if any output, now or earlier, could not be
 * written; one sentence on stderr has reported it (program.h). */
int output_end(void) __attribute__((warn_unused_result));

#endif
