/*
 * chan.h: connections on their way from the master to a worker. The descriptors are of temporary
 * files without a name; each is known by its inode.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/chan.h"
#include "tests/lib/in_child.h"

static int ends[2];

static int
set_up(void **state)
{
    (void)state;
    return chan_open(ends);
}

static int
tear_down(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static ino_t
inode_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

/* `count` connections, numbered from `first`, each with a descriptor of its own. */
static struct chan_batch
batch_of(uint32_t first, uint32_t count, ino_t inodes[CHAN_BATCH])
{
    struct chan_batch batch = {.count = count};

    for (uint32_t i = 0; i < count; i++) {
        batch.clients[i] = first + i;
        batch.fds[i] = memfd_create("connection", MFD_CLOEXEC);
        assert_true(batch.fds[i] >= 0);
        inodes[i] = inode_of(batch.fds[i]);
    }
    return batch;
}

static void
close_all(const struct chan_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->fds[i] >= 0)
            close(batch->fds[i]);
    }
}

static void
expect_batch(int fd, uint32_t first, uint32_t count, const ino_t inodes[CHAN_BATCH])
{
    struct chan_batch batch = {0};

    assert_int_equal(chan_recv(fd, &batch), 0);
    assert_int_equal(batch.count, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(batch.clients[i], first + i);
        assert_int_equal(inode_of(batch.fds[i]), inodes[i]);
        assert_int_equal(fcntl(batch.fds[i], F_GETFD), FD_CLOEXEC);
    }
    close_all(&batch);
}

static void
test_chan_one_connection_passes(void **state)
{
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(17, 1, inodes);

    (void)state;
    assert_int_equal(chan_send(ends[0], &batch), 0);
    close_all(&batch);
    expect_batch(ends[1], 17, 1, inodes);
}

static void
test_chan_whole_batch_of_descriptors_passes_in_order(void **state)
{
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(1000, CHAN_BATCH, inodes);

    (void)state;
    assert_int_equal(chan_send(ends[0], &batch), 0);
    close_all(&batch);
    expect_batch(ends[1], 1000, CHAN_BATCH, inodes);
}

static void
test_chan_batches_arrive_one_at_a_time(void **state)
{
    ino_t inodes[3][CHAN_BATCH];

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct chan_batch batch = batch_of(i * 100, i + 1, inodes[i]);
        assert_int_equal(chan_send(ends[0], &batch), 0);
        close_all(&batch);
    }
    for (uint32_t i = 0; i < 3; i++)
        expect_batch(ends[1], i * 100, i + 1, inodes[i]);
}

static void
test_chan_empty_says_again(void **state)
{
    struct chan_batch batch = {0};

    (void)state;
    assert_int_equal(chan_recv(ends[1], &batch), -EAGAIN);
}

static void
test_chan_full_says_again_and_loses_nothing(void **state)
{
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(0, 1, inodes);
    uint32_t sent = 0;
    int small = 4096;
    int rc;

    (void)state;
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    while (sent < 100000 && (rc = chan_send(ends[0], &batch)) == 0)
        batch.clients[0] = ++sent;
    assert_int_equal(rc, -EAGAIN);
    assert_true(sent > 1);
    expect_batch(ends[1], 0, 1, inodes);
    assert_int_equal(chan_send(ends[0], &batch), 0); /* room again: in its place */
    for (uint32_t i = 1; i <= sent; i++)
        expect_batch(ends[1], i, 1, inodes);
    assert_int_equal(chan_recv(ends[1], &batch), -EAGAIN);
    close_all(&batch);
}

static void
test_chan_ends_when_the_master_is_gone(void **state)
{
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(5, 2, inodes);

    (void)state;
    assert_int_equal(chan_send(ends[0], &batch), 0);
    close_all(&batch);
    close(ends[0]);
    ends[0] = -1;
    expect_batch(ends[1], 5, 2, inodes); /* what was sent before still arrives */
    assert_int_equal(chan_recv(ends[1], &batch), -EPIPE);
}

