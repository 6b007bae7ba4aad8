/*
 * wake.h: wakes members that sleep or wait for room, without a system call under load.
 *
 * Role:     every member. One eventfd per member place, made by the master before the first fork,
 *           never replaced; so a waker can always write it, whichever process has the place now.
 * Errors:   none. The write fails only when the eventfd counter is at its maximum, and then the
 *           owner is woken anyway.
 * Context:  the member's loop thread.
 *
 * Two store/load pairs with a full fence between store and load on either side (Dekker), so that at
 * least one side sees the other:
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
 * W: if a reader finds its slot empty after the fence in W1, every publisher that fills the slot later
 * sees `sleeping` = 1 in W2. N: if a publisher still computes too low a minimum after N1, the reader
 * that holds it back sees `starving` = 1, and the need, in N2. The minimum is taken over all cursors,
 * after the fence: of two readers that pass at the same time at least one sees both cursors.
 *
 * `starving` only saves the scan. A reader that finds no need any more clears it, fences and scans
 * again (N3). If a publisher set `starving` before it was cleared, it had stored and fenced its need
 * even earlier, so the second scan finds the need. If it sets `starving` after the clearing, the flag
 * stays set. If the second scan finds a need, the reader sets `starving` again and takes the minimum
 * once more after a fence (N4): another reader that passed in between loaded 0 in N2 and went on, and
 * might have been the last one that the publisher waits for.
 *
 * tests/model/wake_readers.pml and wake_room.pml are this, and fail without any one of the fences.
 *
 * A woken publisher retries, and registers its need anew if there is still no room. So a spurious
 * wake-up costs one retry: it happens when a publisher renews its need while a waker clears it, and
 * after a process has died. A need that is left behind by a publisher that got its room in another way
 * costs one write.
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

/* N2. May a publisher wait for room? Call after the fence that follows the store of a cursor. */
static inline int
wake_is_starving(const struct wake *wake)
{
    return atomic_load_relaxed(wake->starving) != 0;
}

/* N2. Wakes the members whose need the minimum has met; returns how many still wait. */
unsigned wake_publishers(const struct wake *wake, uint64_t min_seq);

/* N1, N4: a publisher waits. The caller computes the minimum anew after it. */
void wake_starving_begin(const struct wake *wake);
/* N3: no publisher seems to wait. The caller computes the minimum anew and asks again. */
void wake_starving_end(const struct wake *wake);

/* Writes one member's eventfd: something other than the ring needs its attention. */
void wake_member(const struct wake *wake, uint32_t member);

/* Writes every eventfd: after a death, and when the phase changes. */
void wake_all(const struct wake *wake);

#endif
