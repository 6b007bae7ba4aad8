/*
 * stepper.h: goes through a child's code instruction by instruction, with ptrace(2).
 *
 * Role:     a test is the tracer, its child the victim, which has called PTRACE_TRACEME and stops
 *           itself with SIGSTOP before and behind the code in question.
 * Counts:   instructions of the program itself: shm/ as it is linked into the test, and its jumps
 *           into libraries. What lies in STEPPER_OWN_TEXT, in libraries and in the kernel is passed
 *           in between.
 */
#ifndef CRIER_TESTS_LIB_STEPPER_H
#define CRIER_TESTS_LIB_STEPPER_H

#include <elf.h>
#include <link.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "tests/lib/ring_rig.h"

/* A function of the test that runs while the victim is stepped. */
#define STEPPER_OWN_TEXT __attribute__((section("stepper_own_text"), noinline))

static inline int
stepper_wait(pid_t pid)
{
    int status;

    REQUIRE(waitpid(pid, &status, 0) == pid);
    return status;
}

extern const char __start_stepper_own_text[];
extern const char __stop_stepper_own_text[];

static uintptr_t stepper_text_begin;
static uintptr_t stepper_text_end;

static inline int
stepper_find_text(struct dl_phdr_info *info, size_t bytes, void *arg)
{
    (void)bytes;
    (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            stepper_text_begin = info->dlpi_addr + part->p_vaddr;
            stepper_text_end = stepper_text_begin + part->p_memsz;
        }
    }
    return 1; /* the first is the program */
}

static inline uintptr_t
stepper_pc(pid_t pid)
{
    struct user_regs_struct regs;
    struct iovec vector = {&regs, sizeof(regs)};

    REQUIRE(ptrace(PTRACE_GETREGSET, pid, (void *)(uintptr_t)NT_PRSTATUS, &vector) == 0);
#if defined(__x86_64__)
    return regs.rip;
#elif defined(__aarch64__)
    return regs.pc;
#else
#error "which register is the program counter?"
#endif
}

static inline bool
stepper_counts(uintptr_t pc)
{
    return pc >= stepper_text_begin && pc < stepper_text_end &&
           !(pc >= (uintptr_t)__start_stepper_own_text && pc < (uintptr_t)__stop_stepper_own_text);
}

/* To the next instruction that counts; false when the victim has stopped itself. */
static inline bool
stepper_step(pid_t pid)
{
    do {
        int status;
        REQUIRE(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        status = stepper_wait(pid);
        REQUIRE(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            return false;
        REQUIRE(WSTOPSIG(status) == SIGTRAP);
    } while (!stepper_counts(stepper_pc(pid)));
    return true;
}

#ifdef __x86_64__
static inline void
stepper_set_pc(pid_t pid, uintptr_t pc)
{
    struct user_regs_struct regs;

    REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
    regs.rip = pc;
    REQUIRE(ptrace(PTRACE_SETREGS, pid, NULL, &regs) == 0);
}

static inline void
stepper_write_text(pid_t pid, uintptr_t at, long word)
{
    REQUIRE(ptrace(PTRACE_POKETEXT, pid, (void *)at, (void *)word) == 0);
}

/* Goes on to `place`, where the victim is not now, past it `passes` times, and to it again. */
static inline void
stepper_break_at(pid_t pid, uintptr_t place, uint64_t passes)
{
    long word = ptrace(PTRACE_PEEKTEXT, pid, (void *)place, NULL);

    for (;;) {
        int status;
        stepper_write_text(pid, place, (word & ~0xffL) | 0xcc);
        REQUIRE(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
        status = stepper_wait(pid);
        REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        stepper_set_pc(pid, place);
        stepper_write_text(pid, place, word);
        if (passes-- == 0)
            return;
        REQUIRE(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        (void)stepper_wait(pid);
    }
}

static inline uint64_t
stepper_passes(const uintptr_t *trace, uint64_t at)
{
    uint64_t passes = 0;

    for (uint64_t i = 0; i < at; i++)
        passes += trace[i] == trace[at];
    return passes;
}

/* To trace[at], where `trace` is what stepper_step and stepper_pc have found in another run of the
 * same: with a breakpoint, which is met as often as the place was passed before. A string
 * instruction is passed once per word; into it, steps from the last place that is new are fewer. */
static inline void
stepper_run_to(pid_t pid, const uintptr_t *trace, uint64_t at)
{
    uint64_t passes = stepper_passes(trace, at);
    uint64_t near = at;

    while (passes > 0 && at - near < 4 * passes && stepper_passes(trace, near) > 0)
        near--; /* the first place has not been passed */
    if (at - near >= 4 * passes) {
        stepper_break_at(pid, trace[at], passes);
        return;
    }
    stepper_break_at(pid, trace[near], 0);
    for (; near < at; near++)
        REQUIRE(stepper_step(pid));
}
#else
static inline void
stepper_run_to(pid_t pid, const uintptr_t *trace, uint64_t at)
{
    (void)trace;
    for (uint64_t i = 0; i <= at; i++)
        (void)stepper_step(pid);
}
#endif

static inline void
stepper_init(void)
{
    (void)dl_iterate_phdr(stepper_find_text, NULL);
}

#endif
