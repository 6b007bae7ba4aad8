/*
 * listen.h, listen_address.h, socket_file.h: addresses at their limits, and the files of unix sockets, which
 * are removed when they are still ours.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/listen.h"
#include "server/listen_address.h"
#include "server/socket_file.h"

static char folder[64];
static char paths[2][80];
static char addresses[256]; /* of both */
static struct listeners listeners;

static int
set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/crier-listen-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 2; i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%d", folder, i);
    snprintf(addresses, sizeof(addresses), "unix:%s\nunix:%s", paths[0], paths[1]);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    listen_close_all(&listeners);
    for (int i = 0; i < 2; i++)
        (void)unlink(paths[i]);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static bool
exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* A socket of another server at that path; it listens when `live`. */
static int
other_server(const char *path, bool live)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    if (live)
        assert_int_equal(listen(fd, 1), 0);
    return fd;
}

/* As connect(2), in the code under test as well. While `swapped_for` is set, the caller has no permission,
 * and during call number `swapped_in` another process puts a symbolic link to that file in the place of
 * paths[0]. */
static const char *swapped_for;
static int swapped_in;

int
connect(int fd, const struct sockaddr *address, socklen_t bytes)
{
    if (!swapped_for)
        return (int)syscall(SYS_connect, fd, address, bytes);
    if (swapped_in-- == 0) {
        assert_int_equal(unlink(paths[0]), 0);
        assert_int_equal(symlink(swapped_for, paths[0]), 0);
    }
    errno = EACCES;
    return -1;
}

static bool
is_served(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    rc = connect(fd, (const struct sockaddr *)&un, sizeof(un));
    close(fd);
    return rc == 0;
}

/* --- files --- */

static void
test_listen_removes_the_files_of_its_sockets(void **state)
{
    (void)state;
    assert_int_equal(listen_open_all(&listeners, addresses), 0);
    assert_int_equal(listeners.count, 2);
    assert_true(is_served(paths[0]) && is_served(paths[1]));
    listen_close_all(&listeners);
    assert_false(exists(paths[0]) || exists(paths[1]));
    listen_close_all(&listeners);
}

/* The second of the two is left alone, whichever of them it is. */
static void
test_listen_leaves_a_socket_that_another_server_has_put_at_its_path(void **state)
{
    (void)state;
    for (int replaced = 0; replaced < 2; replaced++) {
        int fd;

        assert_int_equal(listen_open_all(&listeners, addresses), 0);
        assert_int_equal(unlink(paths[replaced]), 0);
        fd = other_server(paths[replaced], true);
        socket_file_remove_all(); /* as at an end without listen_close_all */
        assert_true(is_served(paths[replaced]));
        assert_false(exists(paths[!replaced]));
        listen_close_all(&listeners);
        assert_true(is_served(paths[replaced]));
        close(fd);
        assert_int_equal(unlink(paths[replaced]), 0);
    }
}

