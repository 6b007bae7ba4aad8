/*
 * cgroup.h: made-up trees of files, as the kernel shows them to processes in groups of version 1, of
 * version 2, of both, and in containers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/cgroup.h"

enum { PATH_BYTES = 512, TREE_DEPTH = 16 };

#define MiB (1024ull * 1024)
#define UNLIMITED_1 "9223372036854771712\n" /* as version 1 writes it */

static char root[PATH_BYTES];
static struct cgroup_limit found;

/* Writes `text` to a file of the tree, making the folders above it. */
static void
put(const char *path, const char *text)
{
    char name[2 * PATH_BYTES];
    FILE *file;

    snprintf(name, sizeof(name), "%s%s", root, path);
    for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        (void)mkdir(name, 0700);
        *slash = '/';
    }
    file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int
set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/crier-cgroup-XXXXXX");
    memset(&found, 0xff, sizeof(found));
    return mkdtemp(root) ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    return nftw(root, remove_one, TREE_DEPTH, FTW_DEPTH | FTW_PHYS);
}

static void
assert_file(const char *path)
{
    char name[2 * PATH_BYTES];

    snprintf(name, sizeof(name), "%s%s", root, path);
    assert_string_equal(found.file, name);
}

/* --- version 2 --- */

#define MOUNT_2 "/sys/fs/cgroup"
#define MOUNTINFO_2 "25 1 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"

static void
put_group_2(const char *group, const char *max, const char *current)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), MOUNT_2 "%s/memory.max", group);
    put(path, max);
    snprintf(path, sizeof(path), MOUNT_2 "%s/memory.current", group);
    put(path, current);
}

static void
test_version_2_the_group_that_leaves_least_counts(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/system.slice/crier.service\n");
    put("/proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n" MOUNTINFO_2);
    put_group_2("/system.slice/crier.service", "max\n", "1048576\n");
    put_group_2("/system.slice", "536870912\n", "104857600\n");
    put("/sys/fs/cgroup/memory.stat", "anon 5\n"); /* the top has no limit */

    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 512 * MiB);
    assert_int_equal(found.used, 100 * MiB);
    assert_int_equal(found.left, 412 * MiB);
    assert_file("/sys/fs/cgroup/system.slice/memory.max");

    put_group_2("/system.slice/crier.service", "134217728\n", "1048576\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.left, 127 * MiB);
    assert_file("/sys/fs/cgroup/system.slice/crier.service/memory.max");

    put_group_2("/system.slice", "536870912\n", "536870912\n"); /* neighbours use it up */
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.left, 0);
    assert_file("/sys/fs/cgroup/system.slice/memory.max");
}

static void
test_version_2_max_everywhere_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    put_group_2("/a/b", "max\n", "5\n");
    put_group_2("/a", "max\n", "5\n");
    assert_false(cgroup_find_memory(root, 0, &found));
}

