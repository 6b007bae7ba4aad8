/*
 * probe_app.c: an application against api/crier.h alone, whose handlers do what its options say.
 * tests/e2e/test_application.py runs it.
 *
 * A handler that is told to close or to fail does only that. Whatever it says names the client by
 * its address, so that a test knows which client it is about.
 */
#include "worker/api/crier.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_BYTES = 256, WORK_MS = 700, COMPUTE_US = 500, HUGE_BYTES = 16 * 1024 * 1024 };

static const struct crier_option options[] = {
    {"on-connect", "accept|close|fail|send|broadcast|broadcast-others", "accept",
     "what the connect handler does; close: with 1008 'go away'", NULL},
    {"on-message", "echo|echo-close|close|fail|broadcast-others|huge|obey", "echo",
     "what the message handler does; fail: when the message is 'fail', else as echo; huge: sends "
     "16 MiB, or says that this is too much; obey: see orders in this file, else as echo",
     NULL},
    {"on-disconnect", "nothing|tell|compute", "nothing",
     "tell: broadcasts which client left and the code; compute: for half a millisecond", NULL},
    {"close-code", "CODE", "4321", "what the message handler closes with", NULL},
    {"fail-start", "nowhere|master|worker", "nowhere", "where the start handler fails", NULL},
    {"fail-worker", "N", NULL, "the start handler fails in this worker", NULL},
    {"start-behind", "FIFO", NULL,
     "a worker that finds this named pipe starts when it has been opened and closed for writing; "
     "FIFO.N is for worker N alone",
     NULL},
    {"in-master", "nothing|thread|fork|chdir|ignore-chld|handle-usr1", "nothing",
     "what the master's start handler does: starts a thread, or a child, that only waits; changes "
     "to another directory; ignores SIGCHLD; writes a line to stderr for each SIGUSR1",
     NULL},
    {"master-start-behind", "FIFO", NULL, "as start-behind, in the master", NULL},
    {"master-stop-behind", "FIFO", NULL, "the same in the master's stop handler", NULL},
};

static unsigned close_code;
static int is_worker;

static int
option_is(const char *name, const char *word)
{
    const char *value = crier_option_get(name);

    return value && strcmp(value, word) == 0;
}

/* The server has no function for this, and names the process for `ps`. */
static unsigned
worker_number(void)
{
    char name[32] = "";
    unsigned number = 0;

    prctl(PR_GET_NAME, name);
    (void)sscanf(name, "crier-worker %u", &number);
    return number;
}

