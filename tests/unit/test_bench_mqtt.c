/*
 * bench_mqtt.h: what is written is what section 3 of MQTT 3.1.1 says, and what is read comes to the
 * same however it is cut.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tools/bench_mqtt.h"

enum { LOG_BYTES = 512 };

/* What a stream came to: S for a subscription, bytes of payloads, | behind each; B and the end. */
static void
read_all(char log[LOG_BYTES], const uint8_t *data, size_t bytes, size_t cut)
{
    struct bench_mqtt mqtt = {0};
    struct bench_mqtt_event event;
    size_t at = 0;

    memset(log, 0, LOG_BYTES);
    for (size_t off = 0; off < bytes; off += cut) {
        size_t left = bytes - off < cut ? bytes - off : cut;
        const uint8_t *piece = data + off;

        while (left > 0) {
            switch (bench_mqtt_parse(&mqtt, piece, left, &event)) {
            case BENCH_MQTT_MORE: break;
            case BENCH_MQTT_SUBSCRIBED: log[at++] = 'S'; break;
            case BENCH_MQTT_PAYLOAD:
                memcpy(log + at, event.data, event.bytes);
                at += event.bytes;
                if (event.last)
                    log[at++] = '|';
                break;
            case BENCH_MQTT_BROKEN: log[at++] = 'B'; return;
            }
            assert_true(event.consumed > 0 && event.consumed <= left);
            piece += event.consumed;
            left -= event.consumed;
        }
    }
}

static void
expect(const char *expected, const uint8_t *data, size_t bytes)
{
    char log[LOG_BYTES];

    for (size_t cut = 1; cut <= bytes; cut++) {
        read_all(log, data, bytes, cut);
        assert_string_equal(log, expected);
    }
}

static void
test_bench_mqtt_a_hello_is_connect_and_subscribe(void **state)
{
    static const uint8_t expected[] = "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
                                      "\x82\x10\x00\x01\x00\x0b"
                                      "crier-bench";
    uint8_t hello[BENCH_MQTT_HELLO_BYTES];

    (void)state;
    bench_mqtt_hello(hello);
    assert_int_equal(sizeof(expected), sizeof(hello)); /* its last byte is the QoS */
    assert_memory_equal(hello, expected, sizeof(expected));
}

static void
test_bench_mqtt_lengths_have_as_many_bytes_as_they_need(void **state)
{
    static const struct {
        size_t payload;
        const char *length;
    } cases[] = {{114, "\x7f"},           {115, "\x80\x01"},         {16370, "\xff\x7f"},
                 {16371, "\x80\x80\x01"}, {2097138, "\xff\xff\x7f"}, {2097139, "\x80\x80\x80\x01"}};
    uint8_t head[BENCH_MQTT_HEAD_MAX_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t field = strlen(cases[i].length);

        assert_int_equal(bench_mqtt_head(head, cases[i].payload), 1 + field + 13);
        assert_int_equal(head[0], 0x30);
        assert_memory_equal(head + 1, cases[i].length, field);
        assert_memory_equal(head + 1 + field,
                            "\0\x0b"
                            "crier-bench",
                            13);
    }
}

static void
test_bench_mqtt_packets_are_read_however_they_are_cut(void **state)
{
    static const uint8_t stream[] =
        "\x20\x02\x00\x00"       /* CONNACK */
        "\x90\x03\x00\x01\x00"   /* SUBACK */
        "\x30\x08\x00\x01t12345" /* a publication */
        "\xd0\x00"               /* PINGRESP */
        "\x39\x05\x00\x03top"    /* nothing, twice and retained */
        "\x30\x84\x00\x00\x01t6" /* a length of more bytes than it needs */
        "\x40\x02\x00\x07";      /* PUBACK */
    (void)state;
    expect("S12345||6|", stream, sizeof(stream) - 1);
}

static void
test_bench_mqtt_what_it_writes_it_reads(void **state)
{
    uint8_t packet[BENCH_MQTT_HEAD_MAX_BYTES + 200];
    char expected[202];
    size_t head = bench_mqtt_head(packet, 200);

    (void)state;
    memset(packet + head, 'x', 200);
    memset(expected, 'x', 200);
    memcpy(expected + 200, "|", 2);
    expect(expected, packet, head + 200);
}

static void
test_bench_mqtt_refusals_and_nonsense_break_it(void **state)
{
    (void)state;
    expect("B", (const uint8_t *)"\x20\x02\x00\x05", 4);           /* not authorized */
    expect("B", (const uint8_t *)"\x90\x03\x00\x01\x80", 5);       /* no subscription */
    expect("B", (const uint8_t *)"\x32\x06\x00\x01t\x00\x01x", 8); /* QoS 1 */
    expect("B", (const uint8_t *)"\x30\x80\x80\x80\x80\x01", 6);   /* a length of five bytes */
    expect("B", (const uint8_t *)"\x30\x02\x00\x00", 4);           /* no topic */
    expect("B", (const uint8_t *)"\x30\x00", 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_mqtt_a_hello_is_connect_and_subscribe),
        cmocka_unit_test(test_bench_mqtt_lengths_have_as_many_bytes_as_they_need),
        cmocka_unit_test(test_bench_mqtt_packets_are_read_however_they_are_cut),
        cmocka_unit_test(test_bench_mqtt_what_it_writes_it_reads),
        cmocka_unit_test(test_bench_mqtt_refusals_and_nonsense_break_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
