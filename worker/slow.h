/*
 * slow.h: clients that hold the ring back, and what becomes of them.
 *
 * Role:     worker.
 * Context:  loop thread, several times a second.
 *
 * A publisher whose room is used to three quarters names the sequence that would relieve it
 * (pressure_seq, ring.h). A client that is held below it is given --slow-grace to get past that
 * very sequence. So a flood goes at the pace of clients that keep moving, however far behind they
 * are, and who does not move a quarter of the ring in that time is given up: 4008 where its socket
 * still takes a whole Close at a frame boundary, else a reset, because after an orderly close the
 * kernel would keep what is unsent. Nobody else waits: a client that is not below the pressure
 * costs the others nothing.
 *
 * Only while room is wanted: when nothing was published since the last look and no publisher waits,
 * or when the server stops and nothing is to come, a slow client is in nobody's way and keeps its
 * time.
 */
#ifndef CRIER_WORKER_SLOW_H
#define CRIER_WORKER_SLOW_H

struct worker;

void slow_tick(struct worker *worker);

#endif
