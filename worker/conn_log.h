/*
 * conn_log.h: what the log says of clients that have connected and disconnected.
 *
 * Role:     worker.
 * Errors:   none.
 * Context:  loop thread.
 *
 * Where events are logged, each client has a line of its own in a file, a pipe or the journal, with its
 * address: an operator has asked for that with --verbose. On a terminal there is at most one line per
 * second and worker (shm/log_summary.h), so that a line can be typed meanwhile.
 */
#ifndef CRIER_WORKER_CONN_LOG_H
#define CRIER_WORKER_CONN_LOG_H

struct conn;

void conn_log_connected(const struct conn *conn);

/* With this close code. */
void conn_log_disconnected(const struct conn *conn, unsigned code);

#endif
