/*
 * last_words.h: what a dying worker leaves in its member record: what happened, and where. The
 * master puts it into the line that reports the death, crier-ring shows it afterwards.
 *
 * Role:     worker; without last_words_open, as in the master, the words go to stderr only.
 * Owns:     the handlers of the signals of DISPOSITION_REPORT (disposition.def), on a stack of
 *           their own; what was installed before them runs after them. Also __assert_fail, so that
 *           the application's assertions speak, too.
 * Errors:   none: words are best effort, dying is not put off for them.
 * Context:  loop thread; a report may be written in any thread and in a signal handler. The first
 *           report of a process is kept.
 *
 * Places are NAME+0xOFFSET, the program's or a library's: `addr2line -fie NAME 0xOFFSET` names the
 * line. The way there follows behind "<", innermost first, without the frames of libc.
 */
#ifndef CRIER_WORKER_LAST_WORDS_H
#define CRIER_WORKER_LAST_WORDS_H

#include "shm/layout.h"

/* `me` is borrowed for the life of the process. */
void last_words_open(struct member_shm *me);

/* Which of the application's handlers runs from here on; a literal, or NULL for none. */
void last_words_during(const char *handler);

/* Says this, in the words and on stderr, and aborts. */
void last_words_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