static void
test_version_2_memory_high_counts_where_it_is_lower(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    put_group_2("/a", "1073741824\n", "0\n");
    put("/sys/fs/cgroup/a/memory.high", "max\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_file("/sys/fs/cgroup/a/memory.max");

    put("/sys/fs/cgroup/a/memory.high", "536870912\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 512 * MiB);
    assert_file("/sys/fs/cgroup/a/memory.high");
}

static void
test_version_2_files_in_the_page_cache_are_not_in_use(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    put_group_2("/a", "536870912\n", "419430400\n");
    put("/sys/fs/cgroup/a/memory.stat",
        "anon 104857600\nfile 314572800\ninactive_file 209715200\nactive_file 104857600\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.used, 100 * MiB);
    assert_int_equal(found.left, 412 * MiB);
}

static void
test_version_2_swap_counts_as_far_as_the_group_may_use_it(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    put_group_2("/a", "536870912\n", "0\n");
    assert_true(cgroup_find_memory(root, 64 * MiB, &found)); /* swap is not limited */
    assert_int_equal(found.left, 576 * MiB);

    put("/sys/fs/cgroup/a/memory.swap.max", "33554432\n");
    put("/sys/fs/cgroup/a/memory.swap.current", "1048576\n");
    assert_true(cgroup_find_memory(root, 64 * MiB, &found));
    assert_int_equal(found.left, 543 * MiB);

    put("/sys/fs/cgroup/a/memory.swap.max", "0\n");
    assert_true(cgroup_find_memory(root, 64 * MiB, &found));
    assert_int_equal(found.left, 512 * MiB);
}

static void
test_version_2_the_top_of_a_container_is_the_last_group(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    put_group_2("", "268435456\n", "0\n");
    put("/sys/fs/memory.max", "1\n"); /* above the mount, no group */
    put("/sys/fs/memory.current", "1\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 256 * MiB);
    assert_file("/sys/fs/cgroup/memory.max");
}

static void
test_version_2_a_limit_at_any_level_counts_up_to_the_mount(void **state)
{
    static const char *const levels[] = {"/a/b/c", "/a/b", "/a", ""};

    (void)state;
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", MOUNTINFO_2);
    for (unsigned level = 0; level < 4; level++) {
        char path[PATH_BYTES];
        char text[32];

        /* Each leaves less than all below it. */
        snprintf(text, sizeof(text), "%llu\n", (8 - level) * MiB);
        put_group_2(levels[level], text, "0\n");
        assert_true(cgroup_find_memory(root, 0, &found));
        assert_int_equal(found.limit, (8 - level) * MiB);
        snprintf(path, sizeof(path), MOUNT_2 "%s/memory.max", levels[level]);
        assert_file(path);
    }
    for (unsigned level = 0; level < 3; level++)
        put_group_2(levels[level], "max\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 5 * MiB); /* the top alone has one */
}

/* --- version 1 --- */

#define MOUNTINFO_1                                                                                \
    "30 1 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"                                             \
    "31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"                  \
    "35 30 0:32 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n"          \
    "36 30 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"                                \
    "38 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
#define CGROUP_1 "9:name=systemd:/user\n8:pids:/p\n5:cpu,cpuacct:/c\n4:memory:/a/b\n0::/user\n"

static void
put_group_1(const char *group, const char *limit, const char *usage)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", group);
    put(path, limit);
    snprintf(path, sizeof(path), "/sys/fs/cgroup/memory%s/memory.usage_in_bytes", group);
    put(path, usage);
}

static void
test_version_1_and_2_side_by_side_the_controller_is_where_version_1_has_it(void **state)
{
    (void)state;
    put("/proc/self/cgroup", CGROUP_1);
    put("/proc/self/mountinfo", MOUNTINFO_1);
    put("/sys/fs/cgroup/unified/user/memory.max", "1\n"); /* not its controller */
    put_group_1("/a/b", "536870912\n", "419430400\n");
    put_group_1("/a", UNLIMITED_1, "419430400\n");
    put_group_1("", UNLIMITED_1, "419430400\n");
    put("/sys/fs/cgroup/memory/a/b/memory.stat",
        "cache 9\ninactive_file 1\ntotal_inactive_file 209715200\ntotal_active_file 104857600\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 512 * MiB);
    assert_int_equal(found.used, 100 * MiB);
    assert_int_equal(found.left, 412 * MiB);
    assert_file("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes");
}

static void
test_version_1_unlimited_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", CGROUP_1);
    put("/proc/self/mountinfo", MOUNTINFO_1);
    put_group_1("/a/b", UNLIMITED_1, "1\n");
    put_group_1("/a", UNLIMITED_1, "1\n");
    assert_false(cgroup_find_memory(root, 0, &found));
}

static void
test_version_1_a_group_above_limits_unless_hierarchy_is_off(void **state)
{
    (void)state;
    put("/proc/self/cgroup", CGROUP_1);
    put("/proc/self/mountinfo", MOUNTINFO_1);
    put_group_1("/a/b", "536870912\n", "0\n");
    put_group_1("/a", "134217728\n", "0\n");
    put("/sys/fs/cgroup/memory/a/memory.use_hierarchy", "1\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 128 * MiB);

    put("/sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 512 * MiB);
}

static void
test_version_1_limits_memory_and_swap_together(void **state)
{
    (void)state;
    put("/proc/self/cgroup", CGROUP_1);
    put("/proc/self/mountinfo", MOUNTINFO_1);
    put_group_1("/a/b", "536870912\n", "0\n");
    put("/sys/fs/cgroup/memory/a/b/memory.memsw.limit_in_bytes", "570425344\n");
    put("/sys/fs/cgroup/memory/a/b/memory.memsw.usage_in_bytes", "0\n");
    assert_true(cgroup_find_memory(root, 1024 * MiB, &found));
    assert_int_equal(found.left, 544 * MiB);
    assert_true(cgroup_find_memory(root, 8 * MiB, &found));
    assert_int_equal(found.left, 520 * MiB);
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.left, 512 * MiB);
}

static void
test_a_container_mounts_its_own_group_and_names_it_as_the_machine_does(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/docker/0123abcd\n0::/\n");
    put("/proc/self/mountinfo",
        "35 30 0:32 /docker/0123abcd /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put_group_1("", "268435456\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_file("/sys/fs/cgroup/memory/memory.limit_in_bytes");

    put("/proc/self/cgroup", "4:memory:/docker/0123abcd/in/side\n");
    put_group_1("/in/side", "134217728\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_file("/sys/fs/cgroup/memory/in/side/memory.limit_in_bytes");
}

static void
test_a_group_outside_of_the_mount_is_taken_to_be_the_mount(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/../other\n");
    put("/proc/self/mountinfo",
        "35 30 0:32 /mine /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put_group_1("", "268435456\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 256 * MiB);
}

static void
test_of_two_mounts_the_one_that_holds_the_group_counts(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/a/b\n");
    put("/proc/self/mountinfo",
        "34 30 0:32 /a/bc /mnt/other rw - cgroup cgroup rw,memory\n"
        "35 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("/mnt/other/memory.limit_in_bytes", "1\n");
    put_group_1("/a/b", "268435456\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 256 * MiB);

    put("/proc/self/cgroup", "4:memory:/a/bcd\n"); /* begins like the first, and is not in it */
    put_group_1("/a/bcd", "134217728\n", "0\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_int_equal(found.limit, 128 * MiB);
    assert_file("/sys/fs/cgroup/memory/a/bcd/memory.limit_in_bytes");
}

static void
test_blanks_in_a_mount_point_are_unescaped(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", "25 1 0:23 / /mnt/c\\040g rw - cgroup2 none rw\n");
    put("/mnt/c g/a/memory.max", "268435456\n");
    assert_true(cgroup_find_memory(root, 0, &found));
    assert_file("/mnt/c g/a/memory.max");
}

/* --- processes --- */

static void
test_the_group_that_leaves_fewest_processes_counts(void **state)
{
    (void)state;
    put("/proc/self/cgroup", CGROUP_1);
    put("/proc/self/mountinfo", MOUNTINFO_1);
    put("/sys/fs/cgroup/pids/p/pids.max", "max\n");
    put("/sys/fs/cgroup/pids/p/pids.current", "3\n");
    assert_false(cgroup_find_pids(root, &found));
    put("/sys/fs/cgroup/pids/p/pids.max", "7\n");
    assert_true(cgroup_find_pids(root, &found));
    assert_int_equal(found.limit, 7);
    assert_int_equal(found.used, 3);
    assert_int_equal(found.left, 4);
    assert_file("/sys/fs/cgroup/pids/p/pids.max");
}

/* --- broken --- */

static void
test_files_that_are_missing_or_broken_limit_nothing(void **state)
{
    (void)state;
    assert_false(cgroup_find_memory(root, 0, &found)); /* no /proc */
    put("/proc/self/cgroup", "nonsense\n4:memory\n0::/a\n");
    assert_false(cgroup_find_memory(root, 0, &found)); /* no mountinfo */
    put("/proc/self/mountinfo", "\n1 2 3 - cgroup2\n1 2 3 4 5 - cgroup2\n");
    assert_false(cgroup_find_memory(root, 0, &found));
    put("/proc/self/mountinfo", MOUNTINFO_2);
    assert_false(cgroup_find_memory(root, 0, &found)); /* no group */
    put_group_2("/a", "\n", "\n");
    assert_false(cgroup_find_memory(root, 0, &found));
    put_group_2("/a", "many\n", "few\n");
    assert_false(cgroup_find_memory(root, 0, &found));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_version_2_the_group_that_leaves_least_counts),
        TEST(test_version_2_max_everywhere_is_no_limit),
        TEST(test_version_2_memory_high_counts_where_it_is_lower),
        TEST(test_version_2_files_in_the_page_cache_are_not_in_use),
        TEST(test_version_2_swap_counts_as_far_as_the_group_may_use_it),
        TEST(test_version_2_the_top_of_a_container_is_the_last_group),
        TEST(test_version_2_a_limit_at_any_level_counts_up_to_the_mount),
        TEST(test_version_1_and_2_side_by_side_the_controller_is_where_version_1_has_it),
        TEST(test_version_1_unlimited_is_no_limit),
        TEST(test_version_1_a_group_above_limits_unless_hierarchy_is_off),
        TEST(test_version_1_limits_memory_and_swap_together),
        TEST(test_a_container_mounts_its_own_group_and_names_it_as_the_machine_does),
        TEST(test_a_group_outside_of_the_mount_is_taken_to_be_the_mount),
        TEST(test_of_two_mounts_the_one_that_holds_the_group_counts),
        TEST(test_blanks_in_a_mount_point_are_unescaped),
        TEST(test_the_group_that_leaves_fewest_processes_counts),
        TEST(test_files_that_are_missing_or_broken_limit_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
