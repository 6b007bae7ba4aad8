#include "tools/bench_sender.h"

#include <stdlib.h>
#include <unistd.h>

#include "shm/atomic.h"

enum { TICKS_A_TURN = 64 }; /* then reading has its turn */

/* --- rate --- */

static uint64_t
schedule_due_ns(const struct bench_thread *thread, uint64_t round, uint32_t sender)
{
    const struct bench_run *run = thread->run;
    uint64_t number = round * run->sender_count + thread->client_first + sender;

    return run->start_ns + (uint64_t)((double)number * (1e9 / run->options->rate));
}

static uint64_t
schedule_end_ns(const struct bench_thread *thread)
{
    return atomic_load_relaxed(&thread->run->end_ns); /* a hint: DRAIN ends it in any case */
}

/* --- window --- */

/* Deliveries there have to be before one more broadcast may go out. */
static uint64_t
broadcast_wanted(const struct bench_thread *thread, const struct bench_shown *sum)
{
    uint64_t outstanding = (uint64_t)thread->run->options->window * thread->sender_count;

    return thread->tally.sent < outstanding ? 0
                                            : (thread->tally.sent - outstanding + 1) * sum->open;
}

/* How many broadcasts may go out now. */
static uint64_t
broadcast_credit(const struct bench_thread *thread)
{
    uint64_t outstanding = (uint64_t)thread->run->options->window * thread->sender_count;
    struct bench_shown sum;
    uint64_t back;

    bench_thread_sum(thread->run, &sum);
    if (sum.open == 0)
        return 0;
    back = sum.settled / sum.open;
    return thread->tally.sent < outstanding + back ? outstanding + back - thread->tally.sent : 0;
}

/* --- one sender --- */

static bool
sender_may_send(const struct bench_thread *thread, const struct bench_client *client,
                uint64_t now_ns, uint64_t *due_ns)
{
    const struct bench_options *options = thread->run->options;

    if (client->sent >= BENCH_STAMP_SEQS)
        return false;
    if (options->rate > 0) {
        *due_ns = schedule_due_ns(thread, client->sent, (uint32_t)(client - thread->senders));
        return *due_ns <= now_ns && *due_ns < schedule_end_ns(thread);
    }
    *due_ns = now_ns;
    return thread->phase == BENCH_MEASURE && now_ns < schedule_end_ns(thread) &&
           (options->mode == BENCH_BROADCAST || client->sent - client->settled < options->window);
}

/* At most `limit` messages, as many as fit into one write. Their number. */
static uint64_t
sender_write(struct bench_thread *thread, struct bench_client *client, uint64_t limit)
{
    struct bench_loop *loop = &thread->loop;
    uint64_t now_ns = bench_loop_clock_ns();
    uint64_t count = 0;
    uint64_t due_ns;
    size_t used = 0;

    if (client->state != BENCH_CLIENT_OPEN || bench_client_blocked(client))
        return 0;
    while (count < limit && bench_client_room(loop, used) &&
           sender_may_send(thread, client, now_ns, &due_ns)) {
        struct bench_stamp stamp = {
            .due_ns = due_ns - thread->run->start_ns,
            .seq = client->sent,
            .id = (uint16_t)((thread->client_first + (uint32_t)(client - thread->senders)) %
                             BENCH_STAMP_IDS),
        };
        used = bench_client_put(loop, client, used, &stamp);
        if (thread->run->options->rate > 0 && due_ns >= client->room_ns) /* or it is the server */
            bench_histogram_add(&thread->tally.late, now_ns - due_ns);
        client->sent++;
        count++;
    }
    thread->tally.sent += count;
    if (thread->run->options->mode == BENCH_ECHO)
        atomic_bump(&thread->shown.echoes, count);
    if (used > 0)
        bench_client_write(loop, client, loop->out, used);
    return count;
}

/* At most `limit` messages, until the socket is full. Their number. */
static uint64_t
sender_fill(struct bench_thread *thread, struct bench_client *client, uint64_t limit)
{
    uint64_t sum = 0;
    uint64_t count;

    do {
        count = sender_write(thread, client, limit - sum);
        sum += count;
    } while (count > 1 && sum < limit);
    return sum;
}

/* --- all of a thread --- */

