/*
 * segment.h: what is attached, and what is refused with which error.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <fcntl.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/ring_rig.h"

enum { MEMBERS = 3, BITS = 6, ARENA = 8192 };

static struct ring_rig rig;

/* An image of the segment in a file that can be cut and written. */
static int image;
static struct segment_shm head;

static int
set_up(void **state)
{
    (void)state;
    ring_rig_open(&rig, MEMBERS, BITS, ARENA);
    image = memfd_create("image", MFD_CLOEXEC);
    assert_true(image >= 0);
    assert_int_equal(write(image, rig.segment.head, rig.segment.bytes), rig.segment.bytes);
    memcpy(&head, rig.segment.head, sizeof(head));
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    close(image);
    ring_rig_close(&rig);
    return 0;
}

static void
expect_attach(int rc)
{
    struct segment segment;

    for (int read_only = 0; read_only < 2; read_only++) {
        int got = segment_attach(&segment, image, read_only);
        if (got == 0)
            segment_detach(&segment);
        assert_int_equal(got, rc);
    }
}

/* `head` as it was changed, then as it should be. */
static void
expect_head(int rc)
{
    assert_int_equal(pwrite(image, &head, sizeof(head), 0), sizeof(head));
    expect_attach(rc);
    memcpy(&head, rig.segment.head, sizeof(head));
}

static void
test_segment_image_is_attached_like_the_segment(void **state)
{
    struct segment segment;

    (void)state;
    assert_int_equal(segment_attach(&segment, image, true), 0);
    assert_int_equal(segment.geometry.member_count, MEMBERS);
    assert_int_equal(segment.geometry.slot_bits, BITS);
    assert_int_equal(segment.geometry.arena_bytes, ARENA);
    assert_memory_equal(segment.head, rig.segment.head, rig.segment.bytes);
    segment_detach(&segment);
}

static void
test_segment_of_another_version_is_refused(void **state)
{
    (void)state;
    head.layout_version++;
    expect_head(-EPROTO);
    head.layout_version = 0;
    expect_head(-EPROTO);
    head.header_bytes += 8;
    expect_head(-EPROTO);
    expect_head(0);
}

static void
test_segment_that_is_none_is_refused(void **state)
{
    (void)state;
    head.magic[0] = 'C';
    expect_head(-EPROTO);
    memset(&head, 0, sizeof(head));
    expect_head(-EPROTO);
    memset(&head, 0xff, sizeof(head));
    expect_head(-EPROTO);
}

static void
test_segment_that_was_cut_anywhere_is_refused(void **state)
{
    uint64_t total = rig.segment.geometry.total_bytes;

    (void)state;
    for (uint64_t bytes = total - 1; bytes > sizeof(head); bytes -= bytes > 9973 ? 997 : 41) {
        assert_int_equal(ftruncate(image, (off_t)bytes), 0);
        expect_attach(-EMSGSIZE);
    }
    for (uint64_t bytes = 0; bytes < sizeof(head); bytes += 7) {
        assert_int_equal(ftruncate(image, (off_t)bytes), 0);
        expect_attach(-EMSGSIZE);
    }
}

static void
test_segment_with_sizes_that_no_master_writes_is_refused(void **state)
{
    static const uint64_t odd[] = {0, 1, 8, UINT32_MAX, 1ULL << 40, UINT64_MAX - 15, UINT64_MAX};
    uint64_t *offsets[] = {&head.geometry.members_off, &head.geometry.slots_off,
                           &head.geometry.clients_off, &head.geometry.arenas_off};

    (void)state;
    head.geometry.total_bytes++;
    expect_head(-EMSGSIZE);
    head.geometry.member_count = 0;
    expect_head(-EBADMSG);
    head.geometry.member_count = RING_OWNERS_MAX + 1;
    expect_head(-EBADMSG);
    head.geometry.member_count = RING_OWNERS_MAX; /* more than there is room for */
    expect_head(-EBADMSG);
    head.geometry.slot_bits = SEGMENT_SLOT_BITS_MAX + 1;
    expect_head(-EBADMSG);
    head.geometry.slot_bits = SEGMENT_SLOT_BITS_MAX;
    expect_head(-EBADMSG);
    head.geometry.arena_bytes += 8;
    expect_head(-EBADMSG);
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        head.geometry.arena_bytes = odd[i];
        expect_head(-EBADMSG);
    }
    head.geometry.client_capacity = UINT64_MAX / sizeof(struct client_shm) + 2;
    expect_head(-EBADMSG);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        *offsets[i] = rig.segment.geometry.total_bytes;
        expect_head(-EBADMSG);
        *offsets[i] = UINT64_MAX - 7;
        expect_head(-EBADMSG);
        *offsets[i] += 4; /* words that lie across cache lines are not atomic */
        expect_head(-EBADMSG);
        *offsets[i] = 0; /* over the header */
        expect_head(-EBADMSG);
        for (size_t k = 0; k < sizeof(offsets) / sizeof(offsets[0]); k++) {
            *offsets[i] = *offsets[k]; /* over each other */
            expect_head(i == k ? 0 : -EBADMSG);
        }
        *offsets[i] += LAYOUT_LINE; /* inside the mapping, and over the end of the next area */
        expect_head(-EBADMSG);
        *offsets[i] -= LAYOUT_LINE;
        expect_head(-EBADMSG);
    }
    head.geometry.client_capacity++; /* there is room on the page, but that moves nothing */
    expect_head(0);
    head.geometry.client_capacity = 1ULL << 40;
    expect_head(-EBADMSG);
    expect_head(0);
}

