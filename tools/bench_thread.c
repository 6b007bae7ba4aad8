/*
 * The life of a thread: it connects its clients, then waits on epoll and lets each client do what
 * it can, then sends what may be sent, then shows the others where it is. Few events are taken at a
 * time, so that what is due is not late by a sweep over all clients.
 */
#include "tools/bench_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "tools/bench_sender.h"

enum {
    EVENTS = 64,
    OPENING_AT_ONCE = 64, /* what a server's backlog surely takes */
};

static void
kick(int event)
{
    uint64_t one = 1;

    if (write(event, &one, sizeof(one)) < 0 && errno != EAGAIN)
        abort(); /* an eventfd takes this as long as it is open */
}

/* --- phases --- */

/* CPU time of this thread, and how long it waited for a CPU (0 where the kernel does not say). */
static void
thread_clock(uint64_t *cpu_ns, uint64_t *delay_ns)
{
    struct timespec cpu;
    char text[128];
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;

    text[bytes > 0 ? bytes : 0] = '\0';
    *delay_ns = strchr(text, ' ') ? strtoull(strchr(text, ' '), NULL, 10) : 0;
    if (fd >= 0)
        close(fd);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    *cpu_ns = (uint64_t)cpu.tv_sec * 1000000000U + (uint64_t)cpu.tv_nsec;
}

static void
thread_look_at_phase(struct bench_thread *thread)
{
    enum bench_phase phase = (enum bench_phase)atomic_load_acquire(&thread->run->phase); /* P2 */
    uint64_t cpu_ns;
    uint64_t delay_ns;

    if (phase == thread->phase)
        return;
    thread_clock(&cpu_ns, &delay_ns);
    if (thread->phase == BENCH_CONNECT) {
        thread->cpu_begin_ns = cpu_ns;
        thread->delay_begin_ns = delay_ns;
    }
    if (phase == BENCH_END) {
        thread->cpu_ns = cpu_ns - thread->cpu_begin_ns;
        thread->delay_ns = delay_ns - thread->delay_begin_ns;
    }
    thread->phase = phase;
}

/* --- what the clients tell --- */

static struct bench_thread *
thread_of(struct bench_loop *loop)
{
    return (struct bench_thread *)loop; /* its first member */
}

static void
thread_say_why(struct bench_thread *thread, uint32_t client, const char *why)
{
    if (!thread->why[0])
        snprintf(thread->why, sizeof(thread->why), "client %" PRIu32 ": %s",
                 thread->client_first + client, why);
}

static void
thread_fail(struct bench_thread *thread)
{
    atomic_store_release(&thread->shown.failed, 1); /* F1 */
    kick(thread->run->tell);
}

static void
on_opened(struct bench_loop *loop, struct bench_client *client)
{
    struct bench_thread *thread = thread_of(loop);

    bench_histogram_add(&thread->tally.opening, loop->now_ns - client->begun_ns);
    thread->opening--;
    atomic_bump(&thread->shown.opened, 1);
    if (thread->run->options->mode == BENCH_STORM)
        bench_client_close(loop, client);
    else
        atomic_bump(&thread->shown.open, 1);
}

static void
on_cycle_over(struct bench_thread *thread, struct bench_client *client, bool whole, const char *why)
{
    uint32_t number = (uint32_t)(client - thread->clients);

    if (thread->free_count == 0)
        thread->free_ns = bench_loop_clock_ns();
    thread->free[thread->free_count++] = number;
    if (whole) {
        thread->tally.cycles++;
        bench_histogram_add(&thread->tally.latency, bench_loop_clock_ns() - client->begun_ns);
        return;
    }
    thread->tally.refused++;
    thread_say_why(thread, number, why);
    if (thread->tally.cycles == 0)
        thread_fail(thread);
}

static bool
is_publisher(const struct bench_thread *thread, const struct bench_client *client)
{
    return thread->run->options->mode == BENCH_BROADCAST && client >= thread->senders &&
           client < thread->senders + thread->sender_count;
}

