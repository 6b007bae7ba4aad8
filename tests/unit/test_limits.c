/*
 * limits.h: the arithmetic. tests/e2e/test_limits.py shows that a real server keeps to it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/limits.h"
#include "shm/chan.h"
#include "shm/ring.h"

enum { PLENTY = 200 };

static bool limits_are_fixed;

/* In place of the C library's, which the thread sanitizer calls before it is ready. */
int __attribute__((no_sanitize_thread))
setrlimit(__rlimit_resource_t which, const struct rlimit *limit)
{
    if (!limits_are_fixed)
        return (int)syscall(SYS_prlimit64, 0, which, limit, NULL);
    errno = EPERM;
    return -1;
}

/* --- descriptors --- */

static void
test_a_limit_of_descriptors_that_cannot_be_raised_is_the_one_that_counts(void **state)
{
    struct rlimit before;
    struct rlimit low;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){.rlim_cur = before.rlim_max / 2, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    limits_are_fixed = true;
    assert_int_equal(limits_raise_descriptors(), low.rlim_cur);
    limits_are_fixed = false;
    assert_int_equal(limits_raise_descriptors(), before.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void
test_a_limit_holds_the_master_and_a_worker_with_its_first_clients(void **state)
{
    (void)state;
    for (uint64_t workers = 1; workers < RING_OWNERS_MAX; workers++) {
        uint64_t limit = limits_descriptors(workers, 1, 0);

        assert_true(limit >= limits_master_descriptors(workers, 1));
        assert_true(limit >= limits_worker_descriptors(workers) + LIMITS_CLIENTS_MIN);
        assert_true(limit == limits_master_descriptors(workers, 1) ||
                    limit == limits_worker_descriptors(workers) + LIMITS_CLIENTS_MIN);
    }
}

/* A child has its final descriptors and a copy of each, for a moment (spawn.c). */
static void
test_a_worker_that_starts_needs_fewer_descriptors_than_the_limit_allows(void **state)
{
    (void)state;
    for (uint64_t workers = 1; workers < RING_OWNERS_MAX; workers++) {
        uint64_t members = workers + 1;
        uint64_t copies = members + 3;

        assert_true(CHAN_FD_WAKE + members + copies <= limits_descriptors(workers, 0, 0));
    }
}

static void
test_inherited_descriptors_count_for_the_master_alone(void **state)
{
    uint64_t worker = limits_worker_descriptors(1) + LIMITS_CLIENTS_MIN;
    uint64_t master = limits_master_descriptors(1, 1);

    (void)state;
    assert_true(master < worker);
    assert_int_equal(limits_descriptors(1, 1, 0), worker);
    assert_int_equal(limits_descriptors(1, 1, worker - master), worker);
    assert_int_equal(limits_descriptors(1, 1, worker - master + 1), worker + 1);
}

static void
test_descriptors_that_are_open_are_found_where_they_are_in_the_way(void **state)
{
    uint64_t before;
    uint64_t before_far;
    uint64_t inherited;
    uint64_t need = limits_find_descriptors(10, 1, 0, &before);
    uint64_t need_far = limits_find_descriptors(100, 1, 0, &before_far);
    int near = open("/dev/null", O_RDONLY);
    int far = fcntl(near, F_DUPFD, PLENTY);

    (void)state;
    assert_true(near >= 0 && far >= PLENTY);
    assert_int_equal(limits_find_descriptors(10, 1, 0, &inherited), need + 1);
    assert_int_equal(inherited, before + 1);
    /* Of a hundred workers, the numbers of descriptors reach to where the other one is. */
    assert_int_equal(limits_find_descriptors(100, 1, 0, &inherited), need_far + 2);
    assert_int_equal(inherited, before_far + 2);
    close(far);
    close(near);
}

static void
test_the_last_descriptor_that_is_in_the_way_is_found(void **state)
{
    uint64_t before;
    uint64_t inherited;
    int null = open("/dev/null", O_RDONLY);
    int last;

    (void)state;
    (void)limits_find_descriptors(10, 1, 0, &before);
    last = (int)(limits_master_descriptors(10, 1) + before) -
           1; /* of the numbers that the server would take */
    assert_true(null >= 0 && null < last);
    assert_int_equal(dup2(null, last), last);
    (void)limits_find_descriptors(10, 1, 0, &inherited);
    assert_int_equal(inherited, before + 1);
    close(last);
    assert_int_equal(dup2(null, last + 1), last + 1);
    (void)limits_find_descriptors(10, 1, 0, &inherited);
    assert_int_equal(inherited, before);
    close(last + 1);
    close(null);
}

static void
test_what_the_server_has_opened_itself_is_not_inherited(void **state)
{
    uint64_t before;
    uint64_t inherited;
    uint64_t need = limits_find_descriptors(10, 1, 0, &before);
    int program = open("/dev/null", O_RDONLY);
    int listener = open("/dev/null", O_RDONLY);

    (void)state;
    assert_int_equal(limits_find_descriptors(10, 1, 2, &inherited), need);
    assert_int_equal(inherited, before);
    assert_true(limits_check_descriptors(need, 10, 1, 2));
    assert_false(limits_check_descriptors(need - 1, 10, 1, 2));
    close(listener);
    close(program);
}

static void
test_fewer_descriptors_than_the_servers_own_make_no_inherited_ones(void **state)
{
    uint64_t inherited = 1;
    uint64_t need = limits_find_descriptors(100, 1, PLENTY, &inherited);

    (void)state;
    assert_int_equal(inherited, 0);
    assert_int_equal(need, limits_descriptors(100, 1, 0));
}

/* --- memory --- */

static void
test_what_must_be_there_is_less_than_what_may_be_used(void **state)
{
    struct limits_memory memory = {
        .workers = 64,
        .shared_bytes = 1105 * LIMITS_MIB,
        .pool_bytes = 64 * LIMITS_MIB,
    };

    (void)state;
    assert_int_equal(limits_needed_bytes(&memory), (1105 + 65 * LIMITS_PROCESS_MIB) * LIMITS_MIB);
    assert_int_equal(limits_used_bytes_max(&memory) - limits_needed_bytes(&memory),
                     64 * (64 * LIMITS_MIB + 64 * LIMITS_MIB / 10));
}

static void
test_more_memory_than_the_machine_has_is_refused(void **state)
{
    struct limits_memory memory = {.workers = 1, .ring_bytes = LIMITS_MIB};

    (void)state;
    memory.shared_bytes = memory.mapped_bytes = LIMITS_MIB;
    assert_true(limits_check_memory(&memory));
    memory.shared_bytes = (uint64_t)1 << 50;
    assert_false(limits_check_memory(&memory));
}

static void
test_more_than_a_file_may_have_is_refused(void **state)
{
    struct limits_memory memory = {.workers = 1, .ring_bytes = LIMITS_MIB};
    struct rlimit before;
    struct rlimit limit;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    memory.shared_bytes = memory.mapped_bytes = LIMITS_MIB;
    limit = (struct rlimit){.rlim_cur = LIMITS_MIB, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_true(limits_check_memory(&memory));
    memory.mapped_bytes++;
    assert_false(limits_check_memory(&memory));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

/* --- processes --- */

static void
test_a_fork_without_memory_is_explained_by_its_error(void **state)
{
    char why[LIMITS_WHY_BYTES];

    (void)state;
    assert_string_equal(limits_explain_fork(ENOMEM, why), strerror(ENOMEM));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_limit_of_descriptors_that_cannot_be_raised_is_the_one_that_counts),
        cmocka_unit_test(test_a_limit_holds_the_master_and_a_worker_with_its_first_clients),
        cmocka_unit_test(test_a_worker_that_starts_needs_fewer_descriptors_than_the_limit_allows),
        cmocka_unit_test(test_inherited_descriptors_count_for_the_master_alone),
        cmocka_unit_test(test_descriptors_that_are_open_are_found_where_they_are_in_the_way),
        cmocka_unit_test(test_the_last_descriptor_that_is_in_the_way_is_found),
        cmocka_unit_test(test_what_the_server_has_opened_itself_is_not_inherited),
        cmocka_unit_test(test_fewer_descriptors_than_the_servers_own_make_no_inherited_ones),
        cmocka_unit_test(test_what_must_be_there_is_less_than_what_may_be_used),
        cmocka_unit_test(test_more_memory_than_the_machine_has_is_refused),
        cmocka_unit_test(test_more_than_a_file_may_have_is_refused),
        cmocka_unit_test(test_a_fork_without_memory_is_explained_by_its_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