static uint64_t
turn_rate(struct bench_thread *thread)
{
    uint64_t now_ns = bench_loop_clock_ns();

    for (int i = 0; i < TICKS_A_TURN && !thread->schedule_done; i++) {
        uint64_t due_ns = schedule_due_ns(thread, thread->round, thread->sender_next);

        if (due_ns >= schedule_end_ns(thread)) {
            thread->schedule_done = true;
            break;
        }
        if (due_ns > now_ns)
            return due_ns - now_ns;
        sender_fill(thread, &thread->senders[thread->sender_next], UINT64_MAX);
        if (++thread->sender_next == thread->sender_count) {
            thread->sender_next = 0;
            thread->round++;
        }
    }
    return thread->schedule_done ? UINT64_MAX : 0;
}

/* Each sender has its share in turn; one whose socket is full leaves it to the others. */
static void
spend_credit(struct bench_thread *thread, uint64_t credit)
{
    uint64_t share = (credit + thread->sender_count - 1) / thread->sender_count;

    for (uint32_t i = 0; i < thread->sender_count && credit > 0; i++) {
        struct bench_client *client = &thread->senders[thread->sender_next];

        credit -= sender_fill(thread, client, share < credit ? share : credit);
        thread->sender_next = (thread->sender_next + 1) % thread->sender_count;
    }
}

static bool
any_has_room(const struct bench_thread *thread)
{
    for (uint32_t i = 0; i < thread->sender_count; i++) {
        if (thread->senders[i].state == BENCH_CLIENT_OPEN &&
            !bench_client_blocked(&thread->senders[i]))
            return true;
    }
    return false;
}

static uint64_t
turn_broadcast(struct bench_thread *thread)
{
    struct bench_run *run = thread->run;
    struct bench_shown sum;

    atomic_store_relaxed(&run->want, 0);
    if (thread->phase != BENCH_MEASURE)
        return UINT64_MAX;
    spend_credit(thread, broadcast_credit(thread));
    bench_thread_sum(run, &sum);
    atomic_store_relaxed(&run->want, broadcast_wanted(thread, &sum)); /* W2 */
    atomic_fence();
    return broadcast_credit(thread) > 0 && any_has_room(thread) ? 0 : UINT64_MAX;
}

uint64_t
bench_sender_turn(struct bench_thread *thread)
{
    const struct bench_options *options = thread->run->options;

    if (thread->sender_count == 0 || thread->phase == BENCH_CONNECT)
        return UINT64_MAX;
    if (options->rate > 0)
        return turn_rate(thread);
    if (options->mode == BENCH_BROADCAST)
        return turn_broadcast(thread);
    if (!thread->begun && thread->phase == BENCH_MEASURE) { /* then each echo brings the next */
        thread->begun = true;
        for (uint32_t i = 0; i < thread->sender_count; i++)
            sender_fill(thread, &thread->senders[i], UINT64_MAX);
    }
    return UINT64_MAX;
}

void
bench_sender_resume(struct bench_thread *thread, struct bench_client *client)
{
    const struct bench_options *options = thread->run->options;

    if (client < thread->senders || client >= thread->senders + thread->sender_count ||
        thread->phase == BENCH_CONNECT)
        return;
    if (options->rate > 0 || options->mode == BENCH_ECHO)
        sender_fill(thread, client, UINT64_MAX);
}

uint64_t
bench_sender_unsent(const struct bench_thread *thread)
{
    uint64_t unsent = 0;

    for (uint32_t i = 0; i < thread->sender_count && thread->run->options->rate > 0; i++) {
        const struct bench_client *client = &thread->senders[i];
        uint64_t number = client->sent;

        while (client->state == BENCH_CLIENT_OPEN &&
               schedule_due_ns(thread, number, i) < schedule_end_ns(thread))
            number++;
        unsent += number - client->sent;
    }
    return unsent;
}

bool
bench_sender_idle(struct bench_thread *thread)
{
    if (thread->sender_count > 0 && thread->run->options->rate > 0 && !thread->schedule_done)
        return false;
    for (uint32_t i = 0; i < thread->sender_count; i++) {
        if (thread->senders[i].state == BENCH_CLIENT_OPEN &&
            bench_client_blocked(&thread->senders[i]))
            return false;
    }
    return true;
}

void
bench_sender_tell(struct bench_thread *thread)
{
    struct bench_run *run = thread->run;
    struct bench_shown sum;
    uint64_t want;
    uint64_t one = 1;

    atomic_fence(); /* W1 */
    want = atomic_load_relaxed(&run->want);
    if (want == 0 || thread->index == 0)
        return;
    bench_thread_sum(run, &sum);
    if (sum.settled >= want && atomic_xchg(&run->want, 0) != 0 &&
        write(run->threads[0].wake, &one, sizeof(one)) < 0)
        abort(); /* an eventfd takes this as long as it is open */
}