/* What it was still to receive settles nothing any more, for no client. */
static void
on_disconnected(struct bench_thread *thread, struct bench_client *client, const char *why)
{
    thread->tally.disconnected++;
    if (is_publisher(thread, client) && !thread->shown.publisher_lost) {
        thread->why[0] = '\0'; /* of all that happened this is what ends the run */
        atomic_store_relaxed(&thread->shown.publisher_lost, 1);
    }
    thread_say_why(thread, (uint32_t)(client - thread->clients), why);
    atomic_bump(&thread->shown.open, -UINT64_C(1));
    atomic_bump(&thread->shown.settled, -client->settled);
    if (thread->run->options->mode == BENCH_ECHO)
        atomic_bump(&thread->shown.echoes, -(uint64_t)client->sent);
    kick(thread->run->threads[0].wake);
    kick(thread->run->tell);
}

static void
on_closed(struct bench_loop *loop, struct bench_client *client, enum bench_client_state was,
          const char *why)
{
    struct bench_thread *thread = thread_of(loop);
    bool opened = was == BENCH_CLIENT_OPEN || was == BENCH_CLIENT_CLOSING;

    if (!opened)
        thread->opening--;
    if (client->pipe) {
        snprintf(thread->why, sizeof(thread->why), "the command: %s", why);
        thread_fail(thread);
    } else if (thread->run->options->mode == BENCH_STORM) {
        on_cycle_over(thread, client, client->heard_close, why);
    } else if (thread->phase == BENCH_CONNECT) {
        thread_say_why(thread, (uint32_t)(client - thread->clients), why);
        thread_fail(thread);
    } else {
        on_disconnected(thread, client, why);
    }
}

