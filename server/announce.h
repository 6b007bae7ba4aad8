/*
 * announce.h: what the log says of the server as a whole: at its start, while it stops, at its end.
 *
 * Role:     master.
 * Errors:   none.
 * Context:  loop thread.
 */
#ifndef CRIER_SERVER_ANNOUNCE_H
#define CRIER_SERVER_ANNOUNCE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/listen.h"
#include "server/options.h"
#include "server/roster.h"
#include "shm/segment.h"

/* The first worker is ready: version, process and addresses, and on a terminal how to go on from
 * there. */
void announce_start(const struct options *options, const struct listeners *listeners,
                    bool reads_terminal);

/* The input ends because of this signal. What is published is still delivered. */
void announce_stop(int signal);

/* The same at the end of standard input (--exit-on-eof), or because it cannot be read. */
void announce_input_end(bool broken);

/* Nothing more is delivered, because of this signal. */
void announce_abort(int signal);

/* Several times a second while the server stops: after a second, then when it has changed and at most once
 * a second, how many clients the server waits for. Broadcasts below `end_seq` are due to them. */
void announce_waiting(const struct segment *segment, const struct roster *roster, uint64_t end_seq);

/* All workers have ended: the totals, whether any client has missed a broadcast, and how many lines of
 * standard input were none, if any. */
void announce_end(const struct segment *segment, uint64_t skipped_lines);

#endif
