/*
 * wake_room.pml: publishers that wait for room and the readers that make it (wake.h, N1 to N4).
 *
 * One or two publishers want the cursors at 1, 2 .. GOAL; two readers move theirs from 0 to GOAL, one
 * step at a time. There is room when both cursors, as memory has them, have come so far. Each
 * process has a store buffer for each word that it writes plainly, drained by memory at any time and
 * in any order (x86 keeps it, weaker machines do not); fences and exchanges empty it. One reader may die before any step: the master then
 * takes its cursor out and writes every eventfd.
 *
 * Claim: when no process can move any more, both publishers have got their room. There are no timers.
 */
#define PUBS 2
#define READERS 2
#define NONE 9

byte cursor[READERS];
byte need[PUBS];
bit starving;
bit event[PUBS];
bit may_die = DEATH;
byte is_dead = NONE;

/* Buffers; two words of one process leave in any order. */
bit cursor_in[READERS]; byte cursor_buf[READERS];
bit need_in[PUBS]; byte need_buf[PUBS];
bit star_in[PUBS + READERS]; bit star_buf[PUBS + READERS];

#define MIN (cursor[0] < cursor[1] -> cursor[0] : cursor[1])

inline drain_cursor(i) { if :: cursor_in[i] -> cursor[i] = cursor_buf[i]; cursor_in[i] = 0 :: else fi }
inline drain_need(i) { if :: need_in[i] -> need[i] = need_buf[i]; need_in[i] = 0 :: else fi }
inline drain_star(i) { if :: star_in[i] -> starving = star_buf[i]; star_in[i] = 0 :: else fi }
inline fence_reader(i) { atomic { drain_cursor(i); drain_star(PUBS + i) } }
inline fence_publisher(i) { atomic { drain_need(i); drain_star(i) } }

active proctype memory()
{
end:
    do
    :: atomic { cursor_in[0] -> drain_cursor(0) }
    :: atomic { cursor_in[1] -> drain_cursor(1) }
    :: atomic { need_in[0] -> drain_need(0) }
    :: atomic { need_in[1] -> drain_need(1) }
    :: atomic { star_in[0] -> drain_star(0) }
    :: atomic { star_in[1] -> drain_star(1) }
    :: atomic { star_in[2] -> drain_star(2) }
    :: atomic { star_in[3] -> drain_star(3) }
    od
}

proctype publisher(byte me)
{
    byte want = 1;

    do
    :: want > GOAL -> break
    :: want <= GOAL ->
        if
        :: MIN >= want -> want++
        :: MIN < want ->
            atomic { need_buf[me] = want; need_in[me] = 1 }; /* N1 */
#ifndef MUTANT_no_fence_n1_starving
            fence_publisher(me); /* partner N3 */
#endif
            atomic { star_buf[me] = 1; star_in[me] = 1 };
#ifndef MUTANT_no_fence_n1_scan
            fence_publisher(me); /* partner N2 */
#endif
#ifndef MUTANT_no_second_scan
            if
            :: MIN >= want -> atomic { need_in[me] = 0; need[me] = 0; want++ }
            :: MIN < want -> atomic { event[me] -> event[me] = 0 }
            fi
#else
            atomic { event[me] -> event[me] = 0 }
#endif
        fi
    od
}

#define DIE if :: may_die && me == 1 -> may_die = 0; goto dead :: skip fi

/* wake_publishers: whose need the minimum has met is told; the others are counted. */
inline scan()
{
    low = MIN;
    waiting = 0;
    i = 0;
    do
    :: i < PUBS ->
        seq = need[i];
        if
        :: seq == 0
        :: seq > low -> waiting++
        :: seq != 0 && seq <= low ->
            atomic { seq = need[i]; need[i] = 0; fence_reader(me) }; /* exchange */
            DIE;
            atomic { if :: seq != 0 -> event[i] = 1 :: else fi }
        fi;
        i++
    :: else -> break
    od;
    atomic { i = 0; seq = 0; low = 0 }
}

proctype reader(byte me)
{
    byte at, low, waiting, i, seq;

    do
    :: at == GOAL -> break
    :: at < GOAL ->
        DIE;
        atomic { at++; cursor_buf[me] = at; cursor_in[me] = 1 };
#ifndef MUTANT_no_fence_n2
        fence_reader(me); /* N2 */
#endif
        if
        :: !starving
        :: starving ->
            scan();
            if
            :: waiting > 0
            :: waiting == 0 ->
                atomic { star_buf[PUBS + me] = 0; star_in[PUBS + me] = 1 };
#ifndef MUTANT_no_fence_n3
                fence_reader(me); /* N3 */
#endif
                scan();
                if
                :: waiting == 0
                :: waiting > 0 ->
#ifndef MUTANT_no_n4
                    atomic { fence_reader(me); star_buf[PUBS + me] = 1; star_in[PUBS + me] = 1 };
#ifndef MUTANT_no_fence_n4
                    fence_reader(me); /* N4 */
#endif
                    scan()
#endif
                fi
            fi
        fi;
        waiting = 0
    od;
    goto over;
dead:
    atomic { drain_cursor(me); drain_star(PUBS + me); is_dead = me }
over:
    skip
}

init
{
    atomic {
        run publisher(0);
#if PUBS_RUN == 2
        run publisher(1);
#endif
        run reader(0);
        run reader(1)
    };
end:
    is_dead != NONE;
#ifndef MUTANT_no_reaper
    cursor[1] = GOAL; /* ring_retire: it holds no publisher back */
#ifdef MUTANT_reaper_honours_need
    atomic { if :: need[0] != 0 -> need[0] = 0; event[0] = 1 :: else fi };
#else
    atomic { event[0] = 1; event[1] = 1 }
#endif
#endif
}
