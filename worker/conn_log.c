#include "worker/conn_log.h"

#include <inttypes.h>
#include <stdio.h>

#include "shm/log_summary.h"
#include "worker/conn.h"

enum { CONN_LOG_BYTES = 128 };

/* Clients that have no line yet. */
static struct {
    uint64_t connected;
    uint64_t disconnected;
    uint64_t clients;           /* after the last event */
    char first[CONN_LOG_BYTES]; /* what the first event says, before its number of clients */
} news;

static void
conn_log_write(uint64_t events)
{
    char text[CONN_LOG_BYTES];
    int used = 0;

    text[0] = '\0';
    if (news.connected)
        used = snprintf(text, sizeof(text), "%" PRIu64 " client%s connected", news.connected,
                        news.connected == 1 ? "" : "s");
    if (news.disconnected)
        snprintf(text + used, sizeof(text) - (size_t)used, "%s%" PRIu64 "%s disconnected",
                 used ? ", " : "", news.disconnected,
                 used                     ? ""
                 : news.disconnected == 1 ? " client"
                                          : " clients");
    log_event("%s (%" PRIu64 " client%s)", events == 1 ? news.first : text, news.clients,
              news.clients == 1 ? "" : "s");
}

/* `code` 0: has connected. */
static void
conn_log(const struct conn *conn, unsigned code)
{
    static struct log_summary summary = {.write = conn_log_write};
    char addr[CLIENT_ADDR_TEXT_BYTES];

    if (!log_wants(LOG_EVENT))
        return;
    if (log_summary_is_new(&summary)) {
        news.connected = news.disconnected = 0;
        client_rec_addr_text(conn->record, addr);
        if (code)
            snprintf(news.first, sizeof(news.first), "%s disconnected with %u", addr, code);
        else
            snprintf(news.first, sizeof(news.first), "%s connected", addr);
    }
    if (code)
        news.disconnected++;
    else
        news.connected++;
    news.clients = member_clients_open(&conn->worker->segment);
    if (log_is_watched())
        log_summary_count(&summary);
    else
        conn_log_write(1);
}

void
conn_log_connected(const struct conn *conn)
{
    conn_log(conn, 0);
}

void
conn_log_disconnected(const struct conn *conn, unsigned code)
{
    conn_log(conn, code);
}
