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
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/socket_mode.h"

static char folder[64];
static char path[80];
static int fd;
static struct socket_mode mode;

static int
set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/crier-mode-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    close(fd);
    (void)unlink(path);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static struct stat
look(void)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st;
}

/* Binds as listen.c does, under an umask that takes nothing away. */
static struct stat
bind_hidden(const char *options)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    mode_t before = umask(0);

    assert_null(socket_mode_parse(options, &mode));
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    assert_int_equal(socket_mode_hide(&mode, fd), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    umask(before);
    return look();
}

static void
test_socket_mode_the_file_has_no_permissions_until_it_has_the_right_ones(void **state)
{
    struct stat created = bind_hidden(",mode=620");

    (void)state;
    assert_int_equal(created.st_mode, S_IFSOCK | 0);
    assert_int_equal(socket_mode_apply(&mode, path, &created), 0);
    assert_int_equal(look().st_mode, S_IFSOCK | 0620);
    assert_int_equal(look().st_gid, created.st_gid);
}

static void
test_socket_mode_a_file_without_options_is_as_the_umask_leaves_it(void **state)
{
    struct stat created = bind_hidden("");

    (void)state;
    assert_false(socket_mode_is_given(&mode));
    assert_int_equal(created.st_mode, S_IFSOCK | 0777);
    assert_int_equal(socket_mode_apply(&mode, path, &created), 0);
    assert_int_equal(look().st_mode, S_IFSOCK | 0777);
}

/* Root may give any group; another user one of its own. */
static void
test_socket_mode_the_group_is_given_and_may_connect(void **state)
{
    gid_t gid = geteuid() == 0 ? 65533 : getegid();
    char options[32];
    struct stat created;

    (void)state;
    snprintf(options, sizeof(options), ",group=%u", gid);
    created = bind_hidden(options);
    assert_int_equal(socket_mode_apply(&mode, path, &created), 0);
    assert_int_equal(look().st_mode, S_IFSOCK | SOCKET_MODE_OF_GROUP);
    assert_int_equal(look().st_gid, gid);
    assert_int_equal(look().st_uid, geteuid());
}

static void
test_socket_mode_another_file_at_the_path_is_left_alone(void **state)
{
    struct stat created = bind_hidden(",mode=666");
    char other[96];
    int file;

    (void)state;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(socket_mode_apply(&mode, path, &created), -ENOENT);
    snprintf(other, sizeof(other), "%s/other", folder);
    file = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(socket_mode_apply(&mode, path, &created), -ESTALE);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(socket_mode_apply(&mode, path, &created), -ESTALE);
    assert_int_equal(look().st_mode, S_IFREG | 0600);
    close(file);
}

static void
test_socket_mode_reads_octal_permissions_and_groups_in_any_order(void **state)
{
    static const struct {
        const char *text;
        int mode;
        const char *group;
    } rows[] = {
        {"", SOCKET_MODE_NOT_GIVEN, ""},
        {",mode=0", 0, ""},
        {",mode=660", 0660, ""},
        {",mode=0777", 0777, ""},
        {",group=root", SOCKET_MODE_OF_GROUP, "root"},
        {",group=0,mode=600", 0600, "0"},
        {",mode=600,group=4294967294", 0600, "4294967294"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_null(socket_mode_parse(rows[i].text, &mode));
        assert_int_equal(mode.mode, rows[i].mode);
        assert_string_equal(mode.group, rows[i].group);
        assert_int_equal(socket_mode_is_given(&mode), i > 0);
    }
}

static void
test_socket_mode_refuses_what_is_neither(void **state)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {",", "mode="},
        {",660", "mode="},
        {",mod=660", "mode="},
        {",mode=660,", "group="},
        {",mode=", "octal"},
        {",mode=rw", "octal"},
        {",mode=680", "octal"},
        {",mode=1777", "octal"},
        {",mode=00660", "octal"},
        {",mode=-1", "octal"},
        {",mode=660 ", "octal"},
        {",mode=660,mode=660", "one mode="},
        {",group=", "group"},
        {",group=no-such-group", "group"},
        {",group=4294967295", "group"},
        {",group=-1", "group"},
        {",group=0x0", "group"},
        {",group=root,group=root", "one group="},
        {",group=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "group"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *wanted = socket_mode_parse(rows[i].text, &mode);

        assert_non_null(wanted);
        assert_non_null(strstr(wanted, rows[i].word));
    }
}

#define WITH_SOCKET(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SOCKET(test_socket_mode_the_file_has_no_permissions_until_it_has_the_right_ones),
        WITH_SOCKET(test_socket_mode_a_file_without_options_is_as_the_umask_leaves_it),
        WITH_SOCKET(test_socket_mode_the_group_is_given_and_may_connect),
        WITH_SOCKET(test_socket_mode_another_file_at_the_path_is_left_alone),
        cmocka_unit_test(test_socket_mode_reads_octal_permissions_and_groups_in_any_order),
        cmocka_unit_test(test_socket_mode_refuses_what_is_neither),
    };

    return cmocka_run_group_tests_name("socket_mode", tests, NULL, NULL);
}
