/*
 * crier_bench.c: crier-bench, which loads a WebSocket server, measures it, and checks what comes
 * back. Its threads do the work (bench_thread.h); this one starts the server when it is to, moves
 * the phases on, looks at the server before and after, and reports.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <netinet/in.h>

#include "shm/atomic.h"
#include "shm/util/output.h"
#include "shm/util/program.h"
#include "tools/bench_plot.h"
#include "tools/bench_report.h"
#include "worker/proto/handshake.h"

enum {
    DESCRIPTORS_MORE = 64, /* besides those of the clients */
    READY_MS = 10000,      /* until a command has to listen */
    READY_AGAIN_MS = 20,
    SETTLE_MS = 3000,
    SETTLE_AGAIN_MS = 100,
    STALL_NS = 10 * 1000000000ULL, /* without any client that gets connected */
    LOOK_NS = 10 * 1000000,        /* how often the end of DRAIN is looked for */
    SECOND_NS = 1000000000,
    TITLE_BYTES = 128,
};

struct bench {
    struct bench_options options;
    struct bench_run run;
    struct bench_child child;
    struct bench_result result;
    char *request;
    int signals; /* signalfd */
    bool progress;
    uint64_t progress_ns; /* when it is due again */
    struct bench_shown progress_shown;
};

/* --- before: functions return -1, or the exit code --- */

static int
prepare_descriptors(const struct bench *bench)
{
    struct rlimit limit;
    rlim_t needed = (rlim_t)bench->options.clients + DESCRIPTORS_MORE;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot read the limit of descriptors: %s",
                                      strerror(errno));
    if (limit.rlim_max < needed)
        return bench_options_complain(
            BENCH_EXIT_FAILED,
            "%" PRIu32 " clients need more descriptors than the hard limit of %" PRIu64
            " (ulimit -Hn) allows",
            bench->options.clients, (uint64_t)limit.rlim_max);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return bench_options_complain(BENCH_EXIT_FAILED,
                                      "cannot raise the limit of descriptors: %s", strerror(errno));
    return -1;
}

/* What all connections ask for. Each puts its own key in; whether the rest is right is found out by
 * being the server for once. */
static int
prepare_request(struct bench *bench)
{
    const struct bench_options *o = &bench->options;
    struct handshake_policy policy = {.origin = HANDSHAKE_ORIGIN_ANY};
    struct handshake_verdict verdict;
    struct http1_request request = {0};
    static const char key[] = "AAAAAAAAAAAAAAAAAAAAAA==";
    bool brackets = strchr(o->host, ':');
    int bytes;

    bytes = asprintf(&bench->request,
                     "GET %s HTTP/1.1\r\nHost: %s%s%s:%s\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "%s%s%sSec-WebSocket-Key: %s\r\n\r\n",
                     o->path, brackets ? "[" : "", o->host, brackets ? "]" : "", o->port,
                     o->subprotocol ? "Sec-WebSocket-Protocol: " : "",
                     o->subprotocol ? o->subprotocol : "", o->subprotocol ? "\r\n" : "", key);
    if (bytes < 0)
        return bench_options_complain(BENCH_EXIT_FAILED, "no memory");
    if (http1_parse(bench->request, (size_t)bytes, &request) != HTTP1_OK)
        return bench_options_complain(
            BENCH_EXIT_FAILED, "'%.80s' is no path to ask for: %s", o->path,
            request.fail_sentence ? request.fail_sentence : "it is too long");
    handshake_check(&request, &policy, &verdict);
    if (verdict.status != 101)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot make a handshake: %s",
                                      verdict.sentence);
    bench->run.wire.request = bench->request;
    bench->run.wire.request_bytes = (size_t)bytes;
    bench->run.wire.key_off = (size_t)bytes - strlen(key) - strlen("\r\n\r\n");
    return -1;
}

