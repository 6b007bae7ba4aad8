/*
 * layout.h: everything that lies in the shared segment, and nothing else.
 *
 * Role:     the master creates the segment, workers map it read-write, tools read-only.
 * Rule:     a structure that ends in _shm lies in the segment. Fixed widths and offsets, never a
 *           pointer: every process maps the segment wherever its kernel likes.
 * Version:  LAYOUT_VERSION grows with every change here; a process refuses another version.
 *
 *   0                 struct segment_shm   what is where, the options, the phase, the tail
 *   members_off       struct member_shm    [member_count]      0 is the master, the rest workers
 *   slots_off         uint64_t             [1 << slot_bits]    the ring (ring.h)
 *   arenas_off        uint8_t              [member_count][arena_bytes]   records (arena.h)
 *   clients_off       struct client_shm    [client_capacity]   one per connection; pages appear
 *                                                              when first used
 */
#ifndef CRIER_SHM_LAYOUT_H
#define CRIER_SHM_LAYOUT_H

#include <stdint.h>

#include "shm/conf.h"
#include "shm/counter.h"
#include "shm/histogram.h"

enum { LAYOUT_VERSION = 7 };

#define LAYOUT_MAGIC "crier\n\x1a"

/* Two lines: the adjacent-line prefetcher of x86 pairs them. */
#define LAYOUT_LINE 128
#define LAYOUT_OWN_LINE __attribute__((aligned(LAYOUT_LINE)))

/* The life of the server. Only the master changes it, only forward; each change wakes all members. */
enum phase {
    PHASE_SERVE,   /* input is taken, clients are served */
    PHASE_QUIET,   /* no more input: each worker stops taking messages and says MEMBER_QUIET */
    PHASE_DELIVER, /* deliver up to last_seq, then close with close_code, wait for the answers */
    PHASE_ABORT,   /* out of time, or asked to stop at once: leave now */
};

/* RFC 6455 section 7.4; the codes that crier closes with, beside those of a broken protocol, which
 * worker/proto/ chooses. */
enum close_code {
    CLOSE_NORMAL = 1000,     /* end of input */
    CLOSE_GOING_AWAY = 1001, /* the server stops */
    CLOSE_ABNORMAL = 1006,   /* never sent: it went without a Close */
    CLOSE_INTERNAL = 1011,   /* the application failed */
    CLOSE_OVERLOAD = 1013,   /* memory is short, or the socket cannot be watched */
    CLOSE_TOO_SLOW = 4008,
};

enum member_state {
    MEMBER_EMPTY,    /* no process has this index */
    MEMBER_STARTING, /* the process was started and has not joined the ring yet */
    MEMBER_READY,    /* takes connections, publishes, reads */
    MEMBER_QUIET,    /* has stopped taking messages, after PHASE_QUIET */
};

enum { LAST_WORDS_BYTES = 252 };

/* The cursor of a member that holds nothing back. */
#define MEMBER_NO_CURSOR UINT64_MAX

/* A process that publishes, reads, or both. */
struct member_shm {
    /* Identity. The master writes life and capacity; the master and the owner both write pid; the owner
     * writes its state, heartbeat and client counts. */
    uint32_t pid;
    uint32_t state;            /* enum member_state */
    uint32_t life;             /* how many processes have had this place */
    uint32_t capacity;         /* connections that this worker's descriptor table can hold */
    uint64_t heartbeat;        /* turned by the owner's timer and by work that gets done */
    uint64_t clients_open;     /* clients past the handshake, now */
    uint64_t clients_deflate;  /* of these, those that can use a twin (record.h) */
    uint64_t clients_returned; /* records given back in this life (client_rec.h) */

    /* Reading: ring.h. */
    uint64_t cursor LAYOUT_OWN_LINE;
    uint32_t sleeping LAYOUT_OWN_LINE;

    /* Publishing: ring.h. */
    uint64_t need_seq LAYOUT_OWN_LINE; /* waits until every cursor has reached this; 0: does not */
    uint64_t pressure_seq;             /* cursors below hold up 3/4 of the room; 0: none does */
    uint64_t floor_seq;                /* records of mine below this may be overwritten */

    uint64_t counters[COUNTER_COUNT] LAYOUT_OWN_LINE;
    struct histogram_shm histograms[HISTOGRAM_COUNT];

    /* Dying: member.h. */
    uint32_t last_words_life LAYOUT_OWN_LINE; /* which life they are from; 0: none yet */
    char last_words[LAST_WORDS_BYTES];        /* what happened and where; ends with NUL */
};

enum client_state {
    CLIENT_FREE,   /* the master may use the record */
    CLIENT_PASSED, /* accepted; its descriptor is in the channel, or was lost with a worker */
    CLIENT_TAKEN,  /* a worker has the descriptor; the opening handshake is under way */
    CLIENT_OPEN,   /* due every broadcast from first_seq on */
    CLIENT_LEFT,   /* has been counted: was no client, or its disconnect handler is still to run */
    CLIENT_RETURNED, /* the worker has closed the descriptor and is done with the record */
};

/* A connection; client_rec.h says which process writes it when. */
struct client_shm {
    uint32_t version; /* seqlock: odd while the group of words below it is being changed */
    uint32_t generation;
    uint16_t life;  /* of its worker when the descriptor was passed, low bits */
    uint16_t port;  /* host order */
    uint8_t worker; /* member index */
    uint8_t state;  /* enum client_state */
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX */

    /* Of [first_seq, next_seq) these were not accepted whole by the kernel, all others were. */
    uint8_t cut;            /* 1: its begun frame, whose rest waits for it (worker/slow.h) */
    uint32_t not_addressed; /* its own, for all others */
    uint32_t skipped;       /* worker/slow.h */

    uint8_t addr[16];   /* IPv4 in the first four bytes; a unix peer's pid in the first four */
    uint64_t first_seq; /* the first broadcast it is due, and is not counted yet (conn_book) */
    uint64_t next_seq;
    uint64_t bytes_sent;
};

/* The layout. Written once, before any process attaches; each process uses the copy that it has
 * checked (segment.h), never these words again. */
struct geometry_shm {
    uint64_t total_bytes;
    uint32_t member_count;
    uint32_t slot_bits;
    uint64_t arena_bytes;
    uint64_t client_capacity;
    uint64_t members_off;
    uint64_t slots_off;
    uint64_t clients_off;
    uint64_t arenas_off;
};

struct segment_shm {
    char magic[8];
    uint32_t layout_version;
    uint32_t header_bytes;
    uint64_t epoch; /* random: names this life of the ring */
    struct geometry_shm geometry;
    uint64_t wall_offset_ns; /* CLOCK_REALTIME less CLOCK_MONOTONIC, as the master saw it last */

    /* Stopping. last_seq and close_code are written before the phase that needs them. */
    uint32_t phase LAYOUT_OWN_LINE; /* enum phase */
    uint32_t close_code;            /* enum close_code */
    uint64_t last_seq;              /* deliver the broadcasts below it, then close */

    uint64_t tail LAYOUT_OWN_LINE;     /* ring.h */
    uint32_t starving LAYOUT_OWN_LINE; /* wake.h: some member's need_seq may be set */

    struct conf_shm conf LAYOUT_OWN_LINE;
};

_Static_assert(sizeof(struct client_shm) == 64, "half a cache line per connection");
_Static_assert(sizeof(struct member_shm) % LAYOUT_LINE == 0, "members share no cache line");

#endif