static void
test_listen_removes_nothing_when_its_file_is_gone_or_is_no_socket_any_more(void **state)
{
    int fd;

    (void)state;
    assert_int_equal(listen_open_all(&listeners, addresses), 0);
    assert_int_equal(unlink(paths[0]), 0);
    assert_int_equal(unlink(paths[1]), 0);
    fd = open(paths[1], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    listen_close_all(&listeners);
    assert_true(exists(paths[1]));
}

static void
test_listen_takes_the_path_of_a_dead_server_and_of_no_live_one(void **state)
{
    int live = other_server(paths[1], true);

    (void)state;
    close(other_server(paths[0], false));
    assert_true(exists(paths[0]));
    assert_int_equal(listen_open_all(&listeners, addresses), -EADDRINUSE);
    assert_int_equal(listeners.count, 0); /* nor does the first stay open */
    assert_false(exists(paths[0]));
    assert_true(is_served(paths[1]));
    close(live);
    assert_int_equal(listen_open_all(&listeners, addresses), 0);
    assert_true(is_served(paths[0]) && is_served(paths[1]));
}

/* --- permissions --- */

/* Whether a socket without permissions is of a dead server is found out with its mode changed. */
static void
test_listen_changes_no_file_that_a_link_in_the_place_of_a_socket_leads_to(void **state)
{
    int fd = open(paths[1], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    struct stat st;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    snprintf(addresses, sizeof(addresses), "unix:%s", paths[0]);
    for (int call = 0; call < 2; call++) {
        close(other_server(paths[0], false));
        assert_int_equal(chmod(paths[0], 0066), 0);
        swapped_for = paths[1];
        swapped_in = call;
        assert_int_equal(listen_open_all(&listeners, addresses), -EACCES);
        swapped_for = NULL;
        assert_int_equal(lstat(paths[1], &st), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0600);
        assert_int_equal(unlink(paths[0]), 0); /* the link: it is not followed, nor removed */
    }
}

static void
test_listen_gives_the_file_of_a_socket_its_mode_whatever_the_umask(void **state)
{
    mode_t before = umask(077);
    struct stat st;

    (void)state;
    snprintf(addresses, sizeof(addresses), "unix:%s,mode=662\nunix:%s", paths[0], paths[1]);
    assert_int_equal(listen_open_all(&listeners, addresses), 0);
    umask(before);
    assert_int_equal(lstat(paths[0], &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0662);
    assert_int_equal(lstat(paths[1], &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0700);
    assert_true(is_served(paths[0]) && is_served(paths[1]));
    listen_close_all(&listeners);
    assert_false(exists(paths[0]));
}

/* --- addresses --- */

static bool
is_address(const char *text)
{
    char why[CONF_WHY_BYTES];

    return listen_address_check(text, why) == 0;
}

static void
test_listen_checks_addresses_to_their_limits(void **state)
{
    struct sockaddr_un un;
    char path[5 + sizeof(un.sun_path) + 1] = "unix:";
    char host[300];

    (void)state;
    memset(path + 5, 'x', sizeof(un.sun_path));
    path[5 + sizeof(un.sun_path) - 1] = '\0';
    assert_true(is_address(path));
    path[5 + sizeof(un.sun_path) - 1] = 'x';
    path[5 + sizeof(un.sun_path)] = '\0';
    assert_false(is_address(path));
    assert_true(is_address("unix:x"));
    assert_false(is_address("unix:"));
    assert_false(is_address("unix:,mode=660"));
    assert_false(is_address("unix:@x"));
    assert_true(is_address("unix:./@x"));
    memcpy(path + 5 + sizeof(un.sun_path) - 1, ",", 2);
    assert_false(is_address(path));
    assert_true(is_address("unix:x,mode=0660,group=0"));
    assert_false(is_address("unix:x,mod=660"));
    assert_false(is_address("127.0.0.1:80,mode=660"));
    assert_false(is_address("fd:3,mode=660"));
    assert_true(is_address("fd:3"));
    assert_false(is_address("fd:2"));
    assert_false(is_address("fd:3x"));
    assert_true(is_address(":65535"));
    assert_false(is_address(":65536"));
    assert_true(is_address("127.0.0.1:0"));
    assert_false(is_address("127.0.0.1:"));
    assert_false(is_address("127.0.0.1"));
    assert_false(is_address("127.0.0.1:-1"));
    assert_true(is_address("65535"));
    assert_false(is_address("65536"));
    assert_false(is_address("80x"));
    assert_true(is_address("[::1]:80"));
    assert_true(is_address("[fe80::1%lo]:80"));
    assert_false(is_address("[]:80"));
    assert_false(is_address("[localhost]:80"));
    assert_false(is_address("[127.0.0.1]:80"));
    assert_false(is_address("::1:80"));
    memset(host, 'h', sizeof(host));
    memcpy(host + 255, ":80", 4);
    assert_true(is_address(host));
    memcpy(host + 255, "h:80", 5);
    assert_false(is_address(host));
}

static void
test_listen_names_what_a_person_would_type(void **state)
{
    (void)state;
    assert_int_equal(listen_open_all(&listeners, "127.0.0.1:0"), 0);
    assert_memory_equal(listeners.list[0].url, "ws://127.0.0.1:", 15);
    assert_false(listeners.list[0].is_unix);
    listen_close_all(&listeners);
    assert_int_equal(listen_open_all(&listeners, ":0"), 0);
    assert_memory_equal(listeners.list[0].url, "ws://localhost:", 15);
    listen_close_all(&listeners);
    assert_int_equal(listen_open_all(&listeners, addresses), 0);
    assert_true(listeners.list[0].is_unix);
    assert_memory_equal(listeners.list[0].url, addresses, 5 + strlen(paths[0]));
}

#define WITH_PATHS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PATHS(test_listen_removes_the_files_of_its_sockets),
        WITH_PATHS(test_listen_leaves_a_socket_that_another_server_has_put_at_its_path),
        WITH_PATHS(test_listen_removes_nothing_when_its_file_is_gone_or_is_no_socket_any_more),
        WITH_PATHS(test_listen_takes_the_path_of_a_dead_server_and_of_no_live_one),
        WITH_PATHS(test_listen_changes_no_file_that_a_link_in_the_place_of_a_socket_leads_to),
        WITH_PATHS(test_listen_gives_the_file_of_a_socket_its_mode_whatever_the_umask),
        WITH_PATHS(test_listen_checks_addresses_to_their_limits),
        WITH_PATHS(test_listen_names_what_a_person_would_type),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
