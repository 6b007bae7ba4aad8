/*
 * crier.h: what an application is to crier.
 *
 * An application says what a message means; crier does everything else. It is a set of handlers and
 * the options that it wants on the command line:
 *
 *     #include <crier.h>
 *
 *     static int
 *     shout(struct crier_client *client, const struct crier_message *message)
 *     {
 *         (void)client;
 *         return crier_broadcast(message->type, message->data, message->bytes);
 *     }
 *
 *     static const struct crier_app app = {.name = "shout", .message = shout};
 *
 *     int
 *     main(int argc, char **argv)
 *     {
 *         return crier_run(argc, argv, &app);
 *     }
 *
 * Processes: crier_run() is the master; it starts workers, which execute the same program again and
 *            come back to crier_run(). What main does before crier_run() therefore happens in every
 *            process; things that belong to one (a thread, a connection to elsewhere) are made in
 *            the start handler, whose argument is the role.
 * Start:     a worker gets clients when its start handler has returned. A worker whose start handler
 *            has not returned within --start-timeout is killed and started again; one that is
 *            in its start handler when the server stops is killed. Clients are served as soon as one
 *            worker is ready; while none is, they wait in the kernel's listen queue. The start
 *            handler of the master runs first, without a limit, because nothing watches the master.
 * Context:   handlers run in a worker's loop thread, one at a time, and must not block, because every
 *            client of that worker would wait. If a handler does not return within --stuck-timeout,
 *            its worker is killed. The start handler has --start-timeout instead; the stop handler
 *            has what is left of --drain.
 *            Functions are called from handlers only.
 * Signals:   crier_run() sets the action of every signal and unblocks all of them, in both roles; the
 *            manual, crier(1), lists them. A handler that main or a library has installed before
 *            stays, except for TERM, INT, HUP and QUIT, and for CONT in a worker. crier does not
 *            change what the start handler sets, but needs TERM, INT, HUP and QUIT in the master, and
 *            CONT in a worker.
 *            One of TERM, INT, HUP and QUIT during the master's start handler ends the process with
 *            status 0, without the stop handler; so do TERM, INT and QUIT during the master's stop
 *            handler. After crier_run() has returned in the master, these signals are ignored.
 *            A program that a handler executes inherits ignored signals, for example PIPE, and TERM
 *            in a worker: reset them first, as with posix_spawnattr_setsigdefault(3).
 * Owns:      data passed in either direction is borrowed for the duration of the call.
 * Limits:    the application may use up to 12 descriptors in each process; each one more takes the
 *            place of a client. A worker starts with 0 to 2 and crier's own, and inherits none of the
 *            others that the master has open. LIMITS in crier(1) has the arithmetic.
 * Errors:    0 or a negative errno. -EAGAIN from crier_broadcast means that the ring has no room
 *            now: a handler passes it on by returning it, and is called again, with the same
 *            arguments, when there is room; meanwhile nothing more is read from that client. So
 *            broadcast first, then do what must not happen twice. Any other negative result of a
 *            handler closes that client with 1011.
 */
#ifndef CRIER_H
#define CRIER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#define CRIER_PRINTF(sentence, rest) __attribute__((format(printf, sentence, rest)))
#else
#define CRIER_PRINTF(sentence, rest)
#endif

/* The opcodes of RFC 6455 section 5.2. Text is valid UTF-8: checked for what clients send, the
 * application's promise for what it sends. */
enum crier_type { CRIER_TEXT = 1, CRIER_BINARY = 2 };

enum crier_role { CRIER_MASTER, CRIER_WORKER };

/* A connected client; valid from its connect handler to the return of 0 from its disconnect
 * handler. */
struct crier_client;

struct crier_message {
    enum crier_type type;
    const void *data; /* may be NULL when there are no bytes */
    size_t bytes;
};

/* One option of the application, `--name ARG`. Strings are static. A value that is not UTF-8 is refused. */
struct crier_option {
    const char *name;    /* "welcome" is --welcome and CRIER_WELCOME */
    const char *arg;     /* "FMT"; "a|b|c" accepts these words only; NULL: takes no argument */
    const char *value;   /* default, NULL for none */
    const char *help;    /* one line for --help */
    const char *negates; /* of an option without argument: the option that it unsets, or NULL */
};

struct crier_app {
    const char *name;
    const struct crier_option *options;
    size_t option_count;
    /* 0; -EINVAL: the options are not accepted, for which it has printed the reason (see
     * crier_option_refuse): the server exits with 2, as for its own options; any other result: with 1. */
    int (*start)(enum crier_role role);
    int (*connect)(struct crier_client *client); /* before its handshake is answered; its first
                                                           broadcast is the client's first */
    int (*message)(struct crier_client *client, const struct crier_message *message);
    int (*disconnect)(struct crier_client *client, unsigned code); /* RFC 6455 section 7.4; 1006: it
                                                                      left without a Close frame */
    void (*stop)(enum crier_role role);
};

/* Parses the command line, serves until told to stop, returns the exit code. `app` is borrowed. */
int crier_run(int argc, char **argv, const struct crier_app *app);

/* What was set for one of the application's options, its default, or NULL. */
const char *crier_option_get(const char *name);

/* For the start handler: prints one sentence on stderr that begins with how the option was given, for
 * example "shout: CRIER_WELCOME takes at most 1024 bytes". Returns -EINVAL. */
int crier_option_refuse(const char *name, const char *format, ...) CRIER_PRINTF(2, 3);

/* To every client on every worker, in one order for all. -EAGAIN; -EMSGSIZE: larger than a quarter of
 * --ring. A message received from a client always fits. */
int crier_broadcast(enum crier_type type, const void *data, size_t bytes);

/* The same, but not to `client`. */
int crier_broadcast_others(struct crier_client *client, enum crier_type type, const void *data,
                           size_t bytes);

/* 1 if crier_broadcast and crier_broadcast_others accept so many bytes, 0 if they return -EMSGSIZE. */
int crier_broadcast_fits(size_t bytes);

/* To this client alone, in the order of the calls. Never -EAGAIN; -EMSGSIZE: larger than a quarter of
 * --pool (a message received from a client always fits); -EPIPE: the client is being closed, or has
 * left; -ENOMEM: the pool is used up, the client is closed with 1013 or reset. */
int crier_send(struct crier_client *client, enum crier_type type, const void *data, size_t bytes);

/* Closes with a code (1000, 1001, 1008, 1011, 3000 to 4999) and a reason of at most 123 bytes or
 * NULL. What was sent to the client or broadcast before goes out first. */
int crier_close(struct crier_client *client, unsigned code, const char *reason);

/* 127.0.0.1:50189, [::1]:50189 or unix:PID. Borrowed until the next call. */
const char *crier_client_address(const struct crier_client *client);

/* Clients connected now, on all workers, the one whose connect handler runs included. */
uint64_t crier_client_count(void);

#ifdef __cplusplus
}
#endif

#endif