static int
prepare_wire(struct bench *bench)
{
    const struct bench_options *o = &bench->options;
    struct bench_wire *wire = &bench->run.wire;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&o->address;

    wire->address = o->address;
    wire->address_bytes = o->address_bytes;
    wire->many_sources =
        v4->sin_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    wire->binary = o->binary || o->mqtt;
    wire->mqtt = o->mqtt;
    wire->size_bytes = o->size_bytes;
    return prepare_request(bench);
}

/* All signals that end a program nicely are read, by this thread. */
static int
prepare_signals(struct bench *bench)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    bench->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return bench->signals >= 0
               ? -1
               : bench_options_complain(BENCH_EXIT_FAILED, "signalfd: %s", strerror(errno));
}

/* Does a server listen there? 0 or -errno. */
static int
probe(const struct bench *bench)
{
    const struct bench_wire *wire = &bench->run.wire;
    int fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = 0;

    if (fd < 0 || connect(fd, (const struct sockaddr *)&wire->address, wire->address_bytes) != 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* A server that has just begun to listen goes on preparing itself: until its memory stays as it is. */
static void
await_settled(struct bench *bench)
{
    struct pollfd signals = {.fd = bench->signals, .events = POLLIN};
    struct bench_usage *now = &bench->result.before;
    struct bench_usage last;

    for (int ms = 0; ms < SETTLE_MS; ms += SETTLE_AGAIN_MS) {
        last = *now;
        if (poll(&signals, 1, SETTLE_AGAIN_MS) > 0)
            return; /* the run will find that out */
        bench_process_usage(now, bench->result.pid, true);
        if (now->processes == last.processes && now->pss_bytes == last.pss_bytes)
            return;
    }
}

static int
start_server(struct bench *bench)
{
    struct pollfd signals = {.fd = bench->signals, .events = POLLIN};
    char **command = bench->options.command;
    int rc =
        command ? bench_process_start(&bench->child, command, bench->options.publish_stdin) : 0;

    if (rc)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot start %.200s: %s", command[0],
                                      strerror(-rc));
    for (int ms = 0; (rc = probe(bench)) != 0 && command && ms < READY_MS; ms += READY_AGAIN_MS) {
        if (bench_process_ended(&bench->child))
            return bench_options_complain(
                BENCH_EXIT_FAILED, "%.200s ended before anything could connect to it", command[0]);
        if (poll(&signals, 1, READY_AGAIN_MS) > 0)
            return bench_options_complain(BENCH_EXIT_FAILED, "interrupted");
    }
    if (rc)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot connect to %s port %s: %s",
                                      bench->options.host, bench->options.port, strerror(-rc));
    bench->result.pid = bench->options.pid ? bench->options.pid : bench->child.pid;
    bench_process_usage(&bench->result.before, bench->result.pid, true);
    if (command)
        await_settled(bench);
    if (bench->result.pid && bench->result.before.processes == 0)
        return bench_options_complain(BENCH_EXIT_FAILED, "there is no process %d",
                                      (int)bench->result.pid);
    return -1;
}

/* --- the run --- */

static void
show_progress(struct bench *bench, uint64_t now_ns)
{
    struct bench_shown sum;
    const struct bench_shown *last = &bench->progress_shown;

    if (!bench->progress || now_ns < bench->progress_ns)
        return;
    bench_thread_sum(&bench->run, &sum);
    fprintf(stderr,
            "%s: %3.0f s: %" PRIu64 " connected, %" PRIu64 " sent, %" PRIu64 " received (%" PRIu64
            "/s)\n",
            program_name(), (double)(now_ns - bench->run.connect_ns) / 1e9,
            bench->options.mode == BENCH_STORM ? sum.opened : sum.open, sum.sent, sum.received,
            sum.received - last->received);
    bench->progress_shown = sum;
    bench->progress_ns = now_ns + SECOND_NS;
}

