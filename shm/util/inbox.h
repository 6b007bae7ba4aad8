/*
 * inbox.h: a queue of commands from any thread of a process to one consumer: an event loop or a thread.
 *
 * Role:     every process. An inbox lies in the private memory of its process and ends with it.
 * Owns:     the consumer's eventfd, and each entry from a successful inbox_put until inbox_take returns
 *           it. The producer allocates an entry with malloc; the consumer frees it with inbox_free.
 * Lifetime: no producer is inside a call when inbox_fini runs. If a producer may be blocked for ever,
 *           inbox_fini is not called, and the inbox ends with the process.
 * Errors:   -EAGAIN: no room; -EPIPE: closed; -EMSGSIZE: the entry is larger than the bound. A consumer
 *           that calls inbox_wait_put or inbox_flush on its own inbox may deadlock; this is not detected.
 * Context:  inbox_put, inbox_wait_put, inbox_flush, inbox_close, inbox_bytes: any thread. inbox_take,
 *           inbox_free, inbox_clear, inbox_await, inbox_is_over: the consumer.
 *
 * 1. Guarantees
 *    - Every entry that was put is taken exactly once. The entries of one producer are taken in the order
 *      in which it put them.
 *    - The sizes that producers state for entries put and not yet freed add up to at most `limit_bytes`.
 *      An entry that the consumer has taken counts until it is freed.
 *    - After inbox_close inbox_put fails. inbox_is_over is true once the last entry put before is freed.
 *    - No wake-up is lost, neither the consumer's nor that of a producer that waits for room.
 *
 * 2. Progress
 *    inbox_put is wait-free: one fetch-and-add, one exchange on the tail of liburcu's wfcqueue, no loop.
 *    inbox_take never waits for a producer. While a producer is preempted between the exchange and the
 *    link of its entry, the queue seems to end before that entry; the producer wakes the consumer after
 *    it has linked the entry. Only inbox_wait_put, inbox_await and inbox_flush block.
 *
 * 3. The word
 *    `word` is bytes x 2 + CLOSED. Producers change it by fetch-and-add, inbox_close by fetch-and-or, so
 *    that one atomic operation checks both the bound and CLOSED. An addition that finds CLOSED, or too
 *    many bytes, is undone. Until it is undone it may make another producer's addition fail although
 *    that would have fitted: -EAGAIN means "not now", and undoing an addition wakes waiting producers
 *    as freeing does. A producer therefore loads the word first and adds only if there is room:
 *    otherwise two waiting producers would keep waking each other with additions that they undo.
 *
 * 4. Order: two store/load (Dekker) pairs, with a full fence between store and load on either side
 *
 *   label  waits                                   wakes                                     label
 *   Q1     sleeping = 1 | fence | dequeue fails?   link entry | fence | sleeping?            Q2
 *          -> poll the eventfd                     -> exchange 0, was 1: write the eventfd
 *   Q3     set WAITING in `room` | fence           bytes given back | fence | WAITING?       Q4
 *          | no room? -> futex(room, as set)       -> room + 1 if unchanged: wake all
 *
 *    Q1, Q2: if the consumer's dequeue fails after the fence, every producer that links an entry later
 *    sees `sleeping` = 1. The producer decides by `sleeping` alone. The rule "write when the queue was
 *    empty" would lose a wake-up: the producer that found it empty is preempted before it links, and
 *    the producer after it does not find it empty.
 *    Q3, Q4: `room` is turn x 2 + WAITING. Adding one clears WAITING and changes the turn, so that
 *    futex(2) returns at once to a producer that sleeps too late, and that producer retries. inbox_close
 *    wakes producers in the same way. It also wakes the consumer, which may wait for the end of the
 *    inbox; so does an addition whose undoing leaves a closed inbox empty.
 *    A spurious wake-up costs one retry. tests/torture/inbox_torture.c fails without the fence of Q1,
 *    without that of Q2, and with the rule "write when the queue was empty".
 *
 *    wfcqueue.h orders the contents of entries; tsan.h makes that order known to the thread sanitizer.
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

/* The first member of the struct that a producer puts. */
struct inbox_entry {
    struct cds_wfcq_node node;
    uint64_t bytes; /* the size that the producer stated; set by inbox_put */
};

struct inbox {
    uint64_t limit_bytes;
    int fd; /* the consumer's eventfd */

    struct __cds_wfcq_head head; /* the consumer's */
    bool over;                   /* inbox_is_over has returned true; the consumer's */
    uint8_t line[64]; /* keeps the members below, which producers write, on other lines */
    struct cds_wfcq_tail tail;
    uint64_t word;     /* bytes x 2 + CLOSED */
    uint32_t sleeping; /* the consumer has found nothing and waits for its eventfd */
    uint32_t room;     /* turn x 2 + WAITING: a futex */
};

/* -errno of eventfd(2). */
int inbox_init(struct inbox *inbox, uint64_t limit_bytes) __attribute__((warn_unused_result));

/* Frees the entries that were never taken, and closes the eventfd. */
void inbox_fini(struct inbox *inbox);

/* --- producers --- */

/* Puts `entry`, which counts for `bytes`, and wakes the consumer if it sleeps. 0: the inbox owns the
 * entry. -EAGAIN, -EPIPE, -EMSGSIZE: the caller still owns it. */
int inbox_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes)
    __attribute__((warn_unused_result));

/* As inbox_put, but waits for room: -EAGAIN only after `timeout_ms` (-1: no limit). */
int inbox_wait_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes, int timeout_ms)
    __attribute__((warn_unused_result));

/* Waits until every entry is freed; false if that takes longer than `timeout_ms` (-1: no limit). */
bool inbox_flush(struct inbox *inbox, int timeout_ms);

/* From here on inbox_put fails; producers that wait for room get -EPIPE. May be called twice. */
void inbox_close(struct inbox *inbox);

/* The bytes of the entries that were put and not yet freed. */
uint64_t inbox_bytes(const struct inbox *inbox);

/* --- the consumer --- */

/* Becomes readable when there is an entry again after inbox_take has returned NULL. */
static inline int
inbox_fd(const struct inbox *inbox)
{
    return inbox->fd;
}

/* The next entry, to be freed with inbox_free. NULL: there is none now, and the eventfd becomes readable
 * when there is one (Q1). An event handler calls inbox_clear first, then inbox_take until it returns
 * NULL; a handler that stops before that must arrange to be called again. */
struct inbox_entry *inbox_take(struct inbox *inbox);

/* Frees an entry that was taken, and wakes producers that wait for room. */
void inbox_free(struct inbox *inbox, struct inbox_entry *entry);

/* Resets the eventfd, which is then not readable until the next wake-up. */
void inbox_clear(struct inbox *inbox);

/* For a consumer that is a thread: waits up to `timeout_ms` (-1: no limit) for the next entry. NULL: the
 * time is up, or the inbox is closed and all its entries are freed. */
struct inbox_entry *inbox_await(struct inbox *inbox, int timeout_ms);

/* True once the inbox is closed and every entry that was put is freed. */
bool inbox_is_over(struct inbox *inbox);

#endif
