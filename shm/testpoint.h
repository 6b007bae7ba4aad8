/*
 * testpoint.h: named places where a test may stop, kill or delay a process.
 *
 * Role:     every process; compiled to nothing unless CRIER_TESTPOINTS is defined.
 * Context:  any thread.
 *
 * A point stands wherever a step has become visible to another process and the next one has not.
 * Adding one is one line in TESTPOINTS and one TESTPOINT(NAME) in the code.
 */
#ifndef CRIER_SHM_TESTPOINT_H
#define CRIER_SHM_TESTPOINT_H

#define TESTPOINTS(X)                                                                              \
    X(ARENA_FLOOR_RAISED)   /* floor_seq says gone, the bytes are still there */                   \
    X(PUBLISH_RECORD_READY) /* the record is whole, no slot names it */                            \
    X(PUBLISH_SLOT_SET)     /* published, tail not yet moved */                                    \
    X(PUBLISH_TAIL_MOVED)   /* published, no member was woken */                                   \
    X(PUBLISH_NEED_STORED)  /* asks for room, starving not yet set */                              \
    X(WAKE_TAKEN)           /* `sleeping` or a need taken, eventfd not yet written */              \
    X(NOBODY_WAITS)         /* no need was found, `starving` not yet 0 */                          \
    X(STARVING_CLEARED)     /* `starving` is 0, needs not yet looked at again */                   \
    X(NEED_FOUND)           /* a need was found after all, `starving` not yet 1 again */           \
    X(MINIMUM_TAKEN)        /* every cursor was read, the minimum is not yet used */               \
    X(JOIN_LOW_CURSOR)      /* first cursor stored, tail not read again */                         \
    X(CURSOR_STORED)        /* cursor moved, waiting publishers not yet woken */                   \
    X(HISTORY_IN_RANGE)     /* the sequence is not older than the slots, word not yet read */      \
    X(HISTORY_COPIED)       /* copied, not yet looked whether that was in time */                  \
    X(END_TAIL_READ)        /* an observer has read tail, and not yet its slot */

enum testpoint {
#define X(name) TESTPOINT_##name,
    TESTPOINTS(X)
#undef X
        TESTPOINT_COUNT
};

#ifdef CRIER_TESTPOINTS
extern void (*testpoint_hook)(enum testpoint point);
#define TESTPOINT(name)                                                                            \
    do {                                                                                           \
        if (testpoint_hook)                                                                        \
            testpoint_hook(TESTPOINT_##name);                                                      \
    } while (0)
#else
#define TESTPOINT(name) ((void)0)
#endif

#endif
