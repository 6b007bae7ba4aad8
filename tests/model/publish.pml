/*
 * publish.pml: publication with helping, gating, joining and leaving, reuse of an arena, death and
 * succession, history. ring.h is what is modelled; the labels are its.
 *
 * Publishers: member 0 may die before any step, once; its successor knows only what the slots and
 * the floor say. A has a cursor from the beginning, B joins at any time and leaves again, a looker
 * reads history. N slots, CELLS records per arena; a record is one cell, whose content is the
 * number of the message. Sequences start at N, so that the first lap's tag is there.
 *
 * Stores of cursors go through a buffer of their process, as on x86; slots and tail change by
 * locked instructions. Loads are done in order, but for the mutant that drops the fence of M1: there
 * the cursors may be read before tail.
 *
 * Claims: a reader finds at each of its sequences that message, from the first look until it stores
 * its cursor; no message is published twice; every publisher gets done (an invalid end state
 * otherwise); what history returns is what was published there.
 */
#define N 2
#ifndef CELLS
#define CELLS 2
#endif
#define FIRST N
#define LAST (FIRST + FOR_0 + FOR_1) /* behind the last message */
#define NONE 200
#define BIG 100

byte slot_seq[N];     /* the sequence that the word's tag stands for */
byte slot_cell[N];    /* owner * CELLS + place; NONE: no publisher's */
byte tail = FIRST;
byte content[2 * CELLS];
byte floor_seq[2];
byte shared_head[2];  /* only the mutant believes it */
byte cursor[2] = NONE;
byte buffered[2];     /* a cursor's store that memory has not seen */
bit pending[2];

byte order[LAST + N]; /* ghost: the message at each sequence */
byte made;            /* ghost: messages that have got a number */
byte left[2];         /* messages that a member has still to publish */
bit may_die = DEATH;
bit is_dead;

inline store_cursor(r, value)
{
    atomic { buffered[r] = value; pending[r] = 1 }
}

inline fence_cursor(r)
{
    atomic { if :: pending[r] -> cursor[r] = buffered[r]; pending[r] = 0 :: else fi }
}

active proctype memory()
{
end:
    do
    :: atomic { pending[0] -> cursor[0] = buffered[0]; pending[0] = 0 }
    :: atomic { pending[1] -> cursor[1] = buffered[1]; pending[1] = 0 }
    od
}

#ifdef MUTANT_unsigned
#define before(a, b) ((a) < (b) || (a) - (b) > 127) /* never: see room() */
#define has_room(s, min) (((s) - (min) + 256) % 256 < N)
#else
#define has_room(s, min) ((s) < (min) + N)
#endif

/* M1, M2 */
inline take_min()
{
#ifdef MUTANT_no_fence_m1
    m = cursor[0];
    c = cursor[1];
    t = tail;
#else
    t = tail;
    m = cursor[0];
    c = cursor[1];
#endif
    atomic {
        if :: c < m -> m = c :: else fi;
#ifndef MUTANT_min_not_bounded
        if :: t < m -> m = t :: else fi;
#else
        if :: m == NONE -> m = t :: else fi;
#endif
        min = m; m = 0; c = 0; t = 0
    }
}

#define DIE if :: me == 0 && may_die -> may_die = 0; goto dead :: skip fi

/* N1 and its wake-up, seen from far: the member goes on when there is room by a fresh look.
 * room.pml and readers.pml are about how it is told. */
#define ROOM_BY_SLOTS(s) (has_room(s, (cursor[0] < cursor[1] -> (cursor[0] < tail -> cursor[0] : tail) : (cursor[1] < tail -> cursor[1] : tail))))
#define ROOM_BY_CELL(q) ((q) < (cursor[0] < cursor[1] -> (cursor[0] < tail -> cursor[0] : tail) : (cursor[1] < tail -> cursor[1] : tail)))

