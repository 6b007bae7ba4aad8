/*
 * ring.h: the broadcast ring. This header is its specification.
 *
 * 1. PURPOSE
 * One total order over everything that any process publishes, read by every worker at its own pace,
 * with no lock, and with no process whose death at any instruction could hurt another. After
 * publication nothing is copied: a reader sends from the publisher's arena.
 *
 * 2. ROLES
 *   publisher   a member with an arena: reserves, writes a record, publishes it (one thread each)
 *   reader      a member with a cursor: everything from its cursor on stays in place for it
 *   master      retires a dead member's cursor, after it has reaped the process
 *   observer    reads `tail`, words and records (ring_read_at, ring_check), holds nothing, writes
 *               nothing: tools, and processes that replay history
 *
 * 3. LAYOUT
 *   slots[1 << slot_bits], 64 bits each (n is their number):
 *     63            34 33      26 25                    0
 *     |  lap tag: 30   | owner: 8 | arena offset / 16: 26 |
 *   `tail`: the next sequence to publish. It may lag by one: after slot s is set, tail stays s until
 *   the publisher or a helper advances it. No process publishes s + 1 before it has read or set
 *   tail = s + 1.
 *   Sequence s lives in slot s mod n and is published when that slot carries tag(s) = s / n + 1,
 *   mod 2^30. Slots start as zero: the tag before lap 0. Sequence 0 is never published (0 can so
 *   mean "none" elsewhere); the slot of 0 is formatted as if it had been.
 *
 * 4. INVARIANTS (ring_check() executes them)
 *   I1  every s in [max(first, tail - n), tail) is published: the order has no hole
 *   I2  slot[tail] carries the tag of tail's lap (published, tail not moved) or of the lap before
 *   I3  every word in [minimum, tail) names a record that lies inside its owner's arena
 *   I4  the records of one owner in [minimum, tail) follow each other in its arena, once around at
 *       most, and do not overlap
 *   I5  no cursor is more than one past tail; none is more than n behind it, but for the low one of
 *       a reader that is just joining (J1)
 *
 * 5. ORDER AND PROGRESS
 * Total order is slot order. A publisher's own order is kept: one reservation at a time.
 * Publication is lock-free: a failed compare-and-swap on a slot means that another publisher
 * succeeded, on tail that another one helped. Reading is wait-free: one load a broadcast. Nothing here
 * blocks: without room publication returns -EAGAIN (wake.h says how the member is told when to come
 * back).
 * History: what every cursor has passed stays readable until its bytes or its slot are needed
 * again. ring_read_at copies first and looks afterwards whether it was too late; it is wait-free.
 *
 * 6. MEMORY ORDER
 *   label  access                                        partner  guarantees
 *   P1     publish: slot CAS, full                       R1       a reader of the tag sees the record
 *   P2     publish: tail CAS, full, any member           P3       a process that reads s + 1 in tail
 *                                                                 sees slot s set
 *   P3     publish: load-acquire of tail, then of slot   P2, P1   a published slot (below tail) is
 *                                                                 never mistaken for a free one
 *   R1     read: load-acquire of slot                    P1
 *   C1     cursor: store-release after the last use      M2       room is reused after the last use
 *   M1     minimum: load tail | full fence | cursors     J1       never above the cursor of a
 *                                                                 reader that joins
 *   M2     minimum: load-acquire of each cursor          C1
 *   J1     join: cursor = low | full fence | load tail   M1
 *   H1     arena.c, rebuilding: floor_seq | full fence   H2       after copying a byte of a later
 *          | old bytes                                            record, a reader sees a floor above
 *                                                                 the record that it wanted
 *   H2     history: copy | fence | floor_seq             H1
 *   H3     history: copy | fence | word again            P1       the slot had not been reused
 *   H4     history: load word | tail                     P2       the word was of this lap
 *   W, N   wake.h
 * Why the minimum is bounded by tail: a reader may be one past a tail that was not advanced yet. A
 * publisher that took only cursors into account could then reuse the slot before, which a reader
 * that joins at the same moment (it stores the tail that it reads) still needs. And tail is read
 * before the cursors: a reader that the scan has missed starts at that tail or later.
 * Why joining reads tail twice: between the first reading and the store a publisher may have
 * passed. After the fence, the publisher either sees the low cursor, and then reuses nothing from
 * that cursor on, or it had already advanced tail, which the second reading then returns. So a cached minimum is only ever too low and needs
 * no generation. The low cursor may be laps old when the joining process was stopped in between; it
 * gates publishers until the second store, which therefore wakes them like any other (N2).
 * Why history looks at two things: room in an arena comes back long before the slot does, which
 * floor_seq says; and after a death the successor knows only what slots still name, so a record
 * whose slot was reused may be overwritten although floor_seq has not moved. The floor belongs to a
 * record's owner, which the word names: that the word is still the same is what makes it the right
 * one. tail tells a word of this lap from one that 2^30 laps later looks like it.
 * H1 is a full fence, not a release: memcpy writes large records with stores that pass others.
 * Sequences are compared by signed difference, because either side may be the older one.
 *
 * 7. CRASH MODEL
 *   dies                          others see                 repaired by
 *   while writing a record        nothing                    the successor overwrites it
 *   between record and P1         nothing                    the same
 *   between P1 and P2             the broadcast; tail behind the next publisher helps; ring_retire
 *   after P2, before waking       the broadcast, late        ring_retire, timers
 *   after taking `sleeping`       a sleeper is not woken     ring_retire writes every eventfd
 *   after taking a need           a publisher that waits     the same: it tries again
 *   with `starving` cleared (N3)  the same                   the same: it sets `starving` anew
 *   with need_seq set             needless wake-ups          ring_retire clears it
 *   as a reader, anywhere         a stalled cursor           ring_retire takes it out
 *   while joining                 a low cursor               ring_retire
 *   having raised floor_seq       less history               nothing is lost that is still due
 *   as an observer                nothing                    it wrote nothing
 * A successor opens with ring_open, which rebuilds its arena's bookkeeping from the slot words:
 * they are the only truth about what is still needed. The old process is reaped before the new one
 * starts; ring_open returns -EBUSY while that process has not been retired. No cursor is asked: a low
 * one (J1) may be older than what is there. All that lies between floor_seq, or n behind tail, and
 * tail is kept, so that a death takes no history either.
 * Tests, for every row: tests/torture/ring_kill.c kills at each instruction of a publication (plain,
 * raising floor_seq, helping, without room), a drain, a leave, an attach, a retirement and a look at
 * history; tests/torture/ring_torture.c, built with test points, at each point of testpoint.h while
 * all members work, and at random; tests/unit/test_ring.c builds single states by hand.
 *
 * Models: tests/model/publish.pml (order, gating, joining and leaving, arenas, death, history) and
 * wake_readers.pml, wake_room.pml (both directions of waking) are searched exhaustively by
 * `make check-long`, and each fence, second look and repair that is named here is taken out once to
 * see the search fail. They differ from the code in size (2 slots, 2 publishers, 2 readers, 3 or 4
 * messages, 1 or 2 records an arena), have no tags (a slot names its sequence: no wrap, section 8 is
 * arithmetic), records of one word (a torn copy is a wrong one), no batches of slots or of marks
 * (room comes back one by one), one death at a time, and no timers: nothing here needs them. Stores
 * wait in buffers as on x86 or longer; loads keep their order, but for the mutant of M1. Where a
 * publisher waits, publish.pml lets it go on when there is room, and wake_room.pml is about how it
 * learns of it. One process's exchange of `sleeping` or of a need is one step, as it is in the code.
 *
 * 8. TAG WIDTH, WRAP, ABA
 * `tail` and cursors are 64 bits and never wrap. A slot's CAS can go wrong only if its publisher
 * sleeps between P3 and P1 while the ring laps 2^30 times and the very same word (owner and offset
 * too) stands there again: 2^30 laps of 2^16 slots at 10 million a second are 81 days in one
 * instruction gap. A reader's cursor bounds the laps, so only a member without one (the master) is
 * exposed at all. Builds with -DRING_TAG_BITS=3 make the wrap run in tests, in which every
 * publisher has a cursor.
 *
 * 9. NOT PROMISED
 * Fairness between publishers; that a record is readable once every cursor has passed it; anything
 * against a member that writes where it must not, beyond this: no process reads or writes outside
 * the mapping, no loop depends on a shared word alone, and a word that fails its check is -EBADMSG.
 * Every shared word is checked before it is used, in one of these ways:
 *   geometry      copied once at attach; the counts are in range and every offset is the one that
 *                 follows from them, so that no two areas overlap (segment.h)
 *   slot word     owner below member_count, offset inside the arena, a multiple of 16 by its format
 *   record head   a reader copies it once; the size is a multiple of 16, at most a quarter of the
 *                 arena and ends inside it; frame and twin lie inside the record (record_is_sound).
 *                 A publisher never reads it back: sizes and places are its own (arena.h, record.h)
 *   tail          the slot's tag must be of its lap or of the one before; a publisher that has seen
 *                 a higher one refuses it
 *   cursors       a minimum above tail is tail; one that is too low costs room, no bytes
 *   floor_seq     its owner only writes it; a successor that finds it above tail keeps everything
 *                 that the slots name, and history starts anew
 *   need_seq, pressure_seq, sleeping, starving   decide about wake-ups alone
 * A process that keeps writing such words can delay the others, as one that keeps publishing can.
 *
 * 10. SIZING
 * Room for broadcasts is bytes and slots, whichever is used up first: arena_bytes per publisher,
 * 1 << slot_bits in all. A record is at most a quarter of an arena. Above 3/4 of either,
 * pressure_seq names the cursor position that would relieve it: what slow clients are measured
 * against. By slots it is accurate to 1/64 of the ring, by bytes to a mark of the arena (1/128, or
 * one record). A large record, and the gap that it leaves before the end of the arena, may find no
 * room although a quarter is free. From the moment that its publisher starts to wait, pressure_seq
 * is then the sequence that it needs, and sleeping workers are woken to read it. A reader that is
 * about to sleep at that moment reads it on its timer (slow.h), so that no wait is longer than that.
 *
 * Errors:  -EAGAIN no room yet, -EMSGSIZE never fits, -EBADMSG a word or record that no publisher
 *          writes; what else a function returns stands beside it.
 * Context: one thread per member; what takes a const ring any thread.
 */