/* All clients that receive the same messages in the same order have the same hash. */
static void
order_note(struct bench_client *client, const struct bench_stamp *stamp)
{
    uint64_t word = (uint64_t)stamp->id << 32 | stamp->seq;

    client->order = (client->order ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    client->order ^= client->order >> 29;
}

/* The track of the publisher, or NULL: the client should not have received this. */
static struct bench_track *
track_of(struct bench_thread *thread, const struct bench_client *client,
         const struct bench_stamp *stamp)
{
    uint32_t number = (uint32_t)(client - thread->clients);
    uint16_t own = (uint16_t)((thread->client_first + number) % BENCH_STAMP_IDS);

    if (thread->run->options->mode == BENCH_ECHO)
        return stamp->id == own ? &thread->tracks[number] : NULL;
    return stamp->id < thread->tracks_each
               ? &thread->tracks[(size_t)number * thread->tracks_each + stamp->id]
               : NULL;
}

/* Of each message once in a thread: the lock is seldom waited for. */
static void
note_audience(struct bench_thread *thread, const struct bench_stamp *stamp, uint64_t since_ns)
{
    struct bench_run *run = thread->run;
    uint64_t number = (uint64_t)stamp->seq * thread->tracks_each + stamp->id;
    uint64_t last_ns = bench_audience_note(&thread->audience, number, since_ns);

    if (last_ns > 0) {
        pthread_mutex_lock(&run->audience_lock);
        last_ns = bench_audience_note(&run->audience, number, last_ns);
        pthread_mutex_unlock(&run->audience_lock);
    }
    if (last_ns > 0)
        bench_histogram_add(&thread->tally.last, last_ns - stamp->due_ns);
}

static void
on_message(struct bench_loop *loop, struct bench_client *client, enum bench_verdict verdict)
{
    struct bench_thread *thread = thread_of(loop);
    const struct bench_stamp *stamp = &client->reader.stamp;
    uint64_t duplicates = thread->tally.faults.duplicates;
    struct bench_track *track = NULL;
    uint64_t since_ns;
    uint32_t before;

    if (thread->phase == BENCH_CONNECT) /* its sender may have seen the next one earlier */
        thread_look_at_phase(thread);
    since_ns = loop->now_ns - thread->run->start_ns;
    if (verdict == BENCH_GOOD && thread->phase != BENCH_CONNECT && stamp->due_ns <= since_ns)
        track = track_of(thread, client, stamp);
    if (!track) {
        *(verdict == BENCH_FOREIGN ? &thread->tally.foreign : &thread->tally.corrupt) += 1;
        return;
    }
    before = track->next;
    bench_track_note(track, stamp->seq, &thread->tally.faults);
    client->settled += track->next - before;
    atomic_bump(&thread->shown.settled, track->next - before);
    if (thread->tally.faults.duplicates != duplicates)
        return;
    thread->tally.received++;
    client->received++;
    order_note(client, stamp);
    bench_histogram_add(&thread->tally.latency, since_ns - stamp->due_ns);
    if (thread->run->options->mode == BENCH_BROADCAST)
        note_audience(thread, stamp, since_ns);
}

static const struct bench_client_handlers thread_handlers = {
    .opened = on_opened,
    .message = on_message,
    .closed = on_closed,
};

/* --- connecting --- */

/* Connections take turns among threads, as messages do among senders. */
static uint64_t
attempt_due_ns(const struct bench_thread *thread, uint64_t begin_ns)
{
    const struct bench_run *run = thread->run;
    uint64_t number = (uint64_t)thread->started * run->thread_count + thread->index;

    return begin_ns + (uint64_t)((double)number * (1e9 / run->options->connect_rate));
}

static void
attempt(struct bench_thread *thread, struct bench_client *client, uint64_t due_ns)
{
    int rc;

    client->begun_ns = due_ns;
    thread->opening++;
    rc = bench_client_connect(&thread->loop, client);
    if (rc)
        on_closed(&thread->loop, client, BENCH_CLIENT_CONNECTING,
                  rc == -EADDRNOTAVAIL ? "no local port is left (net.ipv4.ip_local_port_range)"
                                       : strerror(-rc));
}

/* Nanoseconds until the next is due, or UINT64_MAX: it waits for another one. */
static uint64_t
connect_turn(struct bench_thread *thread)
{
    uint64_t now_ns = bench_loop_clock_ns();
    bool paced = thread->run->options->connect_rate > 0;

    while (thread->started < thread->client_count && thread->opening < OPENING_AT_ONCE &&
           !thread->shown.failed) {
        uint64_t due_ns = paced ? attempt_due_ns(thread, thread->run->connect_ns) : now_ns;
        uint32_t i = thread->started;

        if (due_ns > now_ns)
            return due_ns - now_ns;
        thread->started++;
        attempt(thread, &thread->clients[i], due_ns);
        now_ns = bench_loop_clock_ns();
    }
    return UINT64_MAX;
}

static uint64_t
storm_turn(struct bench_thread *thread)
{
    bool paced = thread->run->options->connect_rate > 0;
    uint64_t now_ns = bench_loop_clock_ns();
    uint64_t end_ns = atomic_load_relaxed(&thread->run->end_ns); /* a hint, as with messages */

    if (thread->phase != BENCH_MEASURE)
        return UINT64_MAX;
    for (uint32_t i = 0; i < EVENTS && thread->free_count > 0 && !thread->shown.failed; i++) {
        uint64_t due_ns = paced ? attempt_due_ns(thread, thread->run->start_ns) : now_ns;

        if (due_ns >= end_ns)
            return UINT64_MAX;
        if (due_ns > now_ns)
            return due_ns - now_ns;
        if (paced && due_ns >= thread->free_ns) /* or it is the server that is late */
            bench_histogram_add(&thread->tally.late, now_ns - due_ns);
        thread->started++;
        attempt(thread, &thread->clients[thread->free[--thread->free_count]], due_ns);
        now_ns = bench_loop_clock_ns();
    }
    return thread->free_count > 0 ? 0 : UINT64_MAX;
}

/* --- the thread --- */

static void
thread_show(struct bench_thread *thread)
{
    struct bench_shown *shown = &thread->shown;
    bool storm = thread->run->options->mode == BENCH_STORM;

    atomic_store_relaxed(&shown->sent, thread->tally.sent);
    atomic_store_relaxed(&shown->received, storm ? thread->tally.cycles : thread->tally.received);
    if (thread->phase == BENCH_DRAIN)
        atomic_store_relaxed(&shown->idle, storm ? thread->free_count == thread->client_count
                                                 : bench_sender_idle(thread));
    bench_sender_tell(thread);
}

/* To the nanosecond where the kernel can (Linux 5.11), otherwise up to a millisecond too long. */
static int
thread_epoll(const struct bench_thread *thread, struct epoll_event *events, uint64_t wait_ns)
{
    struct timespec timeout = {(time_t)(wait_ns / 1000000000U), (long)(wait_ns % 1000000000U)};
    bool for_ever = wait_ns == UINT64_MAX;
    uint64_t wait_ms = wait_ns / 1000000 + (wait_ns % 1000000 > 0);
    int count = epoll_pwait2(thread->loop.epoll, events, EVENTS, for_ever ? NULL : &timeout, NULL);

    if (count < 0 && errno == ENOSYS)
        count = epoll_wait(thread->loop.epoll, events, EVENTS,
                           for_ever            ? -1
                           : wait_ms < INT_MAX ? (int)wait_ms
                                               : INT_MAX);
    return count;
}

static void
thread_wait(struct bench_thread *thread, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    int count = thread_epoll(thread, events, wait_ns);
    uint64_t ignored;

    for (int i = 0; i < count; i++) {
        struct bench_client *client = events[i].data.ptr;

        if (!client) {
            if (read(thread->wake, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN)
                abort(); /* an eventfd */
        } else if (client->state != BENCH_CLIENT_CLOSED) {
            bench_client_event(&thread->loop, client, events[i].events);
            if (client->state == BENCH_CLIENT_OPEN)
                bench_sender_resume(thread, client);
        }
    }
}

static void *
thread_main(void *of)
{
    struct bench_thread *thread = of;
    bool storm = thread->run->options->mode == BENCH_STORM;
    bool told = false;

    prctl(PR_SET_TIMERSLACK, 1UL); /* what is due is not to be 50 us late */
    while (thread_look_at_phase(thread), thread->phase != BENCH_END) {
        uint64_t wait_ns = storm ? storm_turn(thread) : connect_turn(thread);
        uint64_t send_ns = bench_sender_turn(thread);

        thread_show(thread);
        if (!told && thread->shown.opened == thread->client_count) {
            told = true;
            kick(thread->run->tell);
        }
        thread_wait(thread, send_ns < wait_ns ? send_ns : wait_ns);
    }
    thread->tally.unsent = bench_sender_unsent(thread);
    for (uint32_t i = 0; i < thread->client_count; i++) {
        if (thread->clients[i].state == BENCH_CLIENT_OPEN)
            bench_client_close(&thread->loop, &thread->clients[i]);
    }
    return NULL;
}

/* --- for the main thread --- */

/* The first thread has all publishers, the others share the rest of the clients evenly. How many
 * threads have any. */
static uint32_t
thread_deal(struct bench_run *run)
{
    uint32_t publishers = run->options->mode == BENCH_BROADCAST ? run->options->publishers : 0;
    uint32_t left = run->options->clients;
    uint32_t first = 0;
    uint32_t busy = 0;

    for (uint32_t i = 0; i < run->thread_count; i++) {
        struct bench_thread *thread = &run->threads[i];
        uint32_t share = (left + run->thread_count - i - 1) / (run->thread_count - i);

        thread->client_count = i == 0 && share < publishers ? publishers : share;
        thread->client_first = first;
        first += thread->client_count;
        left -= thread->client_count;
        busy += thread->client_count > 0;
    }
    return busy;
}

static void
thread_choose_senders(struct bench_thread *thread, int pipe)
{
    const struct bench_options *options = thread->run->options;

    thread->senders = thread->clients;
    if (options->mode == BENCH_ECHO) {
        thread->sender_count = thread->client_count;
    } else if (options->mode == BENCH_BROADCAST && thread->index == 0) {
        thread->sender_count = options->publishers;
        if (pipe >= 0)
            thread->senders = &thread->pipe;
    }
}

static int
thread_init(struct bench_thread *thread, int pipe)
{
    struct bench_run *run = thread->run;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    size_t count = thread->client_count;
    int rc = bench_loop_init(&thread->loop, &run->wire, &thread_handlers, thread->index + 1);

    thread->tracks_each = run->options->mode == BENCH_BROADCAST ? run->options->publishers : 1;
    thread->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    thread->clients = calloc(count, sizeof(*thread->clients));
    thread->tracks = calloc(count * thread->tracks_each, sizeof(*thread->tracks));
    thread->free = calloc(count, sizeof(*thread->free));
    thread->pipe.fd = -1;
    if (rc == 0 && (!thread->clients || !thread->tracks || !thread->free))
        rc = -ENOMEM;
    if (rc == 0 && run->options->mode == BENCH_BROADCAST)
        rc = bench_audience_init(&thread->audience, thread->client_count);
    if (rc == 0 && epoll_ctl(thread->loop.epoll, EPOLL_CTL_ADD, thread->wake, &event) != 0)
        rc = -errno;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        thread->clients[i].fd = -1;
        thread->free[i] = i;
    }
    thread->free_count = thread->client_count;
    if (rc == 0)
        thread_choose_senders(thread, pipe);
    if (rc == 0 && thread->index == 0 && pipe >= 0)
        rc = bench_client_open_pipe(&thread->loop, &thread->pipe, pipe);
    return rc;
}

int
bench_thread_start_all(struct bench_run *run, int pipe)
{
    uint32_t busy = thread_deal(run);
    int rc = 0;

    pthread_mutex_init(&run->audience_lock, NULL);
    if (run->options->mode == BENCH_BROADCAST)
        rc = bench_audience_init(&run->audience, busy);
    run->tell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    run->sender_count =
        run->options->mode == BENCH_ECHO ? run->options->clients : run->options->publishers;
    run->connect_ns = bench_loop_clock_ns();
    for (uint32_t i = 0; i < run->thread_count && rc == 0; i++) {
        run->threads[i].run = run;
        run->threads[i].index = i;
        rc = thread_init(&run->threads[i], pipe);
    }
    for (uint32_t i = 0; i < run->thread_count && rc == 0; i++)
        rc = -pthread_create(&run->threads[i].id, NULL, thread_main, &run->threads[i]);
    return rc;
}

void
bench_thread_set_phase(struct bench_run *run, enum bench_phase phase)
{
    atomic_store_release(&run->phase, (uint32_t)phase); /* P1 */
    for (uint32_t i = 0; i < run->thread_count; i++)
        kick(run->threads[i].wake);
}

void
bench_thread_sum(const struct bench_run *run, struct bench_shown *sum)
{
    *sum = (struct bench_shown){.idle = 1};
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const struct bench_shown *shown = &run->threads[i].shown;

        sum->opened += atomic_load_relaxed(&shown->opened);
        sum->open += atomic_load_relaxed(&shown->open);
        sum->sent += atomic_load_relaxed(&shown->sent);
        sum->received += atomic_load_relaxed(&shown->received);
        sum->settled += atomic_load_relaxed(&shown->settled);
        sum->echoes += atomic_load_relaxed(&shown->echoes);
        sum->idle &= atomic_load_relaxed(&shown->idle);
    }
}

