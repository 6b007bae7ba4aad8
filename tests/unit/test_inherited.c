/*
 * inherited.h: which way each kind of descriptor is read and written.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/util/inherited.h"

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void
assert_kind(int fd, int access, enum inherited_kind kind)
{
    struct inherited inherited = inherited_open(fd, access);

    assert_int_equal(inherited.kind, kind);
    assert_int_equal(inherited.is_own, kind == INHERITED_OWN);
    assert_int_equal(inherited.fd != fd, kind == INHERITED_OWN);
    inherited_close(&inherited);
    assert_true(is_open(fd));
}

static void
test_inherited_devices_that_never_block_are_instant_and_others_of_their_kind_are_not(void **state)
{
    static const struct {
        const char *path;
        enum inherited_kind kind;
    } devices[] = {{"/dev/null", INHERITED_INSTANT},
                   {"/dev/zero", INHERITED_INSTANT},
                   {"/dev/full", INHERITED_INSTANT},
                   {"/dev/urandom", INHERITED_BLOCKING}};

    (void)state;
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        int fd = open(devices[i].path, O_RDONLY);
        assert_true(fd >= 0);
        assert_kind(fd, O_RDONLY, devices[i].kind);
        assert_int_equal(inherited_is_dev_null(fd), i == 0);
        assert_false(inherited_may_hang(fd));
        close(fd);
    }
}

static void
test_inherited_files_and_folders_may_hang_and_are_never_opened_again(void **state)
{
    char path[] = "/tmp/test_inherited.XXXXXX";
    int file = mkstemp(path);
    int folder = open("/", O_RDONLY | O_DIRECTORY);

    (void)state;
    assert_true(file >= 0 && folder >= 0);
    unlink(path);
    assert_kind(file, O_WRONLY, INHERITED_BLOCKING);
    assert_kind(folder, O_RDONLY, INHERITED_BLOCKING);
    assert_true(inherited_may_hang(file) && inherited_may_hang(folder));
    close(file);
    close(folder);
}

static void
test_inherited_pipe_is_opened_again_as_far_as_it_was_open_and_stays_blocking_for_the_others(
    void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_kind(ends[0], O_RDONLY, INHERITED_OWN);
    assert_kind(ends[1], O_WRONLY, INHERITED_OWN);
    assert_kind(ends[1], O_RDONLY, INHERITED_BLOCKING); /* the call itself says what is wrong */
    assert_false((fcntl(ends[0], F_GETFL) | fcntl(ends[1], F_GETFL)) & O_NONBLOCK);
    close(ends[0]);
    close(ends[1]);
}

/* A FIFO that is read and written is its own writer: it never ends. */
static void
test_inherited_fifo_for_reading_and_writing_stays_so(void **state)
{
    char folder[] = "/tmp/test_inherited.XXXXXX";
    struct inherited inherited;
    char byte;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    fd = open("fifo", O_RDWR);
    assert_true(fd >= 0);
    for (int i = 0; i < 2; i++) {
        inherited = inherited_open(fd, i == 0 ? O_RDONLY : O_WRONLY);
        assert_int_equal(inherited.kind, INHERITED_OWN);
        assert_int_equal(fcntl(inherited.fd, F_GETFL) & O_ACCMODE, O_RDWR);
        assert_int_equal(inherited_read(&inherited, &byte, 1), -EAGAIN);
        inherited_close(&inherited);
    }
    close(fd);
    assert_int_equal(unlink("fifo"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void
test_inherited_terminal_is_opened_again_but_not_its_controlling_end(void **state)
{
    int control = posix_openpt(O_RDWR | O_NOCTTY);
    int terminal;

    (void)state;
    assert_true(control >= 0 && grantpt(control) == 0 && unlockpt(control) == 0);
    terminal = open(ptsname(control), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    assert_kind(terminal, O_RDONLY, INHERITED_OWN);
    assert_kind(control, O_RDONLY, INHERITED_BLOCKING);
    assert_true(inherited_is_terminal(terminal));
    close(terminal);
    close(control);
}

static void
test_inherited_datagram_that_just_fits_is_read_and_a_longer_one_is_an_error(void **state)
{
    struct inherited inherited;
    char data[4];
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    assert_kind(ends[0], O_RDONLY, INHERITED_SOCKET);
    inherited = inherited_open(ends[0], O_RDONLY);
    assert_int_equal(inherited_read(&inherited, data, sizeof(data)), -EAGAIN);
    assert_int_equal(send(ends[1], "fits", 4, 0), 4);
    assert_int_equal(send(ends[1], "fails", 5, 0), 5);
    assert_int_equal(send(ends[1], "", 0, 0), 0);
    assert_int_equal(inherited_read(&inherited, data, sizeof(data)), 4);
    assert_int_equal(inherited_read(&inherited, data, sizeof(data)), -EMSGSIZE);
    assert_int_equal(inherited_read(&inherited, data, sizeof(data)), 0);
    inherited_close(&inherited);
    assert_true(is_open(ends[0]));
    close(ends[0]);
    close(ends[1]);
}

static void
test_inherited_descriptor_that_is_closed_has_no_type(void **state)
{
    struct inherited inherited = inherited_open(999, O_RDONLY);
    char byte;

    (void)state;
    assert_int_equal(inherited.kind, INHERITED_BLOCKING);
    assert_int_equal(inherited.type, 0);
    assert_int_equal(inherited_read(&inherited, &byte, 1), -EBADF);
    assert_false(inherited_is_dev_null(999) || inherited_may_hang(999) ||
                 inherited_is_terminal(999));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_inherited_devices_that_never_block_are_instant_and_others_of_their_kind_are_not),
        cmocka_unit_test(test_inherited_files_and_folders_may_hang_and_are_never_opened_again),
        cmocka_unit_test(
            test_inherited_pipe_is_opened_again_as_far_as_it_was_open_and_stays_blocking_for_the_others),
        cmocka_unit_test(test_inherited_fifo_for_reading_and_writing_stays_so),
        cmocka_unit_test(test_inherited_terminal_is_opened_again_but_not_its_controlling_end),
        cmocka_unit_test(
            test_inherited_datagram_that_just_fits_is_read_and_a_longer_one_is_an_error),
        cmocka_unit_test(test_inherited_descriptor_that_is_closed_has_no_type),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
