#include "tools/bench_mqtt.h"

#include <assert.h>
#include <string.h>

enum {
    CONNACK = 2, /* section 2.2.1, in the upper half of the first byte */
    PUBLISH = 3,
    SUBACK = 9,
    QOS_MASK = 0x06, /* in the lower half of a PUBLISH's */
    CODE_OFF = 1,    /* of a CONNACK, where its second byte says whether it is one */
    GRANT_OFF = 2,   /* of a SUBACK */
    GRANT_FAILED = 0x80,
    LENGTH_SHIFT_MAX = 21, /* four bytes of seven bits, section 2.2.3 */
    TOPIC_OFF = 2,         /* behind its length */
};

enum state { STATE_TYPE, STATE_LENGTH, STATE_BODY };

static const uint8_t topic[] = {0, 11, 'c', 'r', 'i', 'e', 'r', '-', 'b', 'e', 'n', 'c', 'h'};

void
bench_mqtt_hello(uint8_t hello[BENCH_MQTT_HELLO_BYTES])
{
    static const uint8_t connect[] = {
        0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, /* version 3.1.1 */
        0x02,    /* a clean session, which may be without a name, section 3.1.3.1 */
        0,    0, /* nothing has to be said to be kept alive */
        0,    0,
    };
    static const uint8_t subscribe[] = {0x82, 2 + sizeof(topic) + 1, 0, 1};

    _Static_assert(sizeof(connect) + sizeof(subscribe) + sizeof(topic) + 1 ==
                       BENCH_MQTT_HELLO_BYTES,
                   "what is written is what there is room for");
    memcpy(hello, connect, sizeof(connect));
    memcpy(hello + sizeof(connect), subscribe, sizeof(subscribe));
    memcpy(hello + sizeof(connect) + sizeof(subscribe), topic, sizeof(topic));
    hello[BENCH_MQTT_HELLO_BYTES - 1] = 0; /* QoS */
}

size_t
bench_mqtt_head(uint8_t head[BENCH_MQTT_HEAD_MAX_BYTES], size_t payload)
{
    size_t left = sizeof(topic) + payload;
    size_t at = 0;

    assert(left < (size_t)1 << (LENGTH_SHIFT_MAX + 7));
    head[at++] = PUBLISH << 4;
    do {
        head[at++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
        left >>= 7;
    } while (left > 0);
    memcpy(head + at, topic, sizeof(topic));
    return at + sizeof(topic);
}

static enum bench_mqtt_status
broken(struct bench_mqtt_event *event, const char *reason)
{
    event->reason = reason;
    return BENCH_MQTT_BROKEN;
}

static enum bench_mqtt_status
parse_length(struct bench_mqtt *mqtt, uint8_t byte, struct bench_mqtt_event *event)
{
    mqtt->left |= (uint32_t)(byte & 0x7f) << mqtt->shift;
    if (!(byte & 0x80)) {
        mqtt->state = mqtt->left > 0 ? STATE_BODY : STATE_TYPE;
        if (mqtt->left <= TOPIC_OFF && mqtt->type >> 4 == PUBLISH)
            return broken(event, "the server published something without a topic");
    } else if (mqtt->shift == LENGTH_SHIFT_MAX) {
        return broken(event, "the length of an MQTT packet does not end");
    }
    mqtt->shift += 7;
    return BENCH_MQTT_MORE;
}

/* The beginning of a packet. */
static enum bench_mqtt_status
parse_head(struct bench_mqtt *mqtt, uint8_t byte, struct bench_mqtt_event *event)
{
    if (mqtt->state == STATE_LENGTH)
        return parse_length(mqtt, byte, event);
    if (byte >> 4 == PUBLISH && byte & QOS_MASK)
        return broken(event, "the server published with a QoS that was not asked for");
    *mqtt = (struct bench_mqtt){.state = STATE_LENGTH, .type = byte, .topic_end = TOPIC_OFF};
    return BENCH_MQTT_MORE;
}

/* A byte of what is no payload. */
static enum bench_mqtt_status
parse_byte(const struct bench_mqtt *mqtt, uint8_t byte, struct bench_mqtt_event *event)
{
    switch (mqtt->type >> 4) {
    case CONNACK:
        if (mqtt->at == CODE_OFF && byte != 0)
            return broken(event, "the server refused the MQTT connection");
        break;
    case SUBACK:
        if (mqtt->at == GRANT_OFF)
            return byte < GRANT_FAILED ? BENCH_MQTT_SUBSCRIBED
                                       : broken(event, "the server refused the subscription");
        break;
    }
    return BENCH_MQTT_MORE;
}

static enum bench_mqtt_status
parse_publish(struct bench_mqtt *mqtt, const uint8_t *data, size_t bytes,
              struct bench_mqtt_event *event)
{
    size_t taken = bytes < mqtt->left ? bytes : mqtt->left;
    bool payload = mqtt->at >= mqtt->topic_end;

    if (mqtt->at < TOPIC_OFF) {
        mqtt->topic_end += (uint32_t)*data << (mqtt->at == 0 ? 8 : 0);
        taken = 1;
    } else if (!payload) {
        taken = taken < mqtt->topic_end - mqtt->at ? taken : mqtt->topic_end - mqtt->at;
    }
    event->data = data;
    event->bytes = payload ? taken : 0;
    mqtt->at += (uint32_t)taken;
    mqtt->left -= (uint32_t)taken;
    event->consumed += taken;
    event->last = mqtt->left == 0;
    return payload || event->last ? BENCH_MQTT_PAYLOAD : BENCH_MQTT_MORE;
}

static enum bench_mqtt_status
parse_step(struct bench_mqtt *mqtt, const uint8_t *data, size_t bytes,
           struct bench_mqtt_event *event)
{
    enum bench_mqtt_status status;

    if (mqtt->state == STATE_BODY && mqtt->type >> 4 == PUBLISH)
        return parse_publish(mqtt, data, bytes, event);
    event->consumed++;
    if (mqtt->state != STATE_BODY)
        return parse_head(mqtt, *data, event);
    status = parse_byte(mqtt, *data, event);
    mqtt->at++;
    mqtt->left--;
    return status;
}

enum bench_mqtt_status
bench_mqtt_parse(struct bench_mqtt *mqtt, const uint8_t *data, size_t bytes,
                 struct bench_mqtt_event *event)
{
    enum bench_mqtt_status status = BENCH_MQTT_MORE;

    *event = (struct bench_mqtt_event){0};
    while (status == BENCH_MQTT_MORE && event->consumed < bytes) {
        status = parse_step(mqtt, data + event->consumed, bytes - event->consumed, event);
        if (mqtt->state == STATE_BODY && mqtt->left == 0)
            mqtt->state = STATE_TYPE;
    }
    return status;
}