#ifndef CRIER_SHM_RING_H
#define CRIER_SHM_RING_H

#include <stdbool.h>
#include <stddef.h>

#include "shm/arena.h"
#include "shm/record.h"
#include "shm/segment.h"
#include "shm/twin.h"
#include "shm/wake.h"

#ifndef RING_TAG_BITS
#define RING_TAG_BITS 30
#endif

#define RING_OWNER_BITS 8
#define RING_OFFSET_BITS 26

/* A slot word has room for the offset of this many bytes. */
#define RING_ARENA_MAX_BYTES ((1ULL << RING_OFFSET_BITS) * RECORD_ALIGN_BYTES)

enum { RING_OWNERS_MAX = 1 << RING_OWNER_BITS, RING_FIRST_SEQ = 1, RING_WHY_BYTES = 128 };

/* For an observer: no member. */
#define RING_NOBODY UINT32_MAX

_Static_assert(RING_TAG_BITS >= 2 && RING_TAG_BITS + RING_OWNER_BITS + RING_OFFSET_BITS <= 64,
               "tag, owner and offset share a slot word");

/* A member's handle. */
struct ring {
    struct segment_shm *head;
    struct member_shm *members;
    uint64_t *slots;
    const uint8_t *arenas;
    uint64_t arena_bytes;
    uint64_t mask;     /* slots - 1 */
    uint64_t min;      /* cached minimum: only ever too low */
    uint64_t next_seq; /* tail is never below: this publisher's own copy */
    uint32_t slot_bits;
    uint32_t member_count;
    uint32_t self;          /* RING_NOBODY: an observer */
    bool unwoken;           /* published since the last ring_flush */
    uint64_t batch_time_ns; /* of the first ring_publish since; 0: there was none */
    struct wake wake;
    struct twin twin; /* without twins until its owner says otherwise (twin_init) */
    struct arena arena;
};