bool
bench_thread_drained(const struct bench_run *run)
{
    struct bench_shown sum;

    bench_thread_sum(run, &sum);
    if (!sum.idle)
        return false;
    switch (run->options->mode) {
    case BENCH_BROADCAST: return sum.settled >= sum.sent * sum.open;
    case BENCH_ECHO: return sum.settled >= sum.echoes;
    case BENCH_IDLE:
    case BENCH_STORM: break;
    }
    return true;
}

bool
bench_thread_publisher_lost(const struct bench_run *run)
{
    return atomic_load_relaxed(&run->threads[0].shown.publisher_lost);
}

const struct bench_thread *
bench_thread_failed(const struct bench_run *run)
{
    for (uint32_t i = 0; i < run->thread_count; i++) {
        if (atomic_load_acquire(&run->threads[i].shown.failed)) /* F2 */
            return &run->threads[i];
    }
    return NULL;
}

/* --- what it comes to --- */

/* How many messages of a publisher every client should have, in what order they may be: of one that
 * was disconnected those that at least one client has. */
static uint32_t
published_by(const struct bench_run *run, uint32_t publisher)
{
    const struct bench_client *sender = &run->threads[0].senders[publisher];
    uint32_t most = 0;

    if (sender->state != BENCH_CLIENT_CLOSED)
        return sender->sent;
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const struct bench_thread *thread = &run->threads[i];

        for (uint32_t c = 0; c < thread->client_count; c++) {
            uint32_t next = thread->tracks[(size_t)c * thread->tracks_each + publisher].next;
            most = next > most ? next : most;
        }
    }
    return most;
}

