/*
 * standard.c: the default application, which `crier` runs.
 *
 * A new client is announced to all clients, itself included. A message goes back to its sender.
 * Lines of the console go to all clients without any code here. This file uses api/crier.h and
 * nothing else of crier, so that it is also an example to start from.
 */
#include "worker/api/crier.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    FORMAT_BYTES = 1024,
    ADDRESS_BYTES = 63, /* at most, as the number */
    NUMBER_BYTES = 20,
    TEXT_BYTES = FORMAT_BYTES / 2 * ADDRESS_BYTES, /* each takes the place of two bytes */
};

enum on_message { ON_MESSAGE_ECHO, ON_MESSAGE_BROADCAST, ON_MESSAGE_BOTH, ON_MESSAGE_DROP };

static enum on_message on_message;
static const char *welcome;
static const char *goodbye;

static const struct crier_option options[] = {
    {"welcome", "FMT", "Welcome, %a!",
     "announce a new client to all clients: %a its address, %n the number of clients", NULL},
    {"no-welcome", NULL, NULL, "do not announce new clients", "welcome"},
    {"goodbye", "FMT", NULL,
     "announce to all clients that a client has left, for example '%a has left.'", NULL},
    {"on-message", "echo|broadcast|both|drop", "echo",
     "a client's message goes back to it, to all, back to it and to all others, or nowhere", NULL},
};

/* Fills in %a, %n and %%; anything else stays as it is. Returns the length. */
static size_t
format(const char *from, const struct crier_client *client, char to[TEXT_BYTES])
{
    char number[24];
    size_t used = 0;

    for (; *from && used < TEXT_BYTES; from++) {
        const char *put = from;
        size_t bytes = 1;

        if (from[0] == '%' && from[1] == 'a')
            put = crier_client_address(client);
        else if (from[0] == '%' && from[1] == 'n') {
            snprintf(number, sizeof(number), "%llu", (unsigned long long)crier_client_count());
            put = number;
        } else if (from[0] == '%' && from[1] == '%')
            put = "%";
        if (put != from) {
            bytes = strlen(put);
            from++;
        }
        if (bytes > TEXT_BYTES - used)
            bytes = TEXT_BYTES - used;
        memcpy(to + used, put, bytes);
        used += bytes;
    }
    return used;
}

static int
announce(const char *text, const struct crier_client *client)
{
    char line[TEXT_BYTES];

    return text ? crier_broadcast(CRIER_TEXT, line, format(text, client, line)) : 0;
}

/* How long it may become when it is filled in. */
static size_t
longest(const char *text)
{
    size_t bytes = strlen(text);

    for (const char *at = text; (at = strchr(at, '%')) && at[1]; at += 2)
        bytes += at[1] == 'a' ? ADDRESS_BYTES - 2 : at[1] == 'n' ? NUMBER_BYTES - 2 : 0;
    return bytes;
}

static bool
is_accepted(const char *text, const char *name)
{
    if (!text)
        return true;
    if (strlen(text) > FORMAT_BYTES)
        fprintf(stderr, "crier: --%s takes at most %d bytes\n", name, FORMAT_BYTES);
    else if (!crier_broadcast_fits(longest(text)))
        fprintf(stderr, "crier: --%s may become %zu bytes, more than a quarter of --ring\n", name,
                longest(text));
    else
        return true;
    return false;
}

static int
start(enum crier_role role)
{
    static const char *const words[] = {"echo", "broadcast", "both", "drop"};
    const char *word = crier_option_get("on-message");

    (void)role;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (word && strcmp(word, words[i]) == 0)
            on_message = (enum on_message)i;
    }
    welcome = crier_option_get("welcome");
    goodbye = crier_option_get("goodbye");
    return is_accepted(welcome, "welcome") && is_accepted(goodbye, "goodbye") ? 0 : -EINVAL;
}

static int
connected(struct crier_client *client)
{
    return announce(welcome, client);
}

static int
received(struct crier_client *client, const struct crier_message *message)
{
    int rc = 0;

    if (on_message == ON_MESSAGE_BROADCAST)
        return crier_broadcast(message->type, message->data, message->bytes);
    if (on_message == ON_MESSAGE_BOTH) /* first what may have to be called again */
        rc = crier_broadcast_others(client, message->type, message->data, message->bytes);
    if (rc == 0 && (on_message == ON_MESSAGE_ECHO || on_message == ON_MESSAGE_BOTH))
        rc = crier_send(client, message->type, message->data, message->bytes);
    return rc == -EPIPE || rc == -ENOMEM ? 0 : rc; /* it has left, or is being closed */
}

static int
disconnected(struct crier_client *client, unsigned code)
{
    (void)code;
    return announce(goodbye, client);
}

static const struct crier_app app = {
    .name = "crier",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .start = start,
    .connect = connected,
    .message = received,
    .disconnect = disconnected,
};

int
main(int argc, char **argv)
{
    return crier_run(argc, argv, &app);
}
