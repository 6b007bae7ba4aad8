/*
 * conn_rig.h: a whole worker inside a test, its clients at the other ends of socket pairs.
 *
 * Role:     the test is the master: it makes the segment, places the descriptors where a worker
 *           finds them (shm/chan.h), and passes connections through the channel. Everything behind
 *           that is the worker's own: intake, event loop, connections, ring.
 * Owns:     the one worker of this process, which lives as long as the process does.
 * Errors:   whatever does not hold aborts with a sentence.
 * Context:  one thread. Nothing sleeps, and there are no ticks: the handshake and closing have no
 *           timeouts. Pings fall due when the test lets time pass.
 */
#ifndef CRIER_TESTS_LIB_CONN_RIG_H
#define CRIER_TESTS_LIB_CONN_RIG_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/require.h"
#include "worker/state.h"

enum { CONN_RIG_CLIENTS = 320 };

/* An opening handshake, to which more headers and an empty line are to be added. */
#define CONN_RIG_REQUEST                                                                           \
    "GET / HTTP/1.1\r\nHost: rig\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

/* Starts the worker, once; `conf` is copied into the segment. */
void conn_rig_open(const struct crier_app *app, const struct conf_shm *conf);

/* A new connection: the client's end, non-blocking. `send_buffer_bytes` is how much the kernel
 * takes from the worker before it blocks (0: the system's default; the kernel has a minimum). */
int conn_rig_connect(int send_buffer_bytes);

/* The same with its opening handshake done, in which `more` headers were asked for ("" or whole
 * lines), and the answer, which is 101, read. */
int conn_rig_open_client(int send_buffer_bytes, const char *more);

/* The worker's side of the client that was opened last. */
struct conn *conn_rig_last_conn(void);

/* What the master does with a connection: passes its descriptor, which is taken, with its record. */
void conn_rig_pass(uint32_t client, int fd);

/* Another process publishes a broadcast, for which there is room. Returns its sequence. */
uint64_t conn_rig_publish(const void *data, size_t bytes);

/* Turns the loop once, without sleeping; until nothing happens any more. */
void conn_rig_turn(void);
void conn_rig_settle(void);

/* So much time passes, in which the loop turns as often as a running worker's does. By the worker's
 * own clock (run_clock.h), not by CLOCK_MONOTONIC: the loop does not turn meanwhile. */
void conn_rig_pass_time(int64_t ms);
void conn_rig_skip_time(int64_t ms);

/* The client closes its end; and the worker has dealt with that. */
void conn_rig_close(int client_fd);
void conn_rig_hang_up(int client_fd);

/* Behind the last client: everything was given back, and the books add up. */
void conn_rig_require_idle(void);

/* The worker, and the options that it goes by, which may change between two turns. */
struct worker *conn_rig_worker(void);
struct conf_shm *conn_rig_conf(void);

/* One of the worker's counters. */
uint64_t conn_rig_counter(enum counter counter);

#endif
