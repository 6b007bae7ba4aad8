/*
 * wake.h: who sleeps, who waits for room, and how they are woken without a system call under load.
 *
 * Role:     every member. One eventfd per member place, made by the master before the first fork,
 *           never replaced; so a waker can always write it, whoever has the place now.
 * Errors:   none: an eventfd whose count is full already wakes its owner.
 * Context:  the member's loop thread.
 *
 * Two conversations, each a store and a load on either side with a full fence between (Dekker), so
 * that at least one side sees the other:
 *
 *   label  sleeper                              waker                                   label
 *   W1     sleeping = 1 | fence | slot empty?   slot set | fence | sleeping?            W2
 *          -> epoll                             -> exchange 0, was 1: write eventfd
 *   N1     need_seq = s | fence | starving = 1  cursor = c | fence | starving?          N2
 *          | fence | minimum < s? -> "again"    -> minimum >= need_seq: take 0, write
 *                                               none waits: starving = 0 | fence        N3
 *                                               | minimum >= need_seq: take 0, write
 *                                               some wait: fence | starving = 1 | fence N4
 *                                               | minimum >= need_seq: take 0, write
 *
 * W: a reader that finds its slot empty after W1 has stored `sleeping` before any publisher that
 * sets that slot later loads it in W2. N: a publisher that still sees a low minimum after N1 has
 * stored its need before the reader that holds it back loads `starving` in N2. The minimum is taken
 * over all cursors, after the fence: of two readers that pass at the same time at least one sees
 * both.
 *
 * `starving` only saves the scan. Whoever finds no need any more clears it, fences and looks again
 * (N3): a need whose `starving` = 1 came before the clearing was stored, and fenced, before that,
 * and is seen now; one that comes later sets `starving` itself. If there is one after all,
 * `starving` is set again and the minimum taken once more behind a fence (N4): a reader that passed
 * in between found 0 in N2 and went on, and might have been the last one that the publisher waits
 * for.
 *
 * tests/model/wake_readers.pml and wake_room.pml are this, and fail without any one of the fences.
 *
 * Who is woken tries again, and registers its need anew if there is still no room: a wake-up for
 * nothing (a need renewed while it was taken, a death) costs one attempt. A need that is left
 * behind by a publisher that got its room in another way costs one write.
 *
 * A waker may die after it took `sleeping` (or a need) and before it wrote: when a member dies, the
 * master writes every eventfd (wake_all): readers look, publishers try again and set `starving`
 * anew. Each member looks at the ring on its timer as well.
 */
#ifndef CRIER_SHM_WAKE_H
#define CRIER_SHM_WAKE_H

#include <stdint.h>

#include "shm/atomic.h"
#include "shm/layout.h"

struct wake {
    struct member_shm *members;
    uint32_t *starving;
    const int *fds; /* an eventfd per member; borrowed, outlives this */
    uint32_t member_count;
    uint32_t self;
};

/* W2. Wakes each member that sleeps; once per batch of publications. */
void wake_readers(const struct wake *wake);

/* W1, first half: the caller looks at the ring afterwards, and sleeps only if there is nothing. */
void wake_sleep_begin(const struct wake *wake);
void wake_sleep_end(const struct wake *wake);

/* N1, without the last look. */
void wake_need_begin(const struct wake *wake, uint64_t seq);
void wake_need_end(const struct wake *wake);

/* N2. Anybody waiting for room? Call behind the fence that follows the store of a cursor. */
static inline int
wake_is_starving(const struct wake *wake)
{
    return atomic_load_relaxed(wake->starving) != 0;
}

/* N2. Wakes the members whose need the minimum has met; returns how many still wait. */
unsigned wake_publishers(const struct wake *wake, uint64_t min_seq);

/* N1, N4: somebody waits. The caller computes the minimum anew behind it. */
void wake_starving_begin(const struct wake *wake);
/* N3: nobody seems to wait. The caller computes the minimum anew and asks again. */
void wake_starving_end(const struct wake *wake);

/* Writes one member's eventfd: something other than the ring needs its attention. */
void wake_member(const struct wake *wake, uint32_t member);

/* Writes every eventfd: after a death, and when the phase changes. */
void wake_all(const struct wake *wake);

#endif
