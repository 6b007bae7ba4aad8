/*
 * member.h: last words as they are shown, and sums over members.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shm/member.h"
#include "shm/util/beat.h"

enum { MEMBERS = 3, NOT_A_MEMBER = MEMBERS, LIFE = 5 };

static struct member_shm members[MEMBERS + 1];
static const struct segment segment = {.members = members, .geometry.member_count = MEMBERS};

static int
set_up(void **state)
{
    (void)state;
    memset(members, 0, sizeof(members));
    return 0;
}

static void
assert_words(uint32_t life, const char *expected)
{
    char words[LAST_WORDS_BYTES];

    memset(words, 'w', sizeof(words));
    assert_ptr_equal(member_last_words(&members[1], life, words), words);
    assert_string_equal(words, expected);
}

static void
test_member_last_words_are_those_of_the_life_that_is_asked_for(void **state)
{
    (void)state;
    strcpy(members[1].last_words, "rubbish");
    assert_words(0, "");
    assert_words(LIFE, "");
    members[1].last_words_life = LIFE;
    assert_words(0, "rubbish");
    assert_words(LIFE - 1, "");
    assert_words(LIFE, "rubbish");
    assert_words(LIFE + 1, "");
}

static void
test_member_last_words_that_do_not_end_are_cut(void **state)
{
    char longest[LAST_WORDS_BYTES];

    (void)state;
    members[1].last_words_life = LIFE;
    memset(members[1].last_words, 'x', LAST_WORDS_BYTES);
    memset(longest, 'x', sizeof(longest));
    longest[LAST_WORDS_BYTES - 1] = '\0';
    assert_words(LIFE, longest);
}

static void
test_member_sums_are_of_all_members_and_clients_of_workers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= NOT_A_MEMBER; i++) {
        members[i].clients_open = 1U << (4 * i);
        members[i].counters[COUNTER_broadcasts_published] = 1U << (4 * i);
        members[i].counters[COUNTER_broadcasts_published + 1] = 7;
    }
    assert_int_equal(member_clients_open(&segment), 0x110);
    assert_int_equal(member_counter_sum(&segment, COUNTER_broadcasts_published), 0x111);
}

static void
test_member_sum_of_a_histogram_begins_anew(void **state)
{
    static struct histogram_shm sum;

    (void)state;
    for (uint32_t i = 0; i <= NOT_A_MEMBER; i++)
        histogram_add(members[i].histograms, sweep_stretch, 1000 * (i + 1));
    for (int round = 0; round < 2; round++) {
        member_histogram_sum(&segment, HISTOGRAM_sweep_stretch, &sum);
        assert_int_equal(histogram_count(&sum), MEMBERS);
        assert_int_equal(sum.max_ns, 1000 * MEMBERS);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

/* --- beat.h --- */

static void
test_member_shows_a_sign_of_life_with_each_mebibyte_that_it_copies(void **state)
{
    static const struct {
        size_t bytes;
        uint64_t beats;
    } cases[] = {{0, 0},
                 {1, 0},
                 {BEAT_COPY_BYTES, 0},
                 {BEAT_COPY_BYTES + 1, 1},
                 {3 * BEAT_COPY_BYTES + 5, 3}};
    static uint8_t from[3 * BEAT_COPY_BYTES + 5];
    static uint8_t to[sizeof(from) + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i * 31 / 7);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = members[1].heartbeat;
        memset(to, 0xee, sizeof(to));
        beat_copy(&members[1].heartbeat, to, cases[i].bytes ? from : NULL, cases[i].bytes);
        assert_int_equal(members[1].heartbeat - before, cases[i].beats);
        assert_int_equal(memcmp(to, from, cases[i].bytes), 0);
        assert_int_equal(to[cases[i].bytes], 0xee);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_shows_a_sign_of_life_with_each_mebibyte_that_it_copies),
        TEST(test_member_last_words_are_those_of_the_life_that_is_asked_for),
        TEST(test_member_last_words_that_do_not_end_are_cut),
        TEST(test_member_sums_are_of_all_members_and_clients_of_workers),
        TEST(test_member_sum_of_a_histogram_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
