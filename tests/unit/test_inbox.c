/*
 * inbox.h: bound, shutdown, order and wake-ups. inbox_torture does all of it at once.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/atomic.h"
#include "shm/util/inbox.h"

enum { LIMIT = 100, DEADLINE_MS = 60000 };

struct message {
    struct inbox_entry entry;
    int number;
};

static struct message *
new_message(int number)
{
    struct message *message = calloc(1, sizeof(*message));

    assert_non_null(message);
    message->number = number;
    return message;
}

/* Frees what is refused. */
static int
put(struct inbox *inbox, int number, uint64_t bytes)
{
    struct message *message = new_message(number);
    int rc = inbox_put(inbox, &message->entry, bytes);

    if (rc)
        free(message);
    return rc;
}

/* The number of the next one, which is freed; -1: none. */
static int
take(struct inbox *inbox)
{
    struct inbox_entry *entry = inbox_take(inbox);
    int number = entry ? ((struct message *)entry)->number : -1;

    if (entry)
        inbox_free(inbox, entry);
    return number;
}

static int
is_woken(const struct inbox *inbox)
{
    struct pollfd fd = {.fd = inbox_fd(inbox), .events = POLLIN};

    return poll(&fd, 1, 0);
}

static int
set_up(void **state)
{
    static struct inbox inbox;

    *state = &inbox;
    return inbox_init(&inbox, LIMIT);
}

static int
tear_down(void **state)
{
    inbox_fini(*state);
    return 0;
}

static void
test_inbox_entries_come_out_in_the_order_in_which_they_were_put(void **state)
{
    for (int i = 0; i < 10; i++)
        assert_int_equal(put(*state, i, 10), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(take(*state), i);
    assert_int_equal(take(*state), -1);
}

static void
test_inbox_the_bound_is_exact(void **state)
{
    assert_int_equal(put(*state, 1, LIMIT - 1), 0);
    assert_int_equal(put(*state, 2, 2), -EAGAIN);
    assert_int_equal(inbox_bytes(*state), LIMIT - 1);
    assert_int_equal(put(*state, 3, 1), 0);
    assert_int_equal(inbox_bytes(*state), LIMIT);
    assert_int_equal(put(*state, 4, 1), -EAGAIN);
    assert_int_equal(put(*state, 5, 0), 0);
    assert_int_equal(take(*state), 1);
    assert_int_equal(put(*state, 6, LIMIT), -EAGAIN);
    assert_int_equal(put(*state, 7, LIMIT - 1), 0);
    assert_int_equal(put(*state, 8, 1), -EAGAIN);
}

static void
test_inbox_an_entry_as_large_as_the_bound_fits_and_a_larger_one_never_does(void **state)
{
    assert_int_equal(put(*state, 1, LIMIT), 0);
    assert_int_equal(put(*state, 2, LIMIT + 1), -EMSGSIZE);
    assert_int_equal(put(*state, 3, UINT64_MAX / 2), -EMSGSIZE);
    assert_int_equal(inbox_bytes(*state), LIMIT);
    assert_int_equal(take(*state), 1);
    assert_int_equal(inbox_bytes(*state), 0);
}

static void
test_inbox_what_the_consumer_works_on_counts_until_it_is_freed(void **state)
{
    struct inbox_entry *entry;

    assert_int_equal(put(*state, 1, LIMIT), 0);
    entry = inbox_take(*state);
    assert_non_null(entry);
    assert_int_equal(put(*state, 2, 1), -EAGAIN);
    inbox_free(*state, entry);
    assert_int_equal(put(*state, 3, 1), 0);
}

static void
test_inbox_wakes_a_consumer_that_has_found_nothing_once(void **state)
{
    assert_int_equal(put(*state, 1, 1), 0);
    assert_int_equal(is_woken(*state), 0); /* it has not looked yet */
    assert_int_equal(take(*state), 1);
    assert_int_equal(take(*state), -1);
    assert_int_equal(put(*state, 2, 1), 0);
    assert_int_equal(is_woken(*state), 1);
    inbox_clear(*state);
    assert_int_equal(put(*state, 3, 1), 0);
    assert_int_equal(is_woken(*state), 0); /* it has been woken and is expected to look */
    assert_int_equal(take(*state), 2);
    assert_int_equal(take(*state), 3);
    assert_int_equal(take(*state), -1);
    assert_int_equal(put(*state, 4, 1), 0);
    assert_int_equal(is_woken(*state), 1);
}

static void
test_inbox_takes_nothing_after_it_is_closed_and_gives_out_what_it_has(void **state)
{
    assert_int_equal(put(*state, 1, 10), 0);
    inbox_close(*state);
    inbox_close(*state);
    assert_int_equal(put(*state, 2, 1), -EPIPE);
    assert_int_equal(put(*state, 3, LIMIT), -EPIPE);
    assert_int_equal(inbox_bytes(*state), 10);
    assert_false(inbox_is_over(*state));
    assert_int_equal(take(*state), 1);
    assert_true(inbox_is_over(*state));
    assert_null(inbox_await(*state, DEADLINE_MS)); /* at once */
}

static void
test_inbox_frees_what_was_never_taken(void **state)
{
    assert_int_equal(put(*state, 1, 10), 0); /* the address sanitizer looks */
    assert_int_equal(put(*state, 2, 10), 0);
}

/* --- another thread --- */

struct other {
    struct inbox *inbox;
    uint32_t started; /* its thread */
    int rc;
};

static void *
put_and_wait(void *arg)
{
    struct other *other = arg;
    struct message *message = new_message(7);

    atomic_store_release(&other->started, (uint32_t)gettid());
    other->rc = inbox_wait_put(other->inbox, &message->entry, LIMIT, DEADLINE_MS);
    if (other->rc)
        free(message);
    return NULL;
}

static void *
flush(void *arg)
{
    struct other *other = arg;

    atomic_store_release(&other->started, (uint32_t)gettid());
    other->rc = inbox_flush(other->inbox, DEADLINE_MS) ? 0 : -EAGAIN;
    return NULL;
}

static void *
await(void *arg)
{
    struct other *other = arg;
    struct inbox_entry *entry = inbox_await(other->inbox, DEADLINE_MS);

    other->rc = entry ? ((struct message *)entry)->number : -1;
    if (entry)
        inbox_free(other->inbox, entry);
    return NULL;
}

/* A thread that waits has said so. */
static pthread_t
start_waiting(void *(*run)(void *arg), struct other *other)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run, other), 0);
    while (!atomic_load_acquire(&other->started) || !(atomic_load_acquire(&other->inbox->room) & 1))
        atomic_pause();
    return thread;
}