/* What has not come by now is missing. */
static void
thread_find_missing(struct bench_thread *thread, uint32_t publisher)
{
    const struct bench_run *run = thread->run;
    bool echo = run->options->mode == BENCH_ECHO;
    uint32_t published = echo ? 0 : published_by(run, publisher);

    for (uint32_t i = 0; i < thread->client_count; i++) {
        struct bench_track *track = &thread->tracks[(size_t)i * thread->tracks_each + publisher];
        const struct bench_client *client = &thread->clients[i];

        if (client->state != BENCH_CLIENT_CLOSED)
            bench_track_end(track, echo ? client->sent : published, &thread->tally.faults);
    }
}

/* Clients that have received everything are compared with the first of them. */
static void
thread_compare_order(struct bench_thread *thread, uint64_t published,
                     const struct bench_client **model)
{
    for (uint32_t i = 0; i < thread->client_count; i++) {
        const struct bench_client *client = &thread->clients[i];

        if (client->state == BENCH_CLIENT_CLOSED || client->received != published)
            continue;
        if (!*model)
            *model = client;
        thread->tally.other_order += client->order != (*model)->order;
    }
}

static void
judge(struct bench_run *run)
{
    const struct bench_client *model = NULL;
    enum bench_mode mode = run->options->mode;
    bool waited = !bench_thread_publisher_lost(run); /* for what was on its way */
    uint64_t published = 0;

    for (uint32_t p = 0; mode == BENCH_BROADCAST && p < run->sender_count; p++)
        published += published_by(run, p);
    for (uint32_t i = 0; i < run->thread_count; i++) {
        struct bench_thread *thread = &run->threads[i];

        for (uint32_t p = 0;
             (mode == BENCH_ECHO || (mode == BENCH_BROADCAST && waited)) && p < thread->tracks_each;
             p++)
            thread_find_missing(thread, p);
        if (mode == BENCH_BROADCAST)
            thread_compare_order(thread, published, &model);
    }
}

