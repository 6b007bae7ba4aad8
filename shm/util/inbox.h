/*
 * inbox.h: a queue of commands from any thread of a process to one consumer: an event loop or a thread.
 *
 * Role:     every process. Private to it: nothing here lies in shared memory, and a process that dies
 *           takes its inbox with it.
 * Owns:     the consumer's eventfd, and each entry from inbox_put on until inbox_take returns it. The
 *           producer allocates an entry with malloc, the consumer gives it back with inbox_free.
 * Lifetime: no producer is inside a call when inbox_fini runs. An inbox whose producer may be blocked for
 *           ever is never finished; it ends with the process.
 * Errors:   -EAGAIN without room, -EPIPE after inbox_close, -EMSGSIZE for an entry larger than the bound,
 *           -EDEADLK never: a consumer that waits for room in its own inbox waits for ever.
 * Context:  inbox_put, inbox_wait_put, inbox_close: any thread. inbox_take, inbox_free, inbox_clear,
 *           inbox_await: the consumer.
 *
 * 1. Guarantees
 *    - Every entry that was put is taken once. The entries of one producer are taken in its order.
 *    - The entries that were put and not freed hold at most `limit_bytes`, by the bytes that producers
 *      state; an entry that the consumer still works on counts.
 *    - After inbox_close no entry gets in. inbox_is_over tells when the last one before it is freed.
 *    - No wake-up is lost, neither the consumer's nor that of a producer that waits for room.
 *
 * 2. Progress
 *    inbox_put is wait-free: one fetch-and-add, one exchange on the tail of liburcu's wfcqueue, no loop.
 *    inbox_take never waits for a producer: where one was preempted between the exchange and the link
 *    of its entry, the queue looks empty up to there, and that producer wakes the consumer when it
 *    has linked. Only inbox_wait_put, inbox_await and inbox_flush block.
 *
 * 3. The word
 *    `word` is bytes x 2 + CLOSED, changed by fetch-and-add (CLOSED: by fetch-and-or), so that the bound
 *    and the shutdown are one decision: an addition that finds CLOSED, or too many bytes, is taken
 *    back. Until then it may make another producer's addition fail that would have fitted: -EAGAIN
 *    means "not now", and taking an addition back wakes waiting producers as freeing does. A producer
 *    therefore looks at the word first and adds only to what has room: two producers that wait would
 *    otherwise keep each other awake with additions that they take back.
 *
 * 4. Order: two store/load (Dekker) pairs, with a full fence between store and load on either side
 *
 *   label  waits                                   wakes                                     label
 *   Q1     sleeping = 1 | fence | dequeue fails?   link entry | fence | sleeping?            Q2
 *          -> poll the eventfd                     -> exchange 0, was 1: write the eventfd
 *   Q3     set WAITING in `room` | fence           bytes given back | fence | WAITING?       Q4
 *          | no room? -> futex(room, as set)       -> room + 1 if unchanged: wake all
 *
 *    Q1, Q2: a consumer whose dequeue fails after the fence stored `sleeping` before the producer of the
 *    entry that is missing loads it. The producer decides by `sleeping` alone: "write when the queue
 *    was empty" loses a wake-up when the producer that found it empty is preempted before it links,
 *    and one behind it is not the first.
 *    Q3, Q4: `room` is turn x 2 + WAITING. Adding one clears WAITING and changes the turn, so a producer
 *    that has not reached the futex yet finds another value there and retries; a wake-up that was meant
 *    for an earlier waiter cannot be taken for it. inbox_close wakes in the same way, and wakes the consumer,
 *    which may wait for the end; so does an addition that is taken back from a closed, empty inbox.
 *    A spurious wake-up costs one attempt. tests/torture/inbox_torture.c fails without the fence of Q1, of
 *    Q2, or with the rule above.
 *
 *    The queue itself orders the contents of entries (wfcqueue.h); tsan.h tells the thread sanitizer.
 *
 * 5. Not promised
 *    Order between producers. Fairness among producers that wait for room. Use in a child after fork.
 */
#ifndef CRIER_SHM_UTIL_INBOX_H
#define CRIER_SHM_UTIL_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <urcu/wfcqueue.h>

/* The first member of what a producer puts. */
struct inbox_entry {
    struct cds_wfcq_node node;
    uint64_t bytes; /* what it counts for; set by inbox_put */
};

struct inbox {
    uint64_t limit_bytes;
    int fd; /* the consumer's eventfd */

    struct __cds_wfcq_head head; /* the consumer's */
    bool over;                   /* inbox_is_over has found it so; the consumer's */
    uint8_t line[64];            /* producers write below, on other cache lines */
    struct cds_wfcq_tail tail;
    uint64_t word;     /* bytes x 2 + CLOSED */
    uint32_t sleeping; /* the consumer has found nothing and waits for its eventfd */
    uint32_t room;     /* turn x 2 + WAITING: a futex */
};

/* -errno of eventfd(2). */
int inbox_init(struct inbox *inbox, uint64_t limit_bytes) __attribute__((warn_unused_result));

/* Frees what was never taken. */
void inbox_fini(struct inbox *inbox);

/* --- producers --- */

/* Puts `entry`, which counts for `bytes`, and wakes the consumer if it sleeps. 0: the inbox has taken the
 * entry. Otherwise it is still the caller's: -EAGAIN, -EPIPE, -EMSGSIZE. */
int inbox_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes)
    __attribute__((warn_unused_result));

/* The same, and waits for room: -EAGAIN only after `timeout_ms` (-1: no limit). */
int inbox_wait_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes, int timeout_ms)
    __attribute__((warn_unused_result));

/* Waits until everything that was put is freed; false after `timeout_ms`. */
bool inbox_flush(struct inbox *inbox, int timeout_ms);

/* No entry gets in from here on; producers that wait for room get -EPIPE. May be called twice. */
void inbox_close(struct inbox *inbox);

/* What is put and not freed. */
uint64_t inbox_bytes(const struct inbox *inbox);

/* --- the consumer --- */

/* Readable when inbox_take has something again after it returned NULL. */
static inline int
inbox_fd(const struct inbox *inbox)
{
    return inbox->fd;
}

/* The next entry, to be given back with inbox_free. NULL: none now, and the eventfd becomes readable when
 * there is one (Q1). An event handler calls inbox_clear first, then this until it returns NULL, or
 * comes back by itself. */
struct inbox_entry *inbox_take(struct inbox *inbox);

/* Frees an entry that was taken and makes its room known to producers that wait. */
void inbox_free(struct inbox *inbox, struct inbox_entry *entry);

/* Takes the wake-ups that have come out of the eventfd. */
void inbox_clear(struct inbox *inbox);

/* For a consumer that is a thread: the next entry; waits for it up to `timeout_ms` (-1: no limit). NULL: time
 * is over, or the inbox is closed and everything in it is freed. */
struct inbox_entry *inbox_await(struct inbox *inbox, int timeout_ms);

/* The inbox is closed, and everything that had been put is freed. */
bool inbox_is_over(struct inbox *inbox);

#endif