static void
test_segment_geometry_is_not_looked_at_again(void **state)
{
    struct geometry_shm before = rig.segment.geometry;
    char why[RING_WHY_BYTES];
    struct ring ring;
    uint64_t seq;

    (void)state;
    assert_int_equal(ring_open(&ring, &rig.segment, 1, rig.wake_fds), 0);
    memset(&rig.segment.head->geometry, 0xff, sizeof(before));
    assert_memory_equal(&rig.segment.geometry, &before, sizeof(before));
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(ring_publish(&ring, RECORD_TEXT, "text", 4, 0, 0, &seq), 0);
    assert_true(ring_check(&ring, why));
}

/* Offsets that follow from the counts do not make the counts good. */
static void
test_segment_counts_are_bounded_though_all_offsets_follow_from_them(void **state)
{
    static const struct {
        uint32_t members;
        uint32_t slot_bits;
        uint64_t arena_bytes;
        int rc;
    } counts[] = {
        {1, BITS, 4096, 0},
        {0, BITS, 4096, -EBADMSG},
        {RING_OWNERS_MAX + 1, BITS, 4096, -EBADMSG},
        {1, SEGMENT_SLOT_BITS_MAX, 4096, 0},
        {1, SEGMENT_SLOT_BITS_MAX + 1, 4096, -EBADMSG},
        {1, BITS, 0, -EBADMSG},
        {1, BITS, 4096 + 64, -EBADMSG},
        {1, BITS, 4096 + 2048, -EBADMSG},
        {1, BITS, RING_ARENA_MAX_BYTES, 0},
        {1, BITS, RING_ARENA_MAX_BYTES + 4096, -EBADMSG},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        head.geometry.member_count = counts[i].members;
        head.geometry.slot_bits = counts[i].slot_bits;
        head.geometry.arena_bytes = counts[i].arena_bytes;
        segment_lay_out(&head.geometry);
        assert_int_equal(ftruncate(image, (off_t)head.geometry.total_bytes), 0); /* holes */
        expect_head(counts[i].rc);
    }
}

#define SEGMENT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void
test_segment_may_have_as_many_members_as_a_slot_word_can_name(void **state)
{
    struct segment_plan plan = {
        .member_count = RING_OWNERS_MAX, .arena_bytes = 4096, .client_capacity = 1};
    struct segment segment;
    int fd = segment_create(&segment, &plan);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(segment.geometry.member_count, RING_OWNERS_MAX);
    segment_detach(&segment);
    close(fd);
}

static uint32_t
slot_bits_for(uint32_t members, uint64_t arena_bytes)
{
    struct segment_plan plan = {
        .member_count = members, .arena_bytes = arena_bytes, .client_capacity = 1};
    struct segment segment;
    uint32_t bits;
    int fd = segment_create(&segment, &plan);

    assert_true(fd >= 0);
    bits = segment.geometry.slot_bits;
    segment_detach(&segment);
    close(fd);
    return bits;
}

static void
test_segment_has_a_slot_for_each_small_record_of_all_arenas_together(void **state)
{
    uint64_t slots_64 = 64ULL * SEGMENT_SLOT_BYTES;

    (void)state;
    assert_int_equal(slot_bits_for(1, 4096), 6); /* the least */
    assert_int_equal(slot_bits_for(1, slots_64), 6);
    assert_int_equal(slot_bits_for(2, slots_64), 7);
    assert_int_equal(slot_bits_for(4, slots_64), 8);
    assert_int_equal(slot_bits_for(5, slots_64), 9);
}

static void
test_segment_is_allocated_up_to_the_clients_and_sealed(void **state)
{
    struct segment_plan plan = {
        .member_count = MEMBERS, .arena_bytes = ARENA, .client_capacity = 1000000};
    struct segment_size size = segment_measure(&plan);
    struct segment segment;
    struct stat st;
    int fd = segment_create(&segment, &plan);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, size.total_bytes);
    assert_int_equal(segment.geometry.total_bytes, size.total_bytes);
    assert_int_equal(segment.geometry.clients_off, size.allocated_bytes);
    assert_true((uint64_t)st.st_blocks * 512 >= size.allocated_bytes);
    assert_true((uint64_t)st.st_blocks * 512 < size.total_bytes);
    assert_int_equal(ftruncate(fd, st.st_size - SEGMENT_PAGE_BYTES), -1);
    assert_int_equal(ftruncate(fd, st.st_size + SEGMENT_PAGE_BYTES), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* would end all publishing */
    assert_int_equal(errno, EPERM);
    segment_detach(&segment);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SEGMENT_TEST(test_segment_image_is_attached_like_the_segment),
        SEGMENT_TEST(test_segment_of_another_version_is_refused),
        SEGMENT_TEST(test_segment_that_is_none_is_refused),
        SEGMENT_TEST(test_segment_that_was_cut_anywhere_is_refused),
        SEGMENT_TEST(test_segment_with_sizes_that_no_master_writes_is_refused),
        SEGMENT_TEST(test_segment_counts_are_bounded_though_all_offsets_follow_from_them),
        SEGMENT_TEST(test_segment_geometry_is_not_looked_at_again),
        cmocka_unit_test(test_segment_has_a_slot_for_each_small_record_of_all_arenas_together),
        cmocka_unit_test(test_segment_is_allocated_up_to_the_clients_and_sealed),
        cmocka_unit_test(test_segment_may_have_as_many_members_as_a_slot_word_can_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