proctype publisher(bit me; bit successor)
{
    byte s, w, min, m, c, t, number, head, i;
    byte held[CELLS]; /* which sequence each cell holds; 0: none that is known */

    if
    :: successor -> /* rebuild: from the slot words alone */
        atomic {
#ifdef MUTANT_head_apart
            head = shared_head[me];
#else
            s = (slot_seq[tail % N] == tail -> tail + 1 : tail);
            i = (s > FIRST + N -> s - N : FIRST);
            do
            :: i < s ->
                if
                :: i >= floor_seq[me] && slot_seq[i % N] == i && slot_cell[i % N] / CELLS == me && slot_cell[i % N] != NONE ->
                    head = slot_cell[i % N] % CELLS;
                    held[head] = i;
                    head = (head + 1) % CELLS
                :: else
                fi;
                i++
            :: else -> break
            od;
#endif
            i = 0; s = 0
        }
    :: else
    fi;
    do
    :: left[me] > 0 ->
        DIE;
        /* reserve */
        if
        :: held[head] != 0 && held[head] >= min ->
            take_min();
            if
            :: held[head] >= min -> ROOM_BY_CELL(held[head]); take_min()
            :: else
            fi
        :: else
        fi;
        if
        :: held[head] != 0 && held[head] >= min -> goto again
        :: else
        fi;
        DIE;
#ifndef MUTANT_no_floor
        if
        :: held[head] != 0 -> floor_seq[me] = held[head] + 1 /* H1 */
        :: else
        fi;
#endif
        held[head] = 0;
        DIE;
        atomic { made++; number = made };
        content[me * CELLS + head] = number;
        DIE;
commit:
        s = tail; /* P3 */
        w = slot_seq[s % N]; /* P3 */
        if
        :: w == s ->
            atomic { if :: tail == s -> tail = s + 1 :: else fi }; /* P2 */
            goto commit
        :: w != s && w + N != s -> goto commit
        :: else
        fi;
        if
        :: !has_room(s, min) ->
            take_min();
            if
            :: !has_room(s, min) -> ROOM_BY_SLOTS(s); take_min(); goto commit
            :: else
            fi
        :: else
        fi;
        DIE;
        atomic { /* P1 */
            if
            :: slot_seq[s % N] == w ->
                slot_seq[s % N] = s;
                slot_cell[s % N] = me * CELLS + head;
                assert(order[s] == 0); /* one message a sequence */
                order[s] = number;
                left[me]--;
                w = NONE
            :: else
            fi
        };
        if :: w != NONE -> goto commit :: else fi;
        DIE;
        atomic { if :: tail == s -> tail = s + 1 :: else fi }; /* P2 */
        DIE;
        held[head] = s;
        head = (head + 1) % CELLS;
        shared_head[me] = head;
        atomic { s = 0; w = 0; number = 0 };
again:
        skip
    :: else -> break
    od;
    goto over;
dead:
    is_dead = 1;
over:
    skip
}

/* Reads up to `most` messages, then leaves. */
proctype reader(bit me; byte most)
{
    byte at, cell;

    at = tail;
    store_cursor(me, at); /* J1 */
#ifndef MUTANT_no_fence_j1
    fence_cursor(me);
#endif
#ifndef MUTANT_stale_tail
    at = tail; /* J1 */
#endif
    store_cursor(me, at);
    do
    :: most > 0 ->
        if
        :: atomic { slot_seq[at % N] == at -> cell = slot_cell[at % N] }; /* R1 */
            assert(content[cell] == order[at]);
            /* It stays, while the cursor does. */
            atomic {
                assert(content[cell] == order[at]);
                at++;
                most--;
                buffered[me] = at; /* C1 */
                pending[me] = 1;
                cell = 0
            }
        :: slot_seq[at % N] > at -> assert(false) /* nothing later is there */
        :: atomic { tail == LAST && at == LAST -> break }
        fi
    :: else -> break
    od;
    atomic { buffered[me] = NONE; pending[me] = 1; at = 0; most = 0 }
}

#ifdef HISTORY
/* ring_read_at of one sequence, whichever. */
proctype looker()
{
    byte seq, cell, copy, end_seq;

    if
    :: seq = FIRST
    :: seq = FIRST + 1
    fi;
    end_seq = tail;
    if
    :: seq < end_seq && end_seq - seq <= N && slot_seq[seq % N] == seq ->
        cell = slot_cell[seq % N];
        copy = content[cell];
        if
        :: slot_seq[seq % N] == seq -> /* H3 */
#ifndef MUTANT_no_floor
            if
            :: floor_seq[cell / CELLS] <= seq -> assert(copy == order[seq]) /* H2 */
            :: else
            fi
#else
            assert(copy == order[seq])
#endif
        :: else
        fi
    :: else
    fi
}
#endif

init
{
    atomic {
        slot_seq[0] = 0;
        slot_seq[1] = 1;
        slot_cell[0] = NONE;
        slot_cell[1] = NONE;
        floor_seq[0] = FIRST;
        floor_seq[1] = FIRST;
        cursor[1] = NONE;
        left[0] = FOR_0;
        left[1] = FOR_1;
        run publisher(0, 0);
        run publisher(1, 0);
#ifdef READERS
        run reader(0, READERS);
#if JOINERS
        run reader(1, JOINERS);
#endif
#endif
#ifdef HISTORY
        run looker();
#endif
    };
end:
    is_dead;
#ifndef MUTANT_no_reaper
    atomic { if :: slot_seq[tail % N] == tail -> tail++ :: else fi }; /* ring_retire */
    run publisher(0, 1)
#endif
}
