/*
 * escape.h: makes text from outside harmless to show: client addresses, request targets, header values,
 * payloads, file names, crash reports.
 *
 * Role:     every process and tool, for all that it writes to a log or a terminal.
 * Owns:     nothing.
 * Errors:   none: what does not fit is cut off at a character, and "..." says so.
 * Context:  one thread of a process at a time.
 *
 * Each byte of these is written as \xNN:
 *
 *   control characters      C0, DEL, and C1 (U+0080 to U+009F): a terminal acts on them
 *   format characters       Unicode's category Cf and other characters without a width, among them
 *                           bidirectional controls, which make text look like other text
 *   line separators         U+2028, U+2029
 *   what is not UTF-8       a terminal with an 8-bit character set takes 0x80 to 0x9f for C1
 *
 * and so is all that is not ASCII unless the locale of the environment (LC_ALL, LC_CTYPE, LANG) is a UTF-8
 * one. Everything else is written as it is; ESCAPE_QUOTED puts a backslash before '"' and '\', so that
 * the text can stand between quotation marks.
 */
#ifndef CRIER_SHM_UTIL_ESCAPE_H
#define CRIER_SHM_UTIL_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

enum escape_style {
    ESCAPE_LINE,
    ESCAPE_QUOTED,
};

/* `out` becomes a string of less than `out_bytes`, which are at least 4. Returns its length. */
size_t escape_text(char *out, size_t out_bytes, const void *text, size_t bytes,
                   enum escape_style style);

/* The same for a terminal that shows UTF-8, or not. */
size_t escape_text_as(char *out, size_t out_bytes, const void *text, size_t bytes,
                      enum escape_style style, bool utf8);

/* Is the locale of the environment a UTF-8 one? Asked once. */
bool escape_locale_is_utf8(void);

#endif
