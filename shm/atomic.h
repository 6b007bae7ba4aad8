/*
 * atomic.h: the only ordered accesses to shared memory.
 *
 * Role:     every process. Nothing outside this file spells a memory order.
 * Context:  any thread, signal-safe.
 *
 * One implementation for every build: the compiler's __atomic builtins (C11 semantics). The code
 * that the thread sanitizer judges is then the code that ships, and a load-acquire is a plain load
 * on x86 and an LDAR on ARM, where a barrier macro has to be stronger than what was meant.
 *
 * Each use outside carries a label in a comment (T1, S2, C1 ...); ring.h, wake.h, inbox.h and
 * supervise.h list every label with its partner, so that a grep for a label shows both sides.
 */
#ifndef CRIER_SHM_ATOMIC_H
#define CRIER_SHM_ATOMIC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define atomic_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define atomic_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define atomic_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define atomic_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Full barrier on success, acquire on failure; true when `p` held `expected` and holds `v` now. */
#define atomic_cas_u64(p, expected, v)                                                             \
    __atomic_compare_exchange_n((p), &(uint64_t){(expected)}, (v), 0, __ATOMIC_SEQ_CST,            \
                                __ATOMIC_ACQUIRE)

#define atomic_cas_u32(p, expected, v)                                                             \
    __atomic_compare_exchange_n((p), &(uint32_t){(expected)}, (v), 0, __ATOMIC_SEQ_CST,            \
                                __ATOMIC_ACQUIRE)

/* Full barriers; each returns what `p` held before. */
#define atomic_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define atomic_fetch_sub(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST)
#define atomic_fetch_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define atomic_xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

/* For words with a single writer: readers see a whole value, no locked instruction is paid. */
#define atomic_bump(p, n) atomic_store_relaxed((p), atomic_load_relaxed(p) + (n))

#ifdef __SANITIZE_THREAD__
/* The sanitizer has no model of a fence that stands alone; a locked instruction is one as well. */
static inline void
atomic_fence(void)
{
    static uint32_t anchor;
    (void)__atomic_fetch_add(&anchor, 0, __ATOMIC_SEQ_CST);
}
#define atomic_fence_release() atomic_fence()
#define atomic_fence_acquire() atomic_fence()
#else
#define atomic_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define atomic_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
#define atomic_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#endif

/* Marks a function that reads bytes which another process may overwrite meanwhile; after
 * atomic_fence_acquire the caller checks whether that has happened (H2). The sanitizer would report
 * such a read, so it does not check these functions. */
#ifdef __SANITIZE_THREAD__
#define ATOMIC_UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define ATOMIC_UNWATCHED
#endif

/* Loaded once. */
ATOMIC_UNWATCHED static inline uint32_t
atomic_peek_u32(const uint32_t *p)
{
    return *(const volatile uint32_t *)p;
}

#ifdef __SANITIZE_THREAD__
ATOMIC_UNWATCHED static inline void
atomic_copy(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
}
#else
static inline void
atomic_copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}
#endif

static inline void
atomic_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
