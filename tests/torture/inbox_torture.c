/*
 * inbox_torture.c: threads put into one inbox until it is closed under them.
 *
 * Each entry has its producer's number and a count. Whatever was accepted is taken once, in the producer's
 * order; what is held never exceeds the bound. The bound is a few entries, or a single one, so that
 * producers and the consumer wait all the time: a wake-up that is lost once leaves a thread waiting for ever,
 * which the deadline of its wait tells.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/util/inbox.h"
#include "tests/lib/require.h"

enum {
    PRODUCERS_MAX = 4,
    ENTRY_BYTES_MAX = 100,
    SPINS = 50,
    LONG_RUN = 1000,
    DEADLINE_MS = 60000, /* of each wait */
};

struct message {
    struct inbox_entry entry;
    uint32_t producer;
    uint64_t number;
    uint64_t check;
};

struct producer {
    pthread_t thread;
    uint32_t index;
    uint64_t random;
    uint64_t accepted;
    uint64_t refused; /* for want of room */
};

struct plan {
    const char *name;
    uint32_t producers;
    uint64_t limit_bytes;
    uint64_t bytes; /* of each entry; 0: random */
    enum {
        WAIT,  /* for room */
        RETRY, /* every other producer: tries again until there is room */
        DUEL, /* looks for room without a system call, so that it puts while the consumer goes to sleep */
    } mood;
};

static const struct plan plans[] = {
    {"one entry at a time", 1, 1, 1, WAIT},
    {"one entry, whose consumer is about to sleep", 1, 1, 1, DUEL},
    {"two producers, one entry at a time", 2, 1, 1, WAIT},
    {"a few entries", PRODUCERS_MAX, 3 * ENTRY_BYTES_MAX, 0, WAIT},
    {"a few entries, some try again", PRODUCERS_MAX, 3 * ENTRY_BYTES_MAX, 0, RETRY},
    {"much room", PRODUCERS_MAX, 1 << 20, 0, WAIT},
};

static const struct plan *plan;
static struct inbox inbox;
static int64_t held; /* at most what the inbox holds: counted up after a put, down before a free */

static uint64_t
random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void
spin(uint64_t *random)
{
    for (uint64_t spins = random_next(random) % SPINS; spins > 0; spins--)
        atomic_pause();
}

/* The consumer has been woken, or its wake-up was lost. */
static void
await_room(void)
{
    uint64_t end_ns = clock_ns(CLOCK_MONOTONIC) + DEADLINE_MS * UINT64_C(1000000);

    while (inbox_bytes(&inbox) > 0) {
        atomic_pause();
        REQUIRE(clock_ns(CLOCK_MONOTONIC) < end_ns);
    }
}

static int
put(struct producer *self, struct message *message, uint64_t bytes)
{
    int rc;

    if (plan->mood == DUEL)
        await_room();
    if (plan->mood != RETRY || self->index % 2 == 0)
        return inbox_wait_put(&inbox, &message->entry, bytes, DEADLINE_MS);
    while ((rc = inbox_put(&inbox, &message->entry, bytes)) == -EAGAIN) {
        self->refused++;
        spin(&self->random);
    }
    return rc;
}

static void *
produce(void *arg)
{
    struct producer *self = arg;
    int rc = 0;

    while (rc == 0) {
        uint64_t bytes =
            plan->bytes ? plan->bytes : 1 + random_next(&self->random) % ENTRY_BYTES_MAX;
        struct message *message = malloc(sizeof(*message));

        REQUIRE(message);
        message->producer = self->index;
        message->number = self->accepted;
        message->check = ~self->accepted;
        rc = put(self, message, bytes);
        if (rc == 0) {
            self->accepted++;
            REQUIRE(atomic_fetch_add(&held, (int64_t)bytes) + (int64_t)bytes <=
                    (int64_t)plan->limit_bytes);
        } else {
            REQUIRE(rc == -EPIPE); /* -EAGAIN: the wake-up was lost */
            free(message);
        }
        if (plan->mood == DUEL || random_next(&self->random) % 4 == 0)
            spin(&self->random);
    }
    return NULL;
}

/* Takes `count` entries, then closes and takes what is left. */
static uint64_t
consume(uint64_t count, uint64_t next[PRODUCERS_MAX])
{
    uint64_t random = count;
    uint64_t taken = 0;

    for (;;) {
        uint64_t end_ns = clock_ns(CLOCK_MONOTONIC) + DEADLINE_MS * UINT64_C(1000000);
        struct inbox_entry *entry = inbox_await(&inbox, DEADLINE_MS);
        struct message *message = (struct message *)entry;

        REQUIRE(clock_ns(CLOCK_MONOTONIC) < end_ns); /* or the wake-up was lost */
        if (!entry)
            break;
        REQUIRE(message->producer < plan->producers && message->check == ~message->number);
        REQUIRE(message->number == next[message->producer]); /* none lost, doubled or overtaken */
        next[message->producer]++;
        (void)atomic_fetch_sub(&held, (int64_t)entry->bytes);
        inbox_free(&inbox, entry);
        if (++taken == count)
            inbox_close(&inbox);
        if (plan->mood == DUEL || random_next(&random) % 8 == 0)
            spin(&random);
    }
    REQUIRE(inbox_is_over(&inbox));
    return taken;
}

static void
run(uint64_t count)
{
    struct producer producers[PRODUCERS_MAX] = {0};
    uint64_t next[PRODUCERS_MAX] = {0};
    uint64_t accepted = 0;
    uint64_t refused = 0;
    uint64_t taken;

    held = 0;
    REQUIRE(inbox_init(&inbox, plan->limit_bytes) == 0);
    for (uint32_t i = 0; i < plan->producers; i++) {
        producers[i].index = i;
        producers[i].random = i + 1;
        REQUIRE(pthread_create(&producers[i].thread, NULL, produce, &producers[i]) == 0);
    }
    taken = consume(count, next);
    for (uint32_t i = 0; i < plan->producers; i++) {
        REQUIRE(pthread_join(producers[i].thread, NULL) == 0);
        REQUIRE(producers[i].accepted == next[i]);
        accepted += producers[i].accepted;
        refused += producers[i].refused;
    }
    REQUIRE(accepted == taken && taken >= count && held == 0);
    REQUIRE(plan->mood != RETRY || refused > 0 || count < LONG_RUN);
    inbox_fini(&inbox);
}

int
main(void)
{
    uint64_t count = getenv("CRIER_LONG") ? 1000000 : 20000;

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        plan = &plans[i];
        printf("%s\n", plan->name);
        run(count);
        for (uint64_t closes = count / 100; closes > 0; closes--)
            run(1 + closes % 7); /* the end, many times */
    }
    return 0;
}
