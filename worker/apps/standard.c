/*
 * standard.c: the default application, which `crier` runs.
 *
 * A new client is announced to all clients, itself included. A message goes back to its sender.
 * Lines of the console go to all clients without any code here. This file uses api/crier.h and
 * nothing else of crier, so that it is also an example to start from.
 */
#include "worker/api/crier.h"

#include <errno.h>
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
     "announce a new client to all clients: %a its address, %n the number of clients, %% a percent sign",
     NULL},
    {"no-welcome", NULL, NULL, "do not announce new clients", "welcome"},
    {"goodbye", "FMT", NULL,
     "announce to all clients that a client has left, for example '%a has left.'", NULL},
    {"on-message", "echo|broadcast|both|drop", "echo",
     "a client's message goes back to it, to all, back to it and to all others, or nowhere", NULL},
};

/* Fills in %a, %n and %%, which is all there is. Returns the length. */
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

/* What follows the first % that is not one of %a, %n and %%; NULL when there is none. */
static const char *
unknown(const char *text)
{
    while ((text = strchr(text, '%'))) {
        if (!text[1] || !strchr("an%", text[1]))
            return text + 1;
        text += 2;
    }
    return NULL;
}

/* The first byte of a character of UTF-8 says how many follow it. */
static int
character_bytes(const char *text)
{
    unsigned char first = (unsigned char)*text;

    return first == 0 ? 0 : first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* 0, or -EINVAL. */
static int
check(const char *name)
{
    const char *text = crier_option_get(name);
    const char *bad = text ? unknown(text) : NULL;

    if (text && strlen(text) > FORMAT_BYTES)
        return crier_option_refuse(name, "takes at most %d bytes", FORMAT_BYTES);
    if (bad)
        return crier_option_refuse(name, "knows %%a, %%n and %%%%, not '%%%.*s'",
                                   character_bytes(bad), bad);
    if (text && !crier_broadcast_fits(longest(text)))
        return crier_option_refuse(name, "may become %zu bytes, more than a quarter of --ring",
                                   longest(text));
    return 0;
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
    return check("welcome") == 0 && check("goodbye") == 0 ? 0 : -EINVAL;
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
