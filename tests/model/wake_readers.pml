/*
 * wake_readers.pml: waking readers (wake.h, W1 and W2), and a publisher that finds no room in the
 * middle of a batch.
 *
 * A publisher publishes MESSAGES messages, BATCH between two wake-ups; there is room for ROOM that
 * are not read. A reader reads, and sleeps when there is nothing. The publisher may die before any
 * step, once: the master reaps it, writes every eventfd (wake_all), and starts a successor, which
 * does not know what was published but not woken.
 *
 * Stores of `sleeping` and of the slot go through a buffer of their process, which memory drains at
 * any time; a fence empties it. On x86 the compare-and-swap of a slot is locked and would hide a
 * missing W2: here it is as weak as a plain store.
 *
 * Claim: when no process can move any more, everything is published and read. Members look at the ring
 * on their timers, too; there are no timers here.
 */
#define MESSAGES 3
#define ROOM 2

byte published; /* in memory */
byte unseen;    /* published, still in the publisher's buffer */
bit sleeping;
bit in_buffer;  /* the reader's store of sleeping = 1 */
bit event;      /* the reader's eventfd */
byte seen;      /* by the reader; its cursor */
byte made;
bit may_die = 1;
bit is_dead;

inline fence_publisher() { atomic { published = published + unseen; unseen = 0 } }
inline fence_reader() { atomic { if :: in_buffer -> sleeping = 1; in_buffer = 0 :: else fi } }

active proctype memory()
{
end:
    do
    :: atomic { in_buffer -> sleeping = 1; in_buffer = 0 }
    :: atomic { unseen > 0 -> published = published + unseen; unseen = 0 }
    od
}

#define DIE if :: may_die -> may_die = 0; goto dead :: skip fi

inline wake()
{
#ifndef MUTANT_no_fence_w2
    fence_publisher(); /* W2 */
#endif
    DIE;
    if
    :: sleeping ->
        atomic { taken = sleeping; sleeping = 0 };
        DIE;
        atomic { if :: taken -> event = 1 :: else fi; taken = 0 }
    :: else
    fi
}

proctype publisher(byte batch)
{
    bit taken;
    byte unwoken;

    do
    :: made < MESSAGES ->
        if
        :: made - seen < ROOM -> /* P1 */
            atomic { made++; unseen++; unwoken++ };
            DIE
        :: made - seen >= ROOM ->
            /* "again": N1, and its wake-up seen from far (wake_room.pml) */
#ifndef MUTANT_no_wake_before_again
            if
            :: unwoken > 0 -> wake(); unwoken = 0
            :: else
            fi;
#endif
            made - seen < ROOM
        fi;
        if
        :: unwoken >= batch -> wake(); unwoken = 0
        :: else
        fi
    :: else -> break
    od;
    if
    :: unwoken > 0 -> wake()
    :: else
    fi;
    goto over;
dead:
    atomic { published = published + unseen; unseen = 0; is_dead = 1 }
over:
    skip
}

active proctype reader()
{
    do
    :: seen == MESSAGES -> break
    :: seen < published -> seen++
    :: seen < MESSAGES && seen >= published ->
        in_buffer = 1;
#ifndef MUTANT_no_fence_w1
        fence_reader(); /* W1 */
#endif
        if
        :: seen >= published -> atomic { event -> event = 0 } /* epoll */
        :: seen < published
        fi;
        atomic { sleeping = 0; in_buffer = 0 }
    od
}

init
{
    if
    :: run publisher(1)
    :: run publisher(3)
    fi;
end:
    is_dead;
#ifndef MUTANT_no_reaper
#ifdef MUTANT_reaper_honours_sleeping
    atomic { if :: sleeping -> sleeping = 0; event = 1 :: else fi };
#else
    event = 1;
#endif
#endif
    run publisher(1)
}