static void
test_inbox_a_producer_that_waits_gets_the_room_that_is_made(void **state)
{
    struct other other = {.inbox = *state, .rc = 1};
    pthread_t thread;

    assert_int_equal(put(*state, 1, 1), 0);
    thread = start_waiting(put_and_wait, &other);
    assert_int_equal(take(*state), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.rc, 0);
    assert_int_equal(take(*state), 7);
}

/* Asleep, as the kernel says. */
static bool
is_asleep(pid_t thread)
{
    char path[64];
    char text[128] = "";
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
    fclose(file);
    return strstr(text, ") S ");
}

/* A producer that saw the old word before it slept must not take the new one for it. */
static void
test_inbox_the_word_of_those_that_wait_changes_with_each_wake_up(void **state)
{
    struct inbox *inbox = *state;
    uint32_t before = atomic_load_relaxed(&inbox->room);

    for (int turn = 0; turn < 3; turn++) {
        struct other other = {.inbox = inbox, .rc = 1};
        uint32_t waited;
        pthread_t thread;

        assert_int_equal(put(inbox, 1, 1), 0);
        thread = start_waiting(put_and_wait, &other);
        waited = atomic_load_relaxed(&inbox->room);
        assert_true(waited > before);
        assert_int_equal(take(inbox), 1);
        assert_int_equal(pthread_join(thread, NULL), 0);
        before = atomic_load_relaxed(&inbox->room);
        assert_true(before > waited);
        assert_false(before & 1);
        assert_int_equal(take(inbox), 7);
    }
}

/* What the consumer still works on is the last. */
static void
test_inbox_a_consumer_that_sleeps_is_woken_when_the_last_of_a_closed_one_is_freed(void **state)
{
    struct inbox *inbox = *state;
    struct inbox_entry *entry;

    assert_int_equal(put(inbox, 1, 10), 0);
    entry = inbox_take(inbox);
    assert_non_null(entry);
    assert_int_equal(take(inbox), -1);
    inbox_close(inbox);
    assert_int_equal(is_woken(inbox), 1);
    inbox_clear(inbox);
    assert_int_equal(take(inbox), -1);
    assert_false(inbox_is_over(inbox));
    inbox_free(inbox, entry);
    assert_int_equal(is_woken(inbox), 1);
    assert_true(inbox_is_over(inbox));
}

static void
test_inbox_producers_that_wait_sleep(void **state)
{
    struct inbox *inbox = *state;
    struct other others[] = {{.inbox = inbox}, {.inbox = inbox}};
    pthread_t threads[2];

    assert_int_equal(put(inbox, 1, 1), 0);
    for (int i = 0; i < 2; i++)
        threads[i] = start_waiting(put_and_wait, &others[i]);
    for (int i = 0; i < 2; i++) {
        while (!is_asleep((pid_t)atomic_load_acquire(&others[i].started)))
            ;
    }
    assert_int_equal(atomic_load_relaxed(&inbox->room),
                     1); /* WAITING, in the first turn: they have not woken each other */
    for (int i = 0; i < 3; i++) {
        struct inbox_entry *entry = inbox_await(inbox, DEADLINE_MS);
        assert_non_null(entry);
        inbox_free(inbox, entry);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(others[i].rc, 0);
    }
}

