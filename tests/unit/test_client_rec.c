/*
 * client_rec.h: address texts, and copies that are whole or refused. The concurrent writer is a
 * process: it shares the record with the reader as the processes of the server do.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/client_rec.h"

enum { WHOLE_COPIES = 200000 };

static void
expect_addr(const void *addr, int32_t pid, const char *expected)
{
    struct client_shm record = {0};
    char text[CLIENT_ADDR_TEXT_BYTES];

    memset(record.addr, 0xff, sizeof(record.addr));
    client_rec_change_begin(&record);
    client_rec_set_addr(&record, addr, pid);
    client_rec_change_end(&record);
    assert_int_equal(client_rec_addr_text(&record, text), strlen(expected));
    assert_string_equal(text, expected);
}

static struct sockaddr_in6
addr6(const char *text, uint16_t port)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET6, text, &addr.sin6_addr), 1);
    return addr;
}

static void
test_client_rec_ipv4_address_is_host_colon_port(void **state)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(50189)};

    (void)state;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    expect_addr(&addr, 0, "127.0.0.1:50189");
    addr.sin_addr.s_addr = htonl(0xffffffff);
    addr.sin_port = htons(65535);
    expect_addr(&addr, 0, "255.255.255.255:65535");
}

static void
test_client_rec_ipv4_address_that_came_through_ipv6_is_an_ipv4_one(void **state)
{
    struct sockaddr_in6 addr = addr6("::ffff:192.0.2.7", 1);

    (void)state;
    expect_addr(&addr, 0, "192.0.2.7:1");
}

static void
test_client_rec_ipv6_address_is_in_brackets(void **state)
{
    struct sockaddr_in6 addr = addr6("::1", 50189);
    struct sockaddr_in6 longest = addr6("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 65535);

    (void)state;
    expect_addr(&addr, 0, "[::1]:50189");
    expect_addr(&longest, 0, "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535");
}

static void
test_client_rec_unix_peer_is_named_by_its_pid(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    (void)state;
    expect_addr(&addr, 4711, "unix:4711");
    expect_addr(&addr, 1, "unix:1");
}

static void
test_client_rec_id_names_record_and_use(void **state)
{
    struct client_shm record = {.generation = 3};

    (void)state;
    assert_true(client_rec_id(7, &record) == (UINT64_C(3) << 32 | 7));
    record.generation++;
    assert_true(client_rec_id(7, &record) == (UINT64_C(4) << 32 | 7));
}

static void
test_client_rec_every_state_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(client_state_name(CLIENT_FREE), "free");
    assert_string_equal(client_state_name(CLIENT_PASSED), "passed");
    assert_string_equal(client_state_name(CLIENT_TAKEN), "taken");
    assert_string_equal(client_state_name(CLIENT_OPEN), "open");
    assert_string_equal(client_state_name(CLIENT_RETURNED), "returned");
    assert_string_equal(client_state_name((enum client_state)99), "unknown");
}

static void
test_client_rec_read_gives_up_when_the_writer_has_died_and_works_after_repair(void **state)
{
    struct client_shm record = {.port = 5};
    struct client_shm copy;

    (void)state;
    assert_int_equal(client_rec_read(&record, &copy), 0);
    assert_int_equal(copy.port, 5);
    client_rec_change_begin(&record);
    record.port = 6;
    assert_int_equal(client_rec_read(&record, &copy), -EAGAIN);
    client_rec_repair(&record);
    assert_int_equal(client_rec_read(&record, &copy), 0);
    assert_int_equal(copy.port, 6);
    client_rec_repair(&record); /* of an even one: nothing */
    assert_int_equal(client_rec_read(&record, &copy), 0);
}

/* Every guarded byte says the same number. */
static void
write_forever(struct client_shm *record)
{
    for (uint8_t i = 0;; i++) {
        client_rec_change_begin(record);
        memset(record->addr, i, sizeof(record->addr));
        memset(&record->port, i, sizeof(record->port));
        memset(&record->first_seq, i, sizeof(record->first_seq));
        memset(&record->state, i, sizeof(record->state));
        client_rec_change_end(record);
    }
}

static bool
is_whole(const struct client_shm *copy)
{
    uint8_t expected[16];

    memset(expected, copy->addr[0], sizeof(expected));
    return memcmp(copy->addr, expected, 16) == 0 && memcmp(&copy->port, expected, 2) == 0 &&
           memcmp(&copy->first_seq, expected, 8) == 0 && copy->state == expected[0];
}

static void
test_client_rec_read_beside_a_writer_is_never_torn(void **state)
{
    struct client_shm *record =
        mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct client_shm copy;
    uint32_t first = 0;
    pid_t pid;

    (void)state;
    assert_ptr_not_equal(record, MAP_FAILED);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        write_forever(record);
    for (int whole = 0; whole < WHOLE_COPIES || copy.version == first;) {
        if (client_rec_read(record, &copy) != 0)
            continue; /* it is busy writing; that is an answer, too */
        assert_true(is_whole(&copy));
        if (whole++ == 0)
            first = copy.version;
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    client_rec_repair(record);
    assert_int_equal(client_rec_read(record, &copy), 0);
    munmap(record, sizeof(*record));
}

static void
test_client_rec_address_has_nothing_of_the_one_before(void **state)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(1)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(2)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    static const uint8_t zeroes[12];
    struct client_shm record = {0};

    (void)state;
    memset(&six.sin6_addr, 0xff, sizeof(six.sin6_addr));
    client_rec_set_addr(&record, (const struct sockaddr *)&six, 0);
    client_rec_set_addr(&record, (const struct sockaddr *)&four, 0);
    assert_memory_equal(record.addr + 4, zeroes, sizeof(zeroes));
    client_rec_set_addr(&record, (const struct sockaddr *)&six, 0);
    client_rec_set_addr(&record, (const struct sockaddr *)&un, 4711);
    assert_memory_equal(record.addr + 4, zeroes, sizeof(zeroes));
    assert_int_equal(record.port, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_rec_ipv4_address_is_host_colon_port),
        cmocka_unit_test(test_client_rec_ipv4_address_that_came_through_ipv6_is_an_ipv4_one),
        cmocka_unit_test(test_client_rec_ipv6_address_is_in_brackets),
        cmocka_unit_test(test_client_rec_unix_peer_is_named_by_its_pid),
        cmocka_unit_test(test_client_rec_id_names_record_and_use),
        cmocka_unit_test(test_client_rec_every_state_has_a_name),
        cmocka_unit_test(
            test_client_rec_read_gives_up_when_the_writer_has_died_and_works_after_repair),
        cmocka_unit_test(test_client_rec_read_beside_a_writer_is_never_torn),
        cmocka_unit_test(test_client_rec_address_has_nothing_of_the_one_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
