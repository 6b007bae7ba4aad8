/*
 * bench_options.h: what crier-bench was asked to do.
 *
 * Role:     crier-bench.
 * Owns:     the parts of the URL; everything else is borrowed from argv.
 * Errors:   an exit code, after one sentence on stderr.
 * Context:  main thread, before the others start; read-only afterwards.
 */
#ifndef CRIER_TOOLS_BENCH_OPTIONS_H
#define CRIER_TOOLS_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    BENCH_EXIT_FAILED = 1,
    BENCH_EXIT_USAGE = 2,
    BENCH_EXIT_FAULTS = 3, /* the server lost, doubled, disordered or damaged messages */
    BENCH_THREADS_MAX = 64,
};

enum bench_mode {
    BENCH_BROADCAST, /* publishers send, every client receives all */
    BENCH_ECHO,      /* every client sends, and receives its own */
    BENCH_IDLE,      /* clients connect and stay */
    BENCH_STORM,     /* clients connect and leave, again and again */
};

struct bench_options {
    enum bench_mode mode;
    bool publish_stdin; /* through the standard input of `command` */
    bool binary;
    bool mqtt;
    bool progress;
    bool json;
    uint32_t clients;
    uint32_t publishers;
    uint32_t window; /* messages on their way of each sender; 0: `rate` instead */
    uint32_t threads;
    double rate;         /* messages per second of all senders; 0: `window` instead */
    double connect_rate; /* connections per second; 0: as fast as they are taken */
    uint64_t duration_ns;
    uint64_t drain_ns;
    size_t size_bytes;
    pid_t pid; /* of a server that runs; 0: not named */
    const char *plot;
    const char *subprotocol; /* NULL: none is asked for */
    char **command;          /* what starts the server, ends with NULL; NULL: it runs */
    char *host;
    char *port;
    char *path;
    struct sockaddr_storage address;
    socklen_t address_bytes;
};

const char *bench_mode_name(enum bench_mode mode);

/* -1: go on; otherwise the exit code, and what there was to say has been said. */
int bench_options_parse(struct bench_options *options, int argc, char **argv);
void bench_options_fini(struct bench_options *options);

/* One sentence on stderr; returns `code`, the exit code. */
int bench_options_complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
