/*
 * last_words.c: everything behind a signal is written with plain stores and functions that are safe
 * there (signal-safety(7)), but for backtrace(3), which is safe once it has been called before
 * (last_words_open does) and which comes last: if it fails, the words are there without the way.
 */
#include "worker/last_words.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/disposition.h"
#include "shm/log.h"

enum {
    LAST_WORDS_MODULES = 64,
    LAST_WORDS_NAME_BYTES = 32,
    LAST_WORDS_FRAMES = 24,
    LAST_WORDS_STEPS = 4,
    LAST_WORDS_STACK_BYTES = 64 * 1024,
};

/* The program or a library, as it is mapped. */
struct module {
    char name[LAST_WORDS_NAME_BYTES];
    uintptr_t base;
    uintptr_t begin;
    uintptr_t end;
};

static struct member_shm *me;
static pid_t self; /* a child that the application forks is not the member */
static uint32_t spoken;
static const char *volatile during;
static struct module modules[LAST_WORDS_MODULES];
static size_t module_count;
static const struct module *libc;
static int signals[DISPOSITION_SIGNALS_MAX];
static size_t signal_count;
static struct sigaction before[DISPOSITION_SIGNALS_MAX]; /* by place in `signals` */
static uint8_t stack[LAST_WORDS_STACK_BYTES];

void
last_words_during(const char *handler)
{
    during = handler;
}

/* --- writing; each appends what fits and leaves a NUL --- */

struct words {
    char *text;
    size_t used;
};

static void
words_add(struct words *words, const char *text)
{
    while (*text && words->used < LAST_WORDS_BYTES - 1)
        words->text[words->used++] = *text++;
    words->text[words->used] = '\0';
}

static void
words_add_number(struct words *words, uintptr_t number, unsigned radix)
{
    char digits[24];
    size_t at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[number % radix];
        number /= radix;
    } while (number);
    if (radix == 16)
        words_add(words, "0x");
    words_add(words, digits + at);
}

static const struct module *
module_of(uintptr_t address)
{
    for (size_t i = 0; i < module_count; i++) {
        if (address >= modules[i].begin && address < modules[i].end)
            return &modules[i];
    }
    return NULL;
}

static void
words_add_place(struct words *words, uintptr_t address)
{
    const struct module *module = module_of(address);

    if (module) {
        words_add(words, module->name);
        words_add(words, "+");
        address -= module->base;
    }
    words_add_number(words, address, 16);
}

static void
words_add_handler(struct words *words)
{
    const char *handler = during;

    if (!handler)
        return;
    words_add(words, "in the application's ");
    words_add(words, handler);
    words_add(words, " handler: ");
}

/* Return addresses lie behind the call: one less is in it. */
static void
words_add_way(struct words *words, uintptr_t from)
{
    void *frames[LAST_WORDS_FRAMES];
    int count = backtrace(frames, LAST_WORDS_FRAMES);
    int steps = 0;
    int i = 0;

    while (i < count && (uintptr_t)frames[i] != from)
        i++;
    for (i++; i < count && steps < LAST_WORDS_STEPS; i++) {
        const struct module *module = module_of((uintptr_t)frames[i]);
        if (!module || module == libc)
            continue;
        steps++;
        words_add(words, " < ");
        words_add_place(words, (uintptr_t)frames[i] - 1);
    }
}

/* --- speaking --- */

/* The words of this member, for the first thread that asks. */
static bool
last_words_begin(struct words *words)
{
    if (!me || getpid() != self || atomic_xchg(&spoken, 1U))
        return false;
    *words = (struct words){.text = me->last_words};
    words->text[0] = '\0';
    atomic_store_relaxed(&me->last_words_life, atomic_load_relaxed(&me->life));
    return true;
}

static uintptr_t
last_words_pc(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

/* The processor executes the instruction again that raised one of these, and raises it again. After
 * any other signal (sent by a process, a breakpoint, a system call that seccomp refuses) the program
 * would go on. */
static bool
last_words_comes_again(int signal, const siginfo_t *info)
{
    return info->si_code > 0 &&
           (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL);
}

/* The signal is raised again when the handler returns, with the disposition that was installed
 * before. */
static void
last_words_on_signal(int signal, siginfo_t *info, void *context)
{
    uintptr_t pc = last_words_pc(context);
    int saved = errno;
    struct words words;

    for (size_t i = 0; i < signal_count; i++) {
        if (signals[i] == signal)
            (void)sigaction(signal, &before[i], NULL);
    }
    if (last_words_begin(&words)) {
        words_add_handler(&words);
        if (info->si_code <= 0 && info->si_pid != self) {
            words_add(&words, "sent by process ");
            words_add_number(&words, (uintptr_t)info->si_pid, 10);
            words_add(&words, ", ");
        } else if (signal == SIGSEGV || signal == SIGBUS) {
            words_add(&words, "address ");
            words_add_number(&words, (uintptr_t)info->si_addr, 16);
            words_add(&words, " ");
        }
        words_add(&words, "at ");
        words_add_place(&words, pc);
        words_add_way(&words, pc);
    }
    if (!last_words_comes_again(signal, info))
        (void)raise(signal);
    errno = saved;
}

void
last_words_die(const char *format, ...)
{
    char text[LAST_WORDS_BYTES];
    struct words words;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (last_words_begin(&words)) {
        words_add_handler(&words);
        words_add(&words, text);
    }
    log_errorx("%s", text);
    log_finish();
    abort();
}

/* libc's name: assert(3) calls it, here and in the application. */
void
__assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
    last_words_die("%s:%u: %s: Assertion `%s' failed", file, line, function, assertion);
}

/* --- start --- */

static int
last_words_add_module(struct dl_phdr_info *info, size_t bytes, void *arg)
{
    const char *path = info->dlpi_name;
    const char *name = strrchr(path, '/');
    struct module *module = &modules[module_count];

    (void)bytes;
    (void)arg;
    if (module_count == LAST_WORDS_MODULES)
        return 1;
    name = *path ? name ? name + 1 : path : program_invocation_short_name;
    snprintf(module->name, sizeof(module->name), "%s", name);
    module->base = info->dlpi_addr;
    module->begin = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        if (part->p_type != PT_LOAD)
            continue;
        if (begin < module->begin)
            module->begin = begin;
        if (begin + part->p_memsz > module->end)
            module->end = begin + part->p_memsz;
    }
    module_count++;
    return 0;
}

void
last_words_open(struct member_shm *member)
{
    struct sigaction action = {.sa_sigaction = last_words_on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    stack_t old = {.ss_flags = SS_DISABLE};
    void *frame;

    me = member;
    self = getpid();
    (void)dl_iterate_phdr(last_words_add_module, NULL);
    libc = module_of((uintptr_t)abort);
    (void)backtrace(&frame, 1);
    (void)sigaltstack(NULL, &old);
    if (old.ss_flags & SS_DISABLE) /* a sanitizer's is kept */
        (void)sigaltstack(&alternate, NULL);
    sigfillset(&action.sa_mask);
    signal_count = disposition_list(DISPOSITION_WORKER, DISPOSITION_REPORT, signals);
    for (size_t i = 0; i < signal_count; i++)
        (void)sigaction(signals[i], &action, &before[i]);
}