/* Writes what an empty ring needs beyond zeroes; the master, before any process attaches. */
void ring_format(struct segment *segment);

/* Opens the ring as member `self`, and rebuilds the bookkeeping of its arena from the slot words.
 * `wake_fds` (one per member) and the mapping are borrowed. -ERANGE: there is no such place; -EBUSY:
 * it is another process's, which has not been retired. */
int ring_open(struct ring *ring, const struct segment *segment, uint32_t self, const int *wake_fds)
    __attribute__((warn_unused_result));

/* Opens the ring for an observer; the mapping is borrowed and may be read-only. An observer calls the
 * functions that take a const ring, except ring_read. */
void ring_look(struct ring *ring, const struct segment *segment);

/* The next sequence, with every publication that is visible counted (helps tail). */
uint64_t ring_tail(struct ring *ring);

/* The same without helping, for observers. To one caller it never goes back. */
uint64_t ring_end(const struct ring *ring);

/* min(tail, every cursor); M1, M2. */
uint64_t ring_min(const struct ring *ring);

/* --- publishing --- */

/* Room for a record of `record_bytes` (record_size()) in this member's arena, or -EAGAIN or
 * -EMSGSIZE. *record is borrowed until ring_commit or the next ring_reserve. */
int ring_reserve(struct ring *ring, uint64_t record_bytes, struct record_shm **record)
    __attribute__((warn_unused_result));

