/*
 * bench_mqtt.h: as much of MQTT 3.1.1 as a broadcast needs: a client connects, subscribes to one
 * topic, and publishes to it at most once (QoS 0).
 *
 * Role:     crier-bench; no I/O.
 * Owns:     nothing: plain memory, all zeroes expects a packet.
 * Errors:   BENCH_MQTT_BROKEN with a sentence; the parser is of no use then.
 * Context:  any thread, one at a time per parser.
 *
 * A WebSocket message may carry several packets, or a part of one (section 6.0), so that those of a
 * connection are read as one stream.
 */
#ifndef CRIER_TOOLS_BENCH_MQTT_H
#define CRIER_TOOLS_BENCH_MQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_MQTT_SUBPROTOCOL "mqtt" /* section 6.0 */

enum {
    BENCH_MQTT_HELLO_BYTES = 32,
    BENCH_MQTT_HEAD_MAX_BYTES = 18, /* of a message that is published */
};

enum bench_mqtt_status {
    BENCH_MQTT_MORE,       /* all was taken, and there is nothing to say */
    BENCH_MQTT_SUBSCRIBED, /* the server has granted the subscription */
    BENCH_MQTT_PAYLOAD,    /* a part of a published message; `last`: its end */
    BENCH_MQTT_BROKEN,
};

struct bench_mqtt {
    uint8_t state; /* of a packet: its type, its length, what is in it */
    uint8_t type;
    uint8_t shift;      /* of the length's next seven bits */
    uint32_t left;      /* bytes of the packet */
    uint32_t at;        /* bytes of it that have come */
    uint32_t topic_end; /* a published message begins there */
};

struct bench_mqtt_event {
    size_t consumed;
    const uint8_t *data; /* PAYLOAD */
    size_t bytes;
    bool last;
    const char *reason; /* BROKEN */
};

/* What a new connection begins with: CONNECT and SUBSCRIBE. A server may be sent both at once,
 * section 3.1.4. */
void bench_mqtt_hello(uint8_t hello[BENCH_MQTT_HELLO_BYTES]);

/* The head of a PUBLISH with `payload` bytes behind it. Bytes written. */
size_t bench_mqtt_head(uint8_t head[BENCH_MQTT_HEAD_MAX_BYTES], size_t payload);

/* Up to the next thing there is to say; the rest of `data` is for the next call. */
enum bench_mqtt_status bench_mqtt_parse(struct bench_mqtt *mqtt, const uint8_t *data, size_t bytes,
                                        struct bench_mqtt_event *event);

#endif
