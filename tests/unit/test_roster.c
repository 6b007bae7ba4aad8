/*
 * roster.h: client records that go out, come back, and are found with a dead worker. The test writes
 * what a worker would have written.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/roster.h"
#include "shm/client_rec.h"
#include "shm/member.h"
#include "shm/segment_master.h"

enum {
    WORKER = MEMBER_FIRST_WORKER,
    OTHER,
    MEMBERS,
    RECORDS = ROSTER_STEP + 10,
    TAIL = 30,
};

static struct segment segment;
static struct roster roster;

static uint64_t
counter(enum counter which)
{
    return segment.members[MEMBER_MASTER].counters[which];
}

static struct client_shm *
record_at(uint32_t index)
{
    return &segment.clients[index];
}

static int
set_up(void **state)
{
    struct segment_plan plan = {
        .member_count = MEMBERS, .arena_bytes = 64 * 1024, .client_capacity = RECORDS};
    int fd = segment_create(&segment, &plan);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(roster_init(&roster, &segment), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    roster_fini(&roster);
    segment_detach(&segment);
    return 0;
}

static uint32_t
get(void)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(4711)};
    uint32_t index;

    assert_int_equal(roster_get(&roster, (const struct sockaddr *)&peer, 0, &index), 0);
    return index;
}

/* In the channel of that worker. */
static uint32_t
pass(uint32_t member)
{
    uint32_t index = get();

    roster_pass(&roster, index, member);
    return index;
}

static struct client_shm *
pass_in_state(uint32_t member, enum client_state state)
{
    struct client_shm *record = record_at(pass(member));

    record->state = (uint8_t)state;
    return record;
}

/* Due [first_seq, TAIL), with so much done. */
static struct client_shm *
open_client(uint64_t first_seq, uint64_t next_seq)
{
    struct client_shm *record = pass_in_state(WORKER, CLIENT_OPEN);

    record->first_seq = first_seq;
    record->next_seq = next_seq;
    return record;
}

static void
assert_counts(uint64_t due, uint64_t delivered, uint64_t skipped, uint64_t not_addressed,
              uint64_t undeliverable)
{
    assert_int_equal(counter(COUNTER_broadcasts_due), due);
    assert_int_equal(counter(COUNTER_broadcasts_delivered), delivered);
    assert_int_equal(counter(COUNTER_broadcasts_skipped), skipped);
    assert_int_equal(counter(COUNTER_broadcasts_not_addressed), not_addressed);
    assert_int_equal(counter(COUNTER_broadcasts_undeliverable), undeliverable);
    assert_int_equal(due, delivered + skipped + not_addressed + undeliverable);
}

/* --- a worker has died --- */

static void
test_roster_counts_what_a_client_of_a_dead_worker_was_due(void **state)
{
    struct client_shm *record = open_client(10, 20);
    struct roster_census census;

    (void)state;
    record->not_addressed = 2;
    record->skipped = 3;
    record->cut = 1;
    census = roster_bury(&roster, WORKER, TAIL);
    assert_int_equal(census.lost, 1);
    assert_int_equal(census.passed, 0);
    assert_int_equal(counter(COUNTER_clients_lost), 1);
    assert_int_equal(counter(COUNTER_clients_left), 1);
    assert_counts(20, 4, 3, 2, 11);
    assert_int_equal(record->state, CLIENT_FREE);
}

static void
test_roster_record_that_is_used_again_after_a_death_has_no_counts_of_the_one_before(void **state)
{
    struct client_shm *record = open_client(10, 20);
    uint32_t generation = record->generation;
    uint32_t index;

    (void)state;
    record->not_addressed = 2;
    record->skipped = 3;
    record->cut = 1;
    record->bytes_sent = 4711;
    (void)roster_bury(&roster, WORKER, TAIL);
    index = get();
    assert_ptr_equal(record_at(index), record);
    assert_int_equal(record->generation, generation + 1);
    assert_int_equal(record->first_seq, 0);
    assert_int_equal(record->next_seq, 0);
    assert_int_equal(record->bytes_sent, 0);
    assert_int_equal(record->not_addressed, 0);
    assert_int_equal(record->skipped, 0);
    assert_int_equal(record->cut, 0);
    /* And so they are not counted a second time when the next worker dies. */
    roster_pass(&roster, index, WORKER);
    record->state = CLIENT_OPEN;
    record->first_seq = TAIL;
    record->next_seq = TAIL + 5;
    (void)roster_bury(&roster, WORKER, TAIL + 10);
    assert_counts(20 + 10, 4 + 5, 3, 2, 11 + 5);
}