/* Until then at the longest, or a thread or a signal has something to say. -1, or the exit code. */
static int
wait_until(struct bench *bench, uint64_t end_ns)
{
    struct pollfd fds[] = {{.fd = bench->signals, .events = POLLIN},
                           {.fd = bench->run.tell, .events = POLLIN}};
    uint64_t now_ns = bench_loop_clock_ns();
    struct timespec timeout = {0};
    const struct bench_thread *failed;
    struct signalfd_siginfo ignored;

    show_progress(bench, now_ns);
    if (bench->progress && bench->progress_ns < end_ns)
        end_ns = bench->progress_ns;
    if (end_ns > now_ns) {
        timeout.tv_sec = (time_t)((end_ns - now_ns) / SECOND_NS);
        timeout.tv_nsec = (long)((end_ns - now_ns) % SECOND_NS);
    }
    if (ppoll(fds, 2, &timeout, NULL) > 0) {
        if (fds[0].revents && read(bench->signals, &ignored, sizeof(ignored)) > 0)
            bench->result.interrupted = true;
        if (fds[1].revents && read(bench->run.tell, &ignored, sizeof(uint64_t)) < 0)
            return bench_options_complain(BENCH_EXIT_FAILED, "eventfd: %s", strerror(errno));
    }
    failed = bench_thread_failed(&bench->run);
    return failed ? bench_options_complain(BENCH_EXIT_FAILED, "%s", failed->why) : -1;
}

static int
run_connect(struct bench *bench)
{
    struct bench_shown sum = {0};
    uint64_t moved_ns = bench->run.connect_ns;
    uint64_t opened = 0;
    int code = -1;

    while (bench->options.mode != BENCH_STORM && code < 0 && opened < bench->options.clients) {
        uint64_t stall_ns = moved_ns + STALL_NS;

        if (bench->options.connect_rate > 0)
            stall_ns += (uint64_t)(1e9 / bench->options.connect_rate);
        code = wait_until(bench, bench_loop_clock_ns() + LOOK_NS);
        bench_thread_sum(&bench->run, &sum);
        if (code < 0 && bench->result.interrupted)
            return bench_options_complain(BENCH_EXIT_FAILED,
                                          "interrupted when %" PRIu64 " of %" PRIu32
                                          " clients were connected",
                                          sum.opened, bench->options.clients);
        if (sum.opened != opened)
            moved_ns = bench_loop_clock_ns();
        else if (code < 0 && bench_loop_clock_ns() > stall_ns)
            return bench_options_complain(BENCH_EXIT_FAILED,
                                          "%" PRIu64 " of %" PRIu32
                                          " clients were connected, and then no more",
                                          sum.opened, bench->options.clients);
        opened = sum.opened;
    }
    bench->result.connect_ns = bench_loop_clock_ns() - bench->run.connect_ns;
    return code;
}

/* When all were disconnected there is nothing left to wait for. */
static bool
clients_are_left(const struct bench *bench)
{
    struct bench_shown sum;

    bench_thread_sum(&bench->run, &sum);
    return bench->options.mode == BENCH_STORM || sum.open > 0;
}

static int
run_measure(struct bench *bench)
{
    struct bench_run *run = &bench->run;
    uint64_t end_ns;
    int code = -1;

    bench_process_usage(&bench->result.begin, bench->result.pid, false);
    run->start_ns = bench_loop_clock_ns();
    end_ns = run->start_ns + bench->options.duration_ns;
    atomic_store_relaxed(&run->end_ns, end_ns); /* the phase publishes it */
    bench_thread_set_phase(run, BENCH_MEASURE);
    while (code < 0 && !bench->result.interrupted && bench_loop_clock_ns() < end_ns &&
           !bench_thread_publisher_lost(run) && clients_are_left(bench))
        code = wait_until(bench, end_ns);
    if (bench_loop_clock_ns() < end_ns)
        atomic_store_relaxed(&run->end_ns, bench_loop_clock_ns()); /* a hint; DRAIN ends it too */
    bench_thread_set_phase(run, BENCH_DRAIN);
    end_ns = bench_loop_clock_ns() + bench->options.drain_ns;
    while (code < 0 && !bench_thread_publisher_lost(run) && !bench_thread_drained(run) &&
           bench_loop_clock_ns() < end_ns)
        code = wait_until(bench, bench_loop_clock_ns() + LOOK_NS);
    bench->result.elapsed_ns = bench_loop_clock_ns() - run->start_ns;
    bench_process_usage(&bench->result.end, bench->result.pid, true);
    return code;
}

