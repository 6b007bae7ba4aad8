/*
 * options.h: the command line and the environment become the server's options.
 *
 * Role:     master, once, before anything else exists.
 * Owns:     struct options is the caller's; its conf is copied into the segment.
 * Errors:   one sentence on stderr names the refused option as it was given, by its flag or its
 *           variable, and what is accepted.
 * Context:  main thread.
 *
 * The rows are those of shm/conf.def and of the application. The command line wins over the
 * environment (CRIER_MAX_MESSAGE for --max-message; an empty variable counts as none), and that
 * over the default. Where two options exclude each other, the one from the weaker source gets its
 * default. A variable whose option is on the command line is not read, so a bad value in it is no
 * error.
 */
#ifndef CRIER_SERVER_OPTIONS_H
#define CRIER_SERVER_OPTIONS_H

#include "shm/conf.h"
#include "worker/api/crier.h"

enum { OPTIONS_SIZE_TEXT_BYTES = 24, OPTIONS_IGNORED_BYTES = 512 };

enum options_outcome {
    OPTIONS_SERVE,    /* go on */
    OPTIONS_ANSWERED, /* --help or --version was printed */
    OPTIONS_REFUSED,  /* a sentence was printed */
};

struct options {
    struct conf_shm conf;
    uint32_t workers;
    uint64_t arena_bytes; /* of each publisher: --ring, and four of the longest records fit */
    char ignored
        [OPTIONS_IGNORED_BYTES]; /* CRIER_ variables that name no option: "CRIER_A, CRIER_B" */
};

/* Fills `options`. Leaves `argv` as it is: workers get the same. */
enum options_outcome options_parse(struct options *options, int argc, char **argv,
                                   const struct crier_app *app) __attribute__((warn_unused_result));

/* 16M, 256k, 1000: as it would be typed. Returns `text`. */
const char *options_size_text(uint64_t bytes, char text[OPTIONS_SIZE_TEXT_BYTES]);

#endif