static void
test_roster_client_with_half_a_handshake_was_refused_and_due_nothing(void **state)
{
    struct client_shm *half = pass_in_state(WORKER, CLIENT_TAKEN);
    struct client_shm *client = open_client(TAIL, TAIL);
    struct roster_census census;
    uint32_t free_count = roster.free_count;

    (void)state;
    half->first_seq = 7; /* not valid in this state */
    census = roster_bury(&roster, WORKER, TAIL + 1);
    assert_int_equal(census.lost, 1);
    assert_int_equal(census.passed, 0);
    assert_int_equal(counter(COUNTER_clients_refused), 1);
    assert_int_equal(counter(COUNTER_refused_lost), 1);
    assert_int_equal(counter(COUNTER_clients_accepted), 0); /* its worker has counted that */
    assert_int_equal(counter(COUNTER_clients_lost), 1);
    assert_counts(1, 0, 0, 0, 1);
    assert_int_equal(half->state, CLIENT_FREE);
    assert_int_equal(client->state, CLIENT_FREE);
    assert_int_equal(roster.free_count, free_count + 2);
}

static void
test_roster_client_that_has_left_is_not_counted_again(void **state)
{
    struct client_shm *left = pass_in_state(WORKER, CLIENT_LEFT);
    struct client_shm *returned = pass_in_state(WORKER, CLIENT_RETURNED);
    struct roster_census census;

    (void)state;
    left->first_seq = returned->first_seq = 1;
    census = roster_bury(&roster, WORKER, TAIL);
    assert_int_equal(census.lost, 0);
    assert_int_equal(counter(COUNTER_clients_left), 0);
    assert_int_equal(counter(COUNTER_clients_refused), 0);
    assert_counts(0, 0, 0, 0, 0);
    assert_int_equal(left->state, CLIENT_FREE);
    assert_int_equal(returned->state, CLIENT_FREE);
}

static void
test_roster_death_of_a_worker_concerns_its_own_clients_alone(void **state)
{
    struct client_shm *mine = open_client(10, 20);
    struct client_shm *others = pass_in_state(OTHER, CLIENT_OPEN);
    uint32_t kept = get(); /* given to no worker yet, and once that worker's */

    (void)state;
    record_at(kept)->worker = WORKER;
    assert_int_equal(roster_bury(&roster, WORKER, TAIL).lost, 1);
    assert_int_equal(mine->state, CLIENT_FREE);
    assert_int_equal(others->state, CLIENT_OPEN);
    assert_true(roster.owners[kept].out);
    assert_int_equal(roster_bury(&roster, WORKER, TAIL).lost, 0); /* the same place dies again */
}

/* Whatever words a worker leaves, the sums add up. */
static void
test_roster_words_of_a_worker_that_has_gone_wrong_are_bounded(void **state)
{
    struct client_shm *record = open_client(10, TAIL + 1); /* more than was published */

    (void)state;
    record->not_addressed = 100;
    (void)roster_bury(&roster, WORKER, TAIL);
    assert_counts(20, 0, 0, 20, 0);
    record = open_client(10, 20);
    record->skipped = 10; /* all that was done: there is none left that could have been cut */
    record->cut = 1;
    (void)roster_bury(&roster, WORKER, TAIL);
    assert_counts(40, 0, 10, 20, 10);
    record = open_client(TAIL + 5, 20); /* from the future, and back */
    record->skipped = 1;
    (void)roster_bury(&roster, WORKER, TAIL);
    assert_counts(40, 0, 10, 20, 10);
    record = open_client(10, 20); /* both counts are possible, and not their sum */
    record->not_addressed = 6;
    record->skipped = 8;
    (void)roster_bury(&roster, WORKER, 20);
    assert_counts(50, 0, 14, 26, 10);
    record = open_client(10, 11); /* the only one done was cut */
    record->cut = 1;
    (void)roster_bury(&roster, WORKER, TAIL);
    assert_counts(70, 0, 14, 26, 30);
}

static void
test_roster_record_whose_writer_died_in_the_middle_of_a_change_is_readable_again(void **state)
{
    struct client_shm *record = open_client(10, 20);
    struct client_shm *in_channel = record_at(pass(WORKER));
    struct client_shm copy;

    (void)state;
    client_rec_change_begin(record);
    client_rec_change_begin(in_channel);
    (void)roster_bury(&roster, WORKER, TAIL);
    assert_int_equal(client_rec_read(record, &copy), 0);
    assert_int_equal(client_rec_read(in_channel, &copy), 0);
}

/* --- what was in the channel --- */

static void
test_roster_connections_that_a_successor_does_not_find_in_the_channel_are_lost(void **state)
{
    uint32_t taken_out = pass(WORKER);
    uint32_t found = pass(WORKER);
    uint32_t others = pass(OTHER);
    uint32_t passed_since;
    struct roster_census census = roster_bury(&roster, WORKER, TAIL);

    (void)state;
    assert_int_equal(census.passed, 2);
    record_at(found)->state = CLIENT_TAKEN;
    passed_since = pass(WORKER); /* to the successor, which has not come to it yet */
    assert_int_equal(roster_sweep_lost(&roster, WORKER), 1);
    assert_int_equal(record_at(taken_out)->state, CLIENT_FREE);
    assert_int_equal(record_at(found)->state, CLIENT_TAKEN);
    assert_int_equal(record_at(others)->state, CLIENT_PASSED);
    assert_int_equal(record_at(passed_since)->state, CLIENT_PASSED);
    assert_int_equal(counter(COUNTER_clients_accepted), 1);
    assert_int_equal(counter(COUNTER_clients_refused), 1);
    assert_int_equal(counter(COUNTER_refused_lost), 1);
    assert_int_equal(roster_sweep_lost(&roster, WORKER), 0);
}

