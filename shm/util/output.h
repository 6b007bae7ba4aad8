/*
 * output.h: the end of what a program prints on standard output.
 *
 * Role:     --help and --version of the server, and the tools.
 * Context:  main thread, once, when everything has been printed.
 */
#ifndef CRIER_SHM_UTIL_OUTPUT_H
#define CRIER_SHM_UTIL_OUTPUT_H

/* Writes what stdio still holds. A negative errno when anything that was printed could not be written: then
 * one sentence on stderr has said so, in the name of `program`. */
int output_end(const char *program) __attribute__((warn_unused_result));

#endif