static void
test_inbox_a_producer_that_waits_is_refused_when_it_is_closed(void **state)
{
    struct other other = {.inbox = *state, .rc = 1};
    pthread_t thread;

    assert_int_equal(put(*state, 1, 1), 0);
    thread = start_waiting(put_and_wait, &other);
    inbox_close(*state);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.rc, -EPIPE);
    assert_int_equal(take(*state), 1);
    assert_int_equal(take(*state), -1);
}

static void
test_inbox_a_wait_for_room_ends_with_its_time(void **state)
{
    struct message *message = new_message(2);

    assert_int_equal(put(*state, 1, LIMIT), 0);
    assert_int_equal(inbox_wait_put(*state, &message->entry, 1, 0), -EAGAIN);
    assert_int_equal(inbox_wait_put(*state, &message->entry, 1, 1), -EAGAIN);
    assert_false(inbox_flush(*state, 1));
    free(message);
}

static void
test_inbox_flush_waits_until_everything_is_freed(void **state)
{
    struct other other = {.inbox = *state, .rc = 1};
    pthread_t thread;

    assert_true(inbox_flush(*state, 0));
    assert_int_equal(put(*state, 1, 1), 0);
    assert_false(inbox_flush(*state, 0));
    assert_int_equal(put(*state, 2, 1), 0);
    thread = start_waiting(flush, &other);
    assert_int_equal(take(*state), 1);
    assert_int_equal(take(*state), 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.rc, 0);
}

static void
test_inbox_await_ends_with_an_entry_or_with_the_end(void **state)
{
    struct inbox *inbox = *state;
    struct other other = {.inbox = inbox, .rc = 1};
    pthread_t thread;

    assert_null(inbox_await(inbox, 1));
    inbox->sleeping = 0;
    for (int closes = 0; closes < 2; closes++) {
        assert_int_equal(pthread_create(&thread, NULL, await, &other), 0);
        while (!atomic_load_acquire(&inbox->sleeping))
            atomic_pause();
        if (closes)
            inbox_close(inbox);
        else
            assert_int_equal(put(inbox, 5, 1), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(other.rc, closes ? -1 : 5);
    }
}

/* Each time it sleeps it gives up the processor; one that only looks again never does. */
static void *
await_for_a_while(void *arg)
{
    struct rusage before;
    struct rusage after;

    (void)getrusage(RUSAGE_THREAD, &before);
    (void)inbox_await(arg, 100);
    (void)getrusage(RUSAGE_THREAD, &after);
    return (void *)(uintptr_t)(after.ru_nvcsw - before.ru_nvcsw);
}

static void
test_inbox_await_sleeps_though_the_process_may_have_no_descriptor(void **state)
{
    struct rlimit limit;
    struct rlimit none;
    pthread_t thread;
    void *pauses;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(pthread_create(&thread, NULL, await_for_a_while, *state), 0);
    assert_int_equal(pthread_join(thread, &pauses), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true((uintptr_t)pauses > 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_inbox_entries_come_out_in_the_order_in_which_they_were_put),
        TEST(test_inbox_the_bound_is_exact),
        TEST(test_inbox_an_entry_as_large_as_the_bound_fits_and_a_larger_one_never_does),
        TEST(test_inbox_what_the_consumer_works_on_counts_until_it_is_freed),
        TEST(test_inbox_wakes_a_consumer_that_has_found_nothing_once),
        TEST(test_inbox_takes_nothing_after_it_is_closed_and_gives_out_what_it_has),
        TEST(test_inbox_frees_what_was_never_taken),
        TEST(test_inbox_a_producer_that_waits_gets_the_room_that_is_made),
        TEST(test_inbox_the_word_of_those_that_wait_changes_with_each_wake_up),
        TEST(test_inbox_a_consumer_that_sleeps_is_woken_when_the_last_of_a_closed_one_is_freed),
        TEST(test_inbox_producers_that_wait_sleep),
        TEST(test_inbox_a_producer_that_waits_is_refused_when_it_is_closed),
        TEST(test_inbox_a_wait_for_room_ends_with_its_time),
        TEST(test_inbox_flush_waits_until_everything_is_freed),
        TEST(test_inbox_await_ends_with_an_entry_or_with_the_end),
        TEST(test_inbox_await_sleeps_though_the_process_may_have_no_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
