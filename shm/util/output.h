/*
 * output.h: flushes standard output at the end of a program, and reports an error.
 *
 * Role:     --help and --version of the server, and the tools.
 * Context:  main thread, once, when everything has been printed.
 */
#ifndef CRIER_SHM_UTIL_OUTPUT_H
#define CRIER_SHM_UTIL_OUTPUT_H

/* Flushes stdout. A negative errno if any output, now or earlier, could not be written; one sentence on
 * stderr, which starts with `program`, has reported it. */
int output_end(const char *program) __attribute__((warn_unused_result));

#endif