static int
run_all(struct bench *bench)
{
    struct bench_run *run = &bench->run;
    int code;
    int rc;

    run->options = &bench->options;
    run->thread_count = bench->options.threads;
    bench->result.run = run;
    run->threads =
        aligned_alloc(_Alignof(struct bench_thread), run->thread_count * sizeof(*run->threads));
    if (!run->threads)
        return bench_options_complain(BENCH_EXIT_FAILED, "no memory");
    memset(run->threads, 0, run->thread_count * sizeof(*run->threads));
    rc = bench_thread_start_all(run, bench->child.input);
    if (rc)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot start: %s", strerror(-rc));
    bench->progress_ns = run->connect_ns + SECOND_NS;
    code = run_connect(bench);
    if (code < 0)
        code = run_measure(bench);
    bench_thread_set_phase(run, BENCH_END);
    bench_thread_join_all(run, &bench->result.tally);
    return code;
}

static int
report(const struct bench *bench)
{
    const struct bench_options *o = &bench->options;
    const struct bench_tally *tally = &bench->result.tally;
    char title[TITLE_BYTES];
    bool good = true;

    (o->json ? bench_report_json : bench_report_text)(stdout, &bench->result);
    snprintf(title, sizeof(title), "crier-bench: %s, %" PRIu32 " clients", bench_mode_name(o->mode),
             o->clients);
    if (o->plot)
        good = bench_plot_draw(o->plot, title, &tally->latency);
    if (fflush(stdout) != 0)
        return bench_options_complain(BENCH_EXIT_FAILED, "cannot write the report: %s",
                                      strerror(errno));
    if (bench_thread_publisher_lost(&bench->run))
        bench_options_complain(BENCH_EXIT_FAULTS,
                               "it ended after %.2f s, because a publisher was disconnected; %s",
                               (double)bench->result.elapsed_ns / 1e9, bench->run.threads[0].why);
    if (bench_report_has_faults(tally))
        return BENCH_EXIT_FAULTS;
    return good ? EXIT_SUCCESS : BENCH_EXIT_FAILED;
}

static int
bench_main(int argc, char **argv)
{
    static struct bench bench = {.child.input = -1};
    int code = bench_options_parse(&bench.options, argc, argv);

    if (code >= 0)
        return code;
    bench.progress = bench.options.progress || isatty(STDERR_FILENO);
    if (bench.options.plot && !bench_plot_possible())
        return BENCH_EXIT_FAILED;
    code = prepare_descriptors(&bench);
    if (code < 0)
        code = prepare_wire(&bench);
    if (code < 0)
        code = prepare_signals(&bench);
    if (code < 0)
        code = start_server(&bench);
    if (code < 0)
        code = run_all(&bench);
    if (code < 0)
        code = report(&bench);
    if (bench.run.threads)
        bench_thread_fini_all(&bench.run);
    bench_process_stop(&bench.child);
    free(bench.run.threads);
    free(bench.request);
    bench_options_fini(&bench.options);
    return code;
}

int
main(int argc, char **argv)
{
    int code;

    program_open(argv, "crier-bench");
    code = output_begin() == 0 ? bench_main(argc, argv) : BENCH_EXIT_FAILED;
    return output_end() == 0 || code ? code : BENCH_EXIT_FAILED;
}
