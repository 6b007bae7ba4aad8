/*
 * libwebsockets: what a client sends goes to all. The newest messages are in a ring; each client has
 * a place in it, and writes from there whenever the library says that its socket takes something.
 * A client that is a whole ring behind is closed.
 *
 *   lws_broadcast PORT
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <libwebsockets.h>

enum {
    MESSAGES = 4096,
    MESSAGE_MAX_BYTES = 64 << 10,
    DESCRIPTORS = 19000,
};

struct message {
    unsigned char *frame; /* LWS_PRE bytes of room for a head, then the payload */
    size_t bytes;
    enum lws_write_protocol type;
};

struct client {
    uint64_t next;     /* number of the message that it gets next */
    struct message in; /* what comes from it, until it is whole */
};

static struct message ring[MESSAGES];
static uint64_t published;
static volatile sig_atomic_t told_to_end;

/* The oldest one's memory is for the client's next. */
static void
publish(struct lws *wsi, struct message *message)
{
    struct message *slot = &ring[published++ % MESSAGES];
    struct message oldest = *slot;

    *slot = *message;
    *message = oldest;
    lws_callback_on_writable_all_protocol(lws_get_context(wsi), lws_get_protocol(wsi));
}

/* A message comes in pieces of any size. */
static bool
gather(struct lws *wsi, struct message *message, const void *data, size_t bytes)
{
    if (lws_is_first_fragment(wsi))
        message->bytes = 0;
    if (!message->frame)
        message->frame = malloc(LWS_PRE + MESSAGE_MAX_BYTES);
    if (!message->frame || bytes > MESSAGE_MAX_BYTES - message->bytes)
        return false;
    memcpy(message->frame + LWS_PRE + message->bytes, data, bytes);
    message->bytes += bytes;
    message->type = lws_frame_is_binary(wsi) ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
    if (lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0)
        publish(wsi, message);
    return true;
}

/* As many as the socket takes. */
static bool
deliver(struct lws *wsi, struct client *client)
{
    while (client->next < published && !lws_send_pipe_choked(wsi)) {
        const struct message *message = &ring[client->next % MESSAGES];

        if (published - client->next >= MESSAGES)
            return false;
        if (lws_write(wsi, message->frame + LWS_PRE, message->bytes, message->type) < 0)
            return false;
        client->next++;
    }
    if (client->next < published)
        lws_callback_on_writable(wsi);
    return true;
}

static int
on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *data, size_t bytes)
{
    struct client *client = user;
    bool good = true;

    if (reason == LWS_CALLBACK_ESTABLISHED)
        client->next = published;
    else if (reason == LWS_CALLBACK_RECEIVE)
        good = gather(wsi, &client->in, data, bytes);
    else if (reason == LWS_CALLBACK_SERVER_WRITEABLE)
        good = deliver(wsi, client);
    else if (reason == LWS_CALLBACK_CLOSED)
        free(client->in.frame);
    return good ? 0 : -1;
}

static void
on_signal(int signal)
{
    (void)signal;
    told_to_end = 1;
}

int
main(int argc, char **argv)
{
    const struct lws_protocols protocols[] = {
        {.name = "broadcast",
         .callback = on_event,
         .per_session_data_size = sizeof(struct client),
         .rx_buffer_size = MESSAGE_MAX_BYTES},
        {0},
    };
    struct lws_context_creation_info info = {
        .port = argc == 2 ? (int)strtol(argv[1], NULL, 10) : 0,
        .iface = "127.0.0.1",
        .protocols = protocols,
        .fd_limit_per_thread = DESCRIPTORS,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
    };
    struct lws_context *context;

    lws_set_log_level(LLL_ERR, NULL);
    context = info.port > 0 ? lws_create_context(&info) : NULL;
    if (!context)
        return EXIT_FAILURE;
    signal(SIGTERM, on_signal);
    while (!told_to_end && lws_service(context, 0) >= 0)
        ;
    lws_context_destroy(context);
    return EXIT_SUCCESS;
}
