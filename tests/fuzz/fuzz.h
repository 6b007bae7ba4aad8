/*
 * fuzz.h: what the fuzz targets share.
 *
 * Role:     each fuzz_X.c defines LLVMFuzzerTestOneInput, which libFuzzer calls with inputs that it
 *           makes up, and replay.c with the files of corpus/X.
 * Errors:   a property that does not hold aborts with a sentence: that input is a finding.
 * Context:  one thread.
 */
#ifndef CRIER_TESTS_FUZZ_FUZZ_H
#define CRIER_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/require.h"

/* libFuzzer's names. Borrows `data`; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A target may have it: called once, before anything is opened. Returns 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What is left of an input whose first bytes say what to do with the rest. */
struct fuzz_input {
    const uint8_t *at;
    size_t bytes;
};

/* The next byte, 0 when there is none. */
static inline uint8_t
fuzz_byte(struct fuzz_input *in)
{
    if (in->bytes == 0)
        return 0;
    in->bytes--;
    return *in->at++;
}

enum { FUZZ_CUTS_MAX = 7 };

/* Where to cut a stream: pieces of these lengths, over and over. Up to 127 a byte is a length less
 * one, above it counts steps of 64. */
struct fuzz_cuts {
    size_t count;
    size_t next;
    uint8_t bytes[FUZZ_CUTS_MAX];
};

static inline struct fuzz_cuts
fuzz_cuts_read(struct fuzz_input *in)
{
    struct fuzz_cuts cuts = {.count = fuzz_byte(in) % (FUZZ_CUTS_MAX + 1)};

    for (size_t i = 0; i < cuts.count; i++)
        cuts.bytes[i] = fuzz_byte(in);
    return cuts;
}

/* The length of the next piece of what has `left` bytes; never 0 while there are any. */
static inline size_t
fuzz_cuts_next(struct fuzz_cuts *cuts, size_t left)
{
    size_t bytes;

    if (cuts->count == 0)
        return left;
    bytes = cuts->bytes[cuts->next++ % cuts->count];
    bytes = bytes < 128 ? bytes + 1 : (bytes - 127) * 64;
    return bytes < left ? bytes : left;
}

/* A copy of exactly that size, so that the address sanitizer sees each access beside it. */
static inline void *
fuzz_copy(const void *data, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);

    REQUIRE(copy);
    if (bytes)
        memcpy(copy, data, bytes);
    return copy;
}

#endif
