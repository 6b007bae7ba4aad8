/*
 * wide.h: unmasking and the UTF-8 check for each instruction set, and which of them runs here.
 *
 * Behind mask.h and utf8.h, which all other code calls. They turn the key to the phase, finish the
 * character that the piece before left unfinished, and do what is short themselves; so every piece
 * here begins with the key's first byte and between two characters, and is of at least
 * WORDS_FEW_BYTES (words.h).
 *
 * Role:     pure functions; mask.c and utf8.c. Tests and measurements take one from the table.
 * Errors:   UTF8_REJECT (utf8.h).
 * Context:  any thread. wide_use: before there is a second one.
 */
#ifndef CRIER_PROTO_WIDE_H
#define CRIER_PROTO_WIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Any alignment; nothing outside of the `bytes` is read or written. `to` is `from`, or a place that
 * does not overlap. `key`: four bytes as they lie in memory. */
struct wide {
    const char *name;
    bool (*runs_here)(void);
    void (*copy)(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key);
    /* Returns the state behind what is at `to` afterwards. All of it is copied, so that there would
     * be little to gain from an early end at what is not UTF-8. */
    uint32_t (*copy_text)(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key);
    uint32_t (*check)(const uint8_t *text, size_t bytes);
};

/* Each one that was compiled in, the fastest first, NULL behind the last, which runs anywhere. */
extern const struct wide *const wide_table[];

/* The first of the table that runs here: chosen before main, because the CPU stays the same. */
extern const struct wide *wide_now;

/* Takes another one that runs here. */
void wide_use(const struct wide *wide);

#endif
