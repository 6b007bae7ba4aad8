/*
 * bench_sender.h: when the clients of a thread send what.
 *
 * Role:     crier-bench.
 * Owns:     nothing: it works on its thread.
 * Errors:   none: a connection that breaks is told to its handlers.
 * Context:  the thread itself.
 *
 * With a rate the schedule is fixed before the run: message j of sender s among S is due at
 * start + (j * S + s) / rate, whether or not anything before it was received or even sent. What
 * could not be sent when it was due is sent as soon as it can be, and still says when it was due:
 * a latency that is measured from there includes the waiting (no coordinated omission).
 *
 * With a window a sender has so many messages on their way, and a message is due when it is sent.
 * An echo is back when its sender has it; a broadcast is when all connected clients have it, on the
 * average over them.
 */
#ifndef CRIER_TOOLS_BENCH_SENDER_H
#define CRIER_TOOLS_BENCH_SENDER_H

#include <stdint.h>

#include "tools/bench_thread.h"

/* Sends what may be sent now. Nanoseconds until it wants to be called again, or UINT64_MAX: when
 * something was received. */
uint64_t bench_sender_turn(struct bench_thread *thread);

/* The client has received something, or there is room again. */
void bench_sender_resume(struct bench_thread *thread, struct bench_client *client);

/* DRAIN: is there nothing left to send? */
bool bench_sender_idle(struct bench_thread *thread);

/* END: messages that were due but have not been sent. */
uint64_t bench_sender_unsent(const struct bench_thread *thread);

/* After shown was written: wakes the thread that waits for deliveries if there are enough now. */
void bench_sender_tell(struct bench_thread *thread);

#endif