/* Publishes the reserved record, which is complete and `record_bytes` long (record_write); that size
 * is the caller's own, the record's words are not read again. 0 and its sequence, or -EAGAIN: nothing
 * was published and the reservation is gone. -EINVAL when the record is not this member's
 * reservation; -EBADMSG when the slot holds what no publisher writes, or tail has gone back. */
int ring_commit(struct ring *ring, const struct record_shm *record, uint64_t record_bytes,
                uint64_t *seq) __attribute__((warn_unused_result));

/* All of it: reserve, write (record.h), stamp with the time of the batch's first, add a twin (twin.h)
 * when there is a slot for the record, commit. The result of ring_reserve or ring_commit. */
int ring_publish(struct ring *ring, uint8_t opcode, const void *payload, size_t payload_bytes,
                 uint8_t flags, uint64_t origin, uint64_t *seq) __attribute__((warn_unused_result));

/* Ends a batch: wakes the readers that sleep, if anything was published since the last. */
void ring_flush(struct ring *ring);

/* --- reading --- */

/* Joins as a reader; returns the cursor: everything published from here on stays in place. Wakes
 * publishers as ring_cursor_store does. */
uint64_t ring_join(struct ring *ring);

/* Gives the cursor up: what is published is not kept for this member any more. */
void ring_leave(struct ring *ring);

/* 1 and the record when `seq` is published, 0 when it is not yet, -EBADMSG. The record's bytes are
 * borrowed while this member's cursor is at most `seq`; its head is a copy. */
int ring_read(const struct ring *ring, uint64_t seq, struct record_ref *record)
    __attribute__((warn_unused_result));

/* Copies the record of any sequence, whether a cursor protects it or not, to `copy`, which has room
 * for `room` bytes: 1 and the record as it was published; 0 when it is not yet; -ENODATA when it is
 * gone; -EMSGSIZE when it is there and has more bytes than that (a quarter of an arena always
 * fits). On every result but 1 the copy is worthless. H2, H3. */
int ring_read_at(const struct ring *ring, uint64_t seq, struct record_shm *copy, size_t room)
    __attribute__((warn_unused_result));

/* Where a record lies, as its slot says. */
struct ring_place {
    uint32_t owner;
    uint32_t record_bytes;
    uint64_t offset; /* in the owner's arena */
};

/* 1 and the place of the record of `seq` when its slot names one, 0 when it is not published or its
 * slot is another's by now, -EBADMSG. For tools: what it says may be over at once. */
int ring_place(const struct ring *ring, uint64_t seq, struct ring_place *place)
    __attribute__((warn_unused_result));

/* Moves this member's cursor (C1) and wakes publishers that have waited for it (N2). */
void ring_cursor_store(struct ring *ring, uint64_t seq);

/* About to wait in epoll, having seen everything below `seq`: false when there is something to read
 * after all (W1). ring_sleep_end follows either way. */
bool ring_sleep_begin(struct ring *ring, uint64_t seq) __attribute__((warn_unused_result));
void ring_sleep_end(struct ring *ring);

/* The highest pressure_seq of all publishers: readers below it hold up three quarters of the room of
 * one of them. 0 when there is no pressure. */
uint64_t ring_pressure_seq(const struct ring *ring);

/* --- master --- */

/* Takes a dead, reaped member out: helps tail, retires its cursor, clears its need and its pid, and
 * wakes all members: readers read the ring again, publishers that wait retry. */
void ring_retire(struct ring *ring, uint32_t member);

/* Executes I1 to I5; false and a sentence in `why` for the first that does not hold. For a ring at
 * rest; a caller with a cursor may check a busy one, from its cursor on, while no member joins. */
bool ring_check(const struct ring *ring, char why[RING_WHY_BYTES]);

#endif
