#include "worker/app.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "shm/util/program.h"
#include "worker/conn.h"
#include "worker/conn_out.h"
#include "worker/last_words.h"
#include "worker/worker.h"

/* The public functions have no handle to a worker: a process is one worker at most. */
static struct worker *app_worker;
static const struct segment *app_segment;

void
app_bind(const struct segment *segment)
{
    app_segment = segment;
}

void
app_open(struct worker *worker)
{
    app_worker = worker;
}

_Static_assert((int)CRIER_TEXT == (int)RECORD_TEXT && (int)CRIER_BINARY == (int)RECORD_BINARY,
               "the public header says the same in its own words");

/* struct crier_client is the public name of struct conn. */
static struct crier_client *
app_client(struct conn *conn)
{
    return (struct crier_client *)conn;
}

static struct conn *
app_conn(struct crier_client *client)
{
    return (struct conn *)client;
}

/* Behind each handler. Also a sign of life: one turn of the loop may call it for many messages. */
static int
app_left(struct worker *worker, int rc)
{
    last_words_during(NULL);
    member_beat(worker->me);
    return rc;
}

int
app_connect(struct worker *worker, struct conn *conn)
{
    if (!worker->app->connect)
        return 0;
    last_words_during("connect");
    return app_left(worker, worker->app->connect(app_client(conn)));
}

int
app_message(struct worker *worker, struct conn *conn, const struct crier_message *message)
{
    if (!worker->app->message)
        return 0;
    last_words_during("message");
    return app_left(worker, worker->app->message(app_client(conn), message));
}

int
app_disconnect(struct worker *worker, struct conn *conn, unsigned code)
{
    if (!worker->app->disconnect)
        return 0;
    last_words_during("disconnect");
    return app_left(worker, worker->app->disconnect(app_client(conn), code));
}

/* --- api/crier.h --- */

const char *
crier_option_get(const char *name)
{
    const char *value = app_segment ? conf_app_get(app_segment->conf, name) : NULL;

    return value && *value ? value : NULL;
}

int
crier_option_refuse(const char *name, const char *format, ...)
{
    enum conf_source source = app_segment ? conf_app_source(app_segment->conf, name) : CONF_DEFAULT;
    char given[CONF_NAME_BYTES];
    char why[CONF_WHY_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    program_complain("%s %s", conf_given_as(source, name, given), why);
    return -EINVAL;
}

static int
app_publish(enum crier_type type, const void *data, size_t bytes, struct conn *not_to)
{
    struct worker *worker = app_worker;
    uint64_t origin = RECORD_NO_ORIGIN;
    uint64_t seq;
    int rc;

    if (!worker)
        return -EPERM; /* in the master: it has no clients */
    if ((type != CRIER_TEXT && type != CRIER_BINARY) || (bytes && !data))
        return -EINVAL;
    if (!TAILQ_EMPTY(&worker->waiting) && !worker->retrying)
        return -EAGAIN;
    if (not_to)
        origin =
            client_rec_id((uint32_t)(not_to->record - worker->segment.clients), not_to->record);
    rc = ring_publish(&worker->ring, (uint8_t)type, data, bytes, not_to ? RECORD_NOT_TO_ORIGIN : 0,
                      origin, &seq);
    if (rc)
        return rc;
    if (worker->joining && worker->joining->next == 0)
        worker->joining->next = seq;
    if (not_to && (conn_is_open(not_to) || not_to == worker->joining))
        not_to->own_ahead++;
    return 0;
}

int
crier_broadcast(enum crier_type type, const void *data, size_t bytes)
{
    return app_publish(type, data, bytes, NULL);
}

int
crier_broadcast_others(struct crier_client *client, enum crier_type type, const void *data,
                       size_t bytes)
{
    return app_publish(type, data, bytes, app_conn(client));
}

int
crier_broadcast_fits(size_t bytes)
{
    return app_segment &&
           record_size(bytes) <= app_segment->geometry.arena_bytes / ARENA_RECORDS_MIN;
}

int
crier_send(struct crier_client *client, enum crier_type type, const void *data, size_t bytes)
{
    struct conn *conn = app_conn(client);
    int rc;

    if ((type != CRIER_TEXT && type != CRIER_BINARY) || (bytes && !data))
        return -EINVAL;
    if (bytes > conn->worker->conf->pool_bytes / 4)
        return -EMSGSIZE; /* it might never fit, however many clients are closed for it */
    rc = conn_out_message(conn, (uint8_t)type, data, bytes);
    if (rc)
        return rc;
    counter_add(conn->worker->counters, messages_sent, 1);
    if (conn != conn->worker->current && conn != conn->worker->joining && !conn->blocked)
        conn_out_flush(conn);
    return 0;
}

int
crier_close(struct crier_client *client, unsigned code, const char *reason)
{
    if (!(code == 1000 || code == 1001 || code == 1008 || code == 1011 ||
          (code >= 3000 && code <= 4999)))
        return -EINVAL;
    conn_close(app_conn(client), code, reason);
    return 0;
}

const char *
crier_client_address(const struct crier_client *client)
{
    static char text[CLIENT_ADDR_TEXT_BYTES];

    client_rec_addr_text(((const struct conn *)client)->record, text);
    return text;
}

uint64_t
crier_client_count(void)
{
    if (!app_worker)
        return 0;
    return member_clients_open(&app_worker->segment) + (app_worker->joining ? 1 : 0);
}