void
bench_thread_join_all(struct bench_run *run, struct bench_tally *tally)
{
    for (uint32_t i = 0; i < run->thread_count; i++)
        pthread_join(run->threads[i].id, NULL);
    judge(run);
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const struct bench_thread *thread = &run->threads[i];
        const struct bench_tally *own = &thread->tally;

        tally->faults.missing += own->faults.missing;
        tally->faults.duplicates += own->faults.duplicates;
        tally->faults.late += own->faults.late;
        tally->sent += own->sent;
        tally->received += own->received;
        tally->received_bytes += thread->loop.received_bytes;
        tally->unsent += own->unsent;
        tally->corrupt += own->corrupt;
        tally->foreign += own->foreign;
        tally->disconnected += own->disconnected;
        tally->cycles += own->cycles;
        tally->refused += own->refused;
        tally->other_order += own->other_order;
        bench_histogram_merge(&tally->latency, &own->latency);
        bench_histogram_merge(&tally->last, &own->last);
        bench_histogram_merge(&tally->opening, &own->opening);
        bench_histogram_merge(&tally->late, &own->late);
    }
}

void
bench_thread_fini_all(struct bench_run *run)
{
    for (uint32_t i = 0; i < run->thread_count; i++) {
        struct bench_thread *thread = &run->threads[i];

        for (uint32_t c = 0; thread->clients && c < thread->client_count; c++)
            bench_client_drop(&thread->clients[c]);
        bench_client_drop(&thread->pipe);
        free(thread->clients);
        free(thread->tracks);
        free(thread->free);
        bench_audience_fini(&thread->audience);
        bench_loop_fini(&thread->loop);
        close(thread->wake);
    }
    bench_audience_fini(&run->audience);
    close(run->tell);
}
