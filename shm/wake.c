#include "shm/wake.h"

#include <errno.h>
#include <unistd.h>

#include "shm/testpoint.h"

void
wake_member(const struct wake *wake, uint32_t member)
{
    uint64_t one = 1;

    while (write(wake->fds[member], &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    counter_add(wake->members[wake->self].counters, wakeups, 1);
}

void
wake_readers(const struct wake *wake)
{
    atomic_fence(); /* W2, partner W1 */
    for (uint32_t i = 0; i < wake->member_count; i++) {
        uint32_t *sleeping = &wake->members[i].sleeping;
        if (i != wake->self && atomic_load_relaxed(sleeping) && atomic_xchg(sleeping, 0U)) {
            TESTPOINT(WAKE_TAKEN);
            wake_member(wake, i);
        }
    }
}

void
wake_sleep_begin(const struct wake *wake)
{
    atomic_store_relaxed(&wake->members[wake->self].sleeping, 1U);
    atomic_fence(); /* W1, partner W2 */
}

void
wake_sleep_end(const struct wake *wake)
{
    atomic_store_relaxed(&wake->members[wake->self].sleeping, 0U);
}

void
wake_need_begin(const struct wake *wake, uint64_t seq)
{
    atomic_store_relaxed(&wake->members[wake->self].need_seq, seq);
    TESTPOINT(PUBLISH_NEED_STORED);
    wake_starving_begin(wake); /* N1 */
}

void
wake_need_end(const struct wake *wake)
{
    atomic_store_relaxed(&wake->members[wake->self].need_seq, (uint64_t)0);
}

unsigned
wake_publishers(const struct wake *wake, uint64_t min_seq)
{
    unsigned waiting = 0;

    for (uint32_t i = 0; i < wake->member_count; i++) {
        uint64_t *need = &wake->members[i].need_seq;
        uint64_t seq = atomic_load_relaxed(need);
        if (seq == 0)
            continue;
        if ((int64_t)(min_seq - seq) < 0)
            waiting++;
        else if (atomic_xchg(need, (uint64_t)0)) {
            TESTPOINT(WAKE_TAKEN);
            wake_member(wake, i);
        }
    }
    return waiting;
}

void
wake_starving_begin(const struct wake *wake)
{
    atomic_fence(); /* N1, partner N3: a reader that clears `starving` after this sees the need */
    atomic_store_relaxed(wake->starving, 1U);
    atomic_fence(); /* N1, N4, partner N2 */
}

void
wake_starving_end(const struct wake *wake)
{
    atomic_store_relaxed(wake->starving, 0U);
    atomic_fence(); /* N3, partner N1 */
}

void
wake_all(const struct wake *wake)
{
    for (uint32_t i = 0; i < wake->member_count; i++)
        wake_member(wake, i);
}