static void
test_roster_connections_survive_several_deaths_in_the_channel(void **state)
{
    uint32_t index = pass(WORKER);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(roster_bury(&roster, WORKER, TAIL).passed, 1);
    assert_int_equal(record_at(index)->state, CLIENT_PASSED);
    assert_int_equal(roster_sweep_lost(&roster, WORKER), 1);
    assert_int_equal(record_at(index)->state, CLIENT_FREE);
}

/* --- free records --- */

static void
test_roster_hands_out_every_record_and_takes_back_what_was_returned(void **state)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    uint32_t index;
    bool seen[RECORDS] = {false};

    (void)state;
    for (uint32_t i = 0; i < RECORDS; i++) {
        index = pass(WORKER);
        assert_false(seen[index]);
        seen[index] = true;
    }
    assert_int_equal(roster_get(&roster, (const struct sockaddr *)&peer, 0, &index), -ENOBUFS);
    record_at(RECORDS - 1)->state = CLIENT_RETURNED;
    record_at(0)->state = CLIENT_RETURNED;
    assert_int_equal(get(), 0); /* the lowest first */
    assert_int_equal(get(), RECORDS - 1);
    assert_int_equal(roster_get(&roster, (const struct sockaddr *)&peer, 0, &index), -ENOBUFS);
}

/* A worker that has gone wrong may write into every record. */
static void
test_roster_record_that_is_free_stays_so_whatever_a_worker_writes_into_it(void **state)
{
    uint32_t index = pass(WORKER);
    uint32_t free_count;

    (void)state;
    roster_put(&roster, index);
    free_count = roster.free_count;
    record_at(index)->state = CLIENT_OPEN;
    assert_int_equal(roster_bury(&roster, WORKER, TAIL).lost, 0);
    record_at(index)->state = CLIENT_PASSED;
    assert_int_equal(roster_bury(&roster, WORKER, TAIL).passed, 0);
    assert_int_equal(roster_sweep_lost(&roster, WORKER), 0);
    assert_int_equal(roster.free_count, free_count);
    assert_int_equal(get(), index);
}

static void
test_roster_record_belongs_to_the_worker_that_it_was_passed_to_whatever_is_written_into_it(
    void **state)
{
    struct client_shm *mine = open_client(10, 20);
    struct client_shm *left_free = open_client(10, 20);
    struct client_shm *others = pass_in_state(OTHER, CLIENT_OPEN);
    uint32_t in_channel = pass(WORKER);

    (void)state;
    mine->worker = OTHER;
    others->worker = WORKER;
    record_at(in_channel)->worker = OTHER;
    record_at(in_channel)->life += 5;
    left_free->state = CLIENT_FREE; /* and so it would never be used again */
    assert_int_equal(roster_bury(&roster, WORKER, TAIL).lost, 1);
    assert_int_equal(mine->state, CLIENT_FREE);
    assert_false(roster.owners[left_free - segment.clients].out);
    assert_int_equal(others->state, CLIENT_OPEN);
    segment.members[WORKER].life += 100;
    record_at(in_channel)->life = (uint16_t)segment.members[WORKER].life;
    assert_int_equal(roster_sweep_lost(&roster, WORKER), 1);
    assert_int_equal(record_at(in_channel)->state, CLIENT_FREE);
}

static void
test_roster_is_sized_for_no_fewer_clients_than_were_asked_for(void **state)
{
    (void)state;
    for (uint64_t clients = 0; clients < 3000; clients++)
        assert_true(roster_clients(roster_records(clients)) >= clients);
}

#define WITH_ROSTER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ROSTER(test_roster_counts_what_a_client_of_a_dead_worker_was_due),
        WITH_ROSTER(
            test_roster_record_that_is_used_again_after_a_death_has_no_counts_of_the_one_before),
        WITH_ROSTER(test_roster_client_with_half_a_handshake_was_refused_and_due_nothing),
        WITH_ROSTER(test_roster_client_that_has_left_is_not_counted_again),
        WITH_ROSTER(test_roster_death_of_a_worker_concerns_its_own_clients_alone),
        WITH_ROSTER(test_roster_words_of_a_worker_that_has_gone_wrong_are_bounded),
        WITH_ROSTER(
            test_roster_record_whose_writer_died_in_the_middle_of_a_change_is_readable_again),
        WITH_ROSTER(test_roster_connections_that_a_successor_does_not_find_in_the_channel_are_lost),
        WITH_ROSTER(test_roster_connections_survive_several_deaths_in_the_channel),
        WITH_ROSTER(test_roster_hands_out_every_record_and_takes_back_what_was_returned),
        WITH_ROSTER(test_roster_record_that_is_free_stays_so_whatever_a_worker_writes_into_it),
        WITH_ROSTER(
            test_roster_record_belongs_to_the_worker_that_it_was_passed_to_whatever_is_written_into_it),
        cmocka_unit_test(test_roster_is_sized_for_no_fewer_clients_than_were_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