/* Blocks the worker as a start handler does that loads something large. */
static int
wait_behind(const char *fifo)
{
    char own[TEXT_BYTES];
    char byte;
    int fd;

    snprintf(own, sizeof(own), "%s.%u", fifo, worker_number());
    fd = open(own, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        fd = open(fifo, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    while (read(fd, &byte, 1) > 0)
        ;
    close(fd);
    return 0;
}

static void *
wait_for_ever(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static void
on_usr1(int number)
{
    static const char line[] = "probe: USR1\n";

    (void)number;
    if (write(STDERR_FILENO, line, sizeof(line) - 1) < 0)
        abort();
}

static int
start_master(void)
{
    const char *fifo = crier_option_get("master-start-behind");
    pthread_t thread;

    if (option_is("in-master", "thread") && pthread_create(&thread, NULL, wait_for_ever, NULL) != 0)
        return -EAGAIN;
    if (option_is("in-master", "fork") && fork() == 0)
        wait_for_ever(NULL);
    if (option_is("in-master", "chdir") && chdir("/") != 0)
        return -errno;
    if (option_is("in-master", "ignore-chld"))
        signal(SIGCHLD, SIG_IGN);
    if (option_is("in-master", "handle-usr1"))
        signal(SIGUSR1, on_usr1);
    return fifo ? wait_behind(fifo) : 0;
}

static int
start(enum crier_role role)
{
    const char *code = crier_option_get("close-code");
    const char *fifo = crier_option_get("start-behind");
    const char *fail = crier_option_get("fail-worker");

    close_code = code ? (unsigned)strtoul(code, NULL, 10) : 0;
    if (close_code < 3000 || close_code > 4999) {
        (void)crier_option_refuse("close-code", "wants 3000 to 4999");
        return -EINVAL;
    }
    if (option_is("fail-start", role == CRIER_MASTER ? "master" : "worker") ||
        (role == CRIER_WORKER && fail && strtoul(fail, NULL, 10) == worker_number()))
        return -ECANCELED;
    if (role == CRIER_MASTER)
        return start_master();
    is_worker = 1;
    return fifo ? wait_behind(fifo) : 0;
}

static void
stop(enum crier_role role)
{
    const char *fifo = crier_option_get("master-stop-behind");

    if (role == CRIER_MASTER && fifo)
        (void)wait_behind(fifo);
}

static int
connected(struct crier_client *client)
{
    char text[TEXT_BYTES];
    size_t bytes =
        (size_t)snprintf(text, sizeof(text), "%s is number %llu", crier_client_address(client),
                         (unsigned long long)crier_client_count());

    if (option_is("on-connect", "close"))
        return crier_close(client, 1008, "go away");
    if (option_is("on-connect", "fail"))
        return -ECANCELED;
    if (option_is("on-connect", "send"))
        return crier_send(client, CRIER_TEXT, text, bytes);
    if (option_is("on-connect", "broadcast"))
        return crier_broadcast(CRIER_TEXT, text, bytes);
    if (option_is("on-connect", "broadcast-others"))
        return crier_broadcast_others(client, CRIER_TEXT, text, bytes);
    return 0;
}

/* --- orders --- */

static int *volatile nowhere = (int *)16;

static void
order_segv(void)
{
    *nowhere = 1;
}

/* As deep as nothing goes, but the compiler does not know. */
static volatile int depth = INT_MAX;

static int
order_overflow(int at)
{
    volatile char room[4096];

    room[0] = (char)at;
    return at < depth ? order_overflow(at + 1) + room[0] : 0;
}

static void
order_recurse(void)
{
    depth = order_overflow(0);
}

static void
order_assert(void)
{
    int sheep = 0;

    assert(sheep == 1 && "counting");
}

/* Computes on and on; a result that is not used would be optimized away. */
static volatile unsigned computed;

static void
order_spin(void)
{
    for (;;)
        computed++;
}

static void
order_work(void)
{
    struct timespec now;
    time_t end;

    clock_gettime(CLOCK_MONOTONIC, &now);
    end = now.tv_sec * 1000 + now.tv_nsec / 1000000 + WORK_MS;
    do {
        computed++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < end);
}

/* So much of the CPU's time, however busy the machine is. */
static void
compute_us(long us)
{
    struct timespec now;
    int64_t end;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    end = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + us * 1000;
    do {
        computed++;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while (now.tv_sec * INT64_C(1000000000) + now.tv_nsec < end);
}

static void
order_abort(void)
{
    abort();
}

static void
order_exit(void)
{
    exit(9);
}

static void
order_trap(void)
{
#if defined(__x86_64__)
    __asm__ volatile("int3");
#elif defined(__aarch64__)
    __asm__ volatile("brk #0");
#else
    raise(SIGTRAP);
#endif
}

static void
order_fork_wait(void)
{
    if (fork() == 0)
        wait_for_ever(NULL);
}

static void
order_fork_abort(void)
{
    pid_t child = fork();

    if (child == 0)
        abort();
    waitpid(child, NULL, 0);
}

static const struct order {
    const char *word;
    void (*obey)(void);
} orders[] = {
    {"segv", order_segv},
    {"assert", order_assert},
    {"abort", order_abort},
    {"exit", order_exit},
    {"recurse", order_recurse},
    {"spin", order_spin},
    {"fork-abort", order_fork_abort},
    {"fork-wait", order_fork_wait},
    {"trap", order_trap},
    {"work", order_work},
};

static void
obey(const struct crier_message *message)
{
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        if (message->bytes == strlen(orders[i].word) &&
            memcmp(message->data, orders[i].word, message->bytes) == 0)
            orders[i].obey();
    }
}

static int
send_huge(struct crier_client *client)
{
    void *data = calloc(1, HUGE_BYTES);
    int rc = data ? crier_send(client, CRIER_BINARY, data, HUGE_BYTES) : -ENOMEM;

    free(data);
    return rc == -EMSGSIZE ? crier_send(client, CRIER_TEXT, "too much", 8) : rc;
}

static int
received(struct crier_client *client, const struct crier_message *message)
{
    int rc;

    if (option_is("on-message", "obey"))
        obey(message);
    if (option_is("on-message", "close"))
        return crier_close(client, close_code, "enough");
    if (option_is("on-message", "fail") && message->bytes == 4 &&
        memcmp(message->data, "fail", 4) == 0)
        return -ECANCELED;
    if (option_is("on-message", "broadcast-others"))
        return crier_broadcast_others(client, message->type, message->data, message->bytes);
    if (option_is("on-message", "huge"))
        return send_huge(client);
    rc = crier_send(client, message->type, message->data, message->bytes);
    return rc == 0 && option_is("on-message", "echo-close")
               ? crier_close(client, close_code, "enough")
               : rc;
}

static int
disconnected(struct crier_client *client, unsigned code)
{
    char text[TEXT_BYTES];
    int bytes = snprintf(text, sizeof(text), "%s left with %u", crier_client_address(client), code);

    if (option_is("on-disconnect", "compute"))
        compute_us(COMPUTE_US);
    return option_is("on-disconnect", "tell") ? crier_broadcast(CRIER_TEXT, text, (size_t)bytes)
                                              : 0;
}

static const struct crier_app app = {
    .name = "probe",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .start = start,
    .connect = connected,
    .message = received,
    .disconnect = disconnected,
    .stop = stop,
};

/* PROBE_AFTER_RUN=FIFO in the environment: the master waits as start-behind does before it returns
 * the status of crier_run. PROBE_BEFORE_RUN: leaves crier_run a process that blocks and ignores all
 * signals, but has handlers for two of them. */
static void
spoil_signals(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    signal(SIGTERM, on_usr1);
    signal(SIGUSR1, on_usr1);
}

int
main(int argc, char **argv)
{
    const char *fifo = getenv("PROBE_AFTER_RUN");
    int status;

    if (getenv("PROBE_BEFORE_RUN"))
        spoil_signals();
    status = crier_run(argc, argv, &app);
    if (fifo && !is_worker)
        (void)wait_behind(fifo);
    return status;
}
