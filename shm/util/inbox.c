/*
 * inbox.c: the specification is in inbox.h.
 */
#define _GNU_SOURCE
#include "shm/util/inbox.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/util/await.h"
#include "shm/util/tsan.h"

enum {
    INBOX_CLOSED = 1,  /* in `word` */
    INBOX_WAITING = 1, /* in `room` */
};

_Static_assert(offsetof(struct inbox_entry, node) == 0, "a node is cast to its entry");

int
inbox_init(struct inbox *inbox, uint64_t limit_bytes)
{
    *inbox = (struct inbox){.limit_bytes = limit_bytes};
    __cds_wfcq_init(&inbox->head, &inbox->tail);
    inbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return inbox->fd < 0 ? -errno : 0;
}

void
inbox_fini(struct inbox *inbox)
{
    struct inbox_entry *entry;

    while ((entry = inbox_take(inbox)))
        free(entry);
    close(inbox->fd);
    inbox->fd = -1;
}

/* --- waking, and giving room back --- */

static void
inbox_wake_producers(struct inbox *inbox)
{
    uint32_t room;

    atomic_fence(); /* Q4, partner Q3 */
    room = atomic_load_relaxed(&inbox->room);
    if ((room & INBOX_WAITING) && atomic_cas_u32(&inbox->room, room, room + 1))
        (void)syscall(SYS_futex, &inbox->room, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void
inbox_wake_consumer(struct inbox *inbox)
{
    static const uint64_t one = 1;

    atomic_fence(); /* Q2, partner Q1 */
    if (!atomic_load_relaxed(&inbox->sleeping) || !atomic_xchg(&inbox->sleeping, 0U))
        return;
    while (write(inbox->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void
inbox_give_back(struct inbox *inbox, uint64_t bytes)
{
    uint64_t word = atomic_fetch_sub(&inbox->word, bytes * 2) - bytes * 2;

    inbox_wake_producers(inbox); /* Q4 */
    /* This addition may have hidden from the consumer that the inbox is over. */
    if (word == INBOX_CLOSED)
        inbox_wake_consumer(inbox);
}

/* Q3, first half: the caller looks again afterwards, and waits only if there is still no room. */
static uint32_t
inbox_wait_begin(struct inbox *inbox)
{
    uint32_t room = atomic_fetch_or(&inbox->room, (uint32_t)INBOX_WAITING) | INBOX_WAITING;

    atomic_fence(); /* Q3, partner Q4 */
    return room;
}

/* Waits while `room` is what inbox_wait_begin returned; false when the time is up. */
static bool
inbox_wait(struct inbox *inbox, uint32_t room, uint64_t end_ns)
{
    struct timespec left;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);

    if (now_ns >= end_ns)
        return false;
    left.tv_sec = (time_t)((end_ns - now_ns) / 1000000000);
    left.tv_nsec = (long)((end_ns - now_ns) % 1000000000);
    (void)syscall(SYS_futex, &inbox->room, FUTEX_WAIT_PRIVATE, room,
                  end_ns == UINT64_MAX ? NULL : &left, NULL, 0);
    return true;
}

static uint64_t
inbox_end_ns(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;
}

/* --- producers --- */

/* The result of putting `bytes` when `word` is as given. */
static int
inbox_verdict(const struct inbox *inbox, uint64_t word, uint64_t bytes)
{
    if (word & INBOX_CLOSED)
        return -EPIPE;
    return word / 2 > inbox->limit_bytes - bytes ? -EAGAIN : 0;
}

/* Loads `word` before it adds: undoing an addition wakes producers that wait for room, and two of them
 * that only added would keep waking each other. */
int
inbox_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes)
{
    int rc;

    if (bytes > inbox->limit_bytes)
        return -EMSGSIZE;
    rc = inbox_verdict(inbox, atomic_load_relaxed(&inbox->word), bytes);
    if (rc)
        return rc;
    rc = inbox_verdict(inbox, atomic_fetch_add(&inbox->word, bytes * 2), bytes);
    if (rc) {
        inbox_give_back(inbox, bytes);
        return rc;
    }
    entry->bytes = bytes;
    cds_wfcq_node_init(&entry->node);
    tsan_release(&entry->node);
    (void)cds_wfcq_enqueue(&inbox->head, &inbox->tail, &entry->node);
    inbox_wake_consumer(inbox); /* Q2 */
    return 0;
}

int
inbox_wait_put(struct inbox *inbox, struct inbox_entry *entry, uint64_t bytes, int timeout_ms)
{
    uint64_t end_ns = inbox_end_ns(timeout_ms);
    int rc;

    while ((rc = inbox_put(inbox, entry, bytes)) == -EAGAIN) {
        uint32_t room = inbox_wait_begin(inbox); /* Q3 */
        if (inbox_verdict(inbox, atomic_load_relaxed(&inbox->word), bytes) == -EAGAIN &&
            !inbox_wait(inbox, room, end_ns))
            break;
    }
    return rc;
}

bool
inbox_flush(struct inbox *inbox, int timeout_ms)
{
    uint64_t end_ns = inbox_end_ns(timeout_ms);

    while (inbox_bytes(inbox) > 0) {
        uint32_t room = inbox_wait_begin(inbox); /* Q3 */
        if (inbox_bytes(inbox) > 0 && !inbox_wait(inbox, room, end_ns))
            return false;
    }
    return true;
}

void
inbox_close(struct inbox *inbox)
{
    (void)atomic_fetch_or(&inbox->word, (uint64_t)INBOX_CLOSED);
    inbox_wake_producers(inbox);
    inbox_wake_consumer(inbox); /* inbox_await looks at CLOSED */
}

uint64_t
inbox_bytes(const struct inbox *inbox)
{
    return atomic_load_acquire(&inbox->word) / 2;
}

/* --- the consumer --- */

static struct inbox_entry *
inbox_dequeue(struct inbox *inbox)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_nonblocking(&inbox->head, &inbox->tail);

    if (!node || node == CDS_WFCQ_WOULDBLOCK)
        return NULL;
    tsan_acquire(node);
    return (struct inbox_entry *)node;
}

struct inbox_entry *
inbox_take(struct inbox *inbox)
{
    struct inbox_entry *entry = inbox_dequeue(inbox);

    if (entry)
        return entry;
    atomic_store_relaxed(&inbox->sleeping, 1U);
    atomic_fence(); /* Q1, partner Q2 */
    entry = inbox_dequeue(inbox);
    if (entry)
        atomic_store_relaxed(&inbox->sleeping, 0U);
    return entry;
}

void
inbox_free(struct inbox *inbox, struct inbox_entry *entry)
{
    uint64_t bytes = entry->bytes;

    free(entry);
    inbox_give_back(inbox, bytes);
}

void
inbox_clear(struct inbox *inbox)
{
    uint64_t count;

    while (read(inbox->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

/* Once it is over it stays so, though an addition that will be taken back may change the word again. */
bool
inbox_is_over(struct inbox *inbox)
{
    inbox->over |= atomic_load_acquire(&inbox->word) == INBOX_CLOSED;
    return inbox->over;
}

struct inbox_entry *
inbox_await(struct inbox *inbox, int timeout_ms)
{
    uint64_t end_ns = inbox_end_ns(timeout_ms);
    struct inbox_entry *entry;

    while (!(entry = inbox_take(inbox)) && !inbox_is_over(inbox)) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        uint64_t left_ms = now_ns < end_ns ? (end_ns - now_ns + 999999) / 1000000 : 0;
        if (left_ms == 0)
            break;
        await_fd(inbox->fd, POLLIN, timeout_ms < 0 ? -1 : (int)left_ms);
        inbox_clear(inbox);
    }
    return entry;
}