static void
test_chan_sending_to_nobody_is_an_error_and_no_signal(void **state)
{
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(5, 1, inodes);

    (void)state;
    close(ends[1]);
    ends[1] = -1;
    assert_int_equal(chan_send(ends[0], &batch), -EPIPE);
    close_all(&batch);
}

/* The worker that received the first batch dies; the second is still in the channel. */
static void
test_chan_successor_receives_what_its_predecessor_left(void **state)
{
    struct chan_batch got = {0};
    ino_t inodes[2][CHAN_BATCH];

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct chan_batch batch = batch_of(i * 10, 4, inodes[i]);
        assert_int_equal(chan_send(ends[0], &batch), 0);
        close_all(&batch);
    }
    ASSERT_0_IN_CHILD(chan_recv(ends[1], &got) != 0 || got.clients[0] != 0);
    expect_batch(ends[1], 10, 4, inodes[1]);
}

/* In a process of its own, which may open no more than `room` descriptors. */
static int
receive_with_room_for(uint32_t room)
{
    struct rlimit limit = {4 + room, 4 + room};
    struct chan_batch batch = {0};

    if (dup2(ends[1], 3) != 3 || close_range(4, ~0U, 0) != 0 ||
        setrlimit(RLIMIT_NOFILE, &limit) != 0 || chan_recv(3, &batch) != 0 || batch.count != 8)
        return 1;
    for (uint32_t i = 0; i < 8; i++) {
        if (batch.clients[i] != 50 + i || (batch.fds[i] >= 0) != (i < room))
            return 2;
    }
    return 0;
}

static void
test_chan_descriptors_without_room_are_missing_and_their_clients_are_known(void **state)
{
    (void)state;
    for (uint32_t room = 0; room <= 8; room += 4) {
        ino_t inodes[CHAN_BATCH];
        struct chan_batch batch = batch_of(50, 8, inodes);

        assert_int_equal(chan_send(ends[0], &batch), 0);
        close_all(&batch);
        ASSERT_0_IN_CHILD(receive_with_room_for(room));
    }
}

#define CHAN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* In place of the C library's: what the kernel says when it is short of something, sendmsg(2). */
static int send_error;

ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (send_error) {
        errno = send_error;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, msg, flags);
}

static void
test_chan_is_full_when_the_kernel_is_short_of_something(void **state)
{
    static const int temporary[] = {EAGAIN, ETOOMANYREFS, ENOBUFS, ENOMEM};
    ino_t inodes[CHAN_BATCH];
    struct chan_batch batch = batch_of(0, 1, inodes);

    (void)state;
    for (size_t i = 0; i < sizeof(temporary) / sizeof(temporary[0]); i++) {
        send_error = temporary[i];
        assert_int_equal(chan_send(ends[0], &batch), -EAGAIN);
    }
    send_error = EBADF;
    assert_int_equal(chan_send(ends[0], &batch), -EBADF);
    send_error = 0;
    assert_int_equal(chan_send(ends[0], &batch), 0);
    close_all(&batch);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CHAN_TEST(test_chan_one_connection_passes),
        CHAN_TEST(test_chan_whole_batch_of_descriptors_passes_in_order),
        CHAN_TEST(test_chan_batches_arrive_one_at_a_time),
        CHAN_TEST(test_chan_empty_says_again),
        CHAN_TEST(test_chan_full_says_again_and_loses_nothing),
        CHAN_TEST(test_chan_ends_when_the_master_is_gone),
        CHAN_TEST(test_chan_sending_to_nobody_is_an_error_and_no_signal),
        CHAN_TEST(test_chan_successor_receives_what_its_predecessor_left),
        CHAN_TEST(test_chan_descriptors_without_room_are_missing_and_their_clients_are_known),
        cmocka_unit_test_setup_teardown(test_chan_is_full_when_the_kernel_is_short_of_something,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
