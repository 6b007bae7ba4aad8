/*
 * bench_connect.c: what a connection costs the server that comes, shakes hands, and goes with a
 * Close, against a bare server of one process that does the same.
 *
 * The clients are one process that keeps some connections on their way at a time. The bare server
 * does what cannot be left out: accept4, recv, look for the key, SHA-1 and base64, send, recv, send
 * the Close back, close. crier's figure is that of its whole tree, master and workers. Both get the
 * same load from the same code, in turn; every round is one of new processes.
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "tests/bench/pairs.h"
#include "tests/bench/server_rig.h"

enum {
    TURNS = 4, /* of each server in a round; the first is to warm up */
    CONNECTIONS = 1000,
    AT_ONCE = 64,
    EVENTS = 256,
    BARE_FDS = 4096,
};

static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const uint8_t client_close[] = {0x88, 0x82, 0, 0, 0, 0, 3, 232}; /* masked with zeroes */
static const uint8_t server_close[] = {0x88, 2, 3, 232};

/* --- the clients --- */

static void
client_open(uint16_t port, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN};
    int fd = server_rig_socket(port);
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (send(fd, request, sizeof(request) - 1, 0) != (ssize_t)sizeof(request) - 1)
        server_rig_fail("handshake");
    event.data.fd = fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* The 101 is answered with a Close, the server's Close with nothing, and the end with the end. */
static bool
client_has_gone(int fd)
{
    uint8_t got[512];
    ssize_t bytes = recv(fd, got, sizeof(got), 0);

    if (bytes == 0) {
        close(fd);
        return true;
    }
    if (bytes > 12 && memcmp(got, "HTTP/1.1 101", 12) == 0) {
        if (send(fd, client_close, sizeof(client_close), 0) != sizeof(client_close))
            server_rig_fail("Close");
    } else if (bytes != sizeof(server_close) ||
               memcmp(got, server_close, sizeof(server_close)) != 0)
        server_rig_fail("neither 101 nor a Close");
    return false;
}

static void
load_turn(uint16_t port, int epoll)
{
    int opened = 0;
    int gone = 0;

    for (; opened < AT_ONCE; opened++)
        client_open(port, epoll);
    while (gone < CONNECTIONS) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, SERVER_RIG_DEADLINE_MS);

        if (count <= 0)
            server_rig_fail("no answer");
        for (int e = 0; e < count; e++) {
            if (!client_has_gone(events[e].data.fd))
                continue;
            gone++;
            if (opened < CONNECTIONS) {
                client_open(port, epoll);
                opened++;
            }
        }
    }
}

static void
load_start(struct server_rig_load *load, uint16_t port)
{
    load->begin = eventfd(0, 0);
    load->done = eventfd(0, 0);
    load->pid = fork();
    if (load->pid == 0) {
        int epoll = epoll_create1(0);
        uint64_t begun;

        while (read(load->begin, &begun, sizeof(begun)) == sizeof(begun)) {
            load_turn(port, epoll);
            server_rig_tell(load->done);
        }
        _exit(1);
    }
}

/* --- the bare server --- */

static void
bare_handshake(int fd, char *in)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = strstr(in, "Sec-WebSocket-Key: ");
    unsigned char text[24 + sizeof(guid) - 1];
    unsigned char digest[SHA_DIGEST_LENGTH];
    char accept[32];
    char answer[256];
    int bytes;

    if (!key)
        server_rig_fail("a request without a key");
    memcpy(text, key + strlen("Sec-WebSocket-Key: "), 24);
    memcpy(text + 24, guid, sizeof(guid) - 1);
    SHA1(text, sizeof(text), digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof(digest));
    bytes = snprintf(answer, sizeof(answer),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     accept);
    if (send(fd, answer, (size_t)bytes, MSG_NOSIGNAL) != bytes)
        server_rig_fail("101");
}

static void
bare_serve(int fd)
{
    char in[4096];
    ssize_t bytes = recv(fd, in, sizeof(in) - 1, 0);

    if (bytes > 8) {
        in[bytes] = '\0';
        bare_handshake(fd, in);
        return;
    }
    if (bytes == sizeof(client_close))
        (void)send(fd, server_close, sizeof(server_close), MSG_NOSIGNAL);
    close(fd);
}

static void
bare_accept(int listener, int epoll)
{
    int fd;

    /* cppcheck-suppress nullPointer ; the address does not matter, accept(2) */
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void
bare_run(int listener)
{
    struct epoll_event events[EVENTS];
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    int epoll = epoll_create1(0);

    fcntl(listener, F_SETFL, O_NONBLOCK);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                bare_accept(listener, epoll);
            else
                bare_serve(events[i].data.fd);
        }
    }
}

static pid_t
bare_start(uint16_t *port)
{
    int listener = server_rig_listen(port);
    pid_t pid = fork();

    if (pid == 0)
        bare_run(listener);
    close(listener);
    return pid;
}

/* --- what is measured --- */

static void
load_run(const struct server_rig_load *load)
{
    server_rig_tell(load->begin);
    server_rig_await(load->done, "connections");
}

struct scene {
    const char *program;
    const char *workers;
};

/* One of new processes, whose turns alternate. */
static void
scene_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    const struct scene *scene = context;
    const char *const flags[] = {"--workers", scene->workers, NULL};
    struct server_rig_load loads[PAIRS_SIDES];
    uint64_t sums_ns[PAIRS_SIDES] = {0};
    struct server_rig server;
    uint16_t port;
    pid_t bare;

    server_rig_start(&server, scene->program, flags);
    bare = bare_start(&port);
    load_start(&loads[PAIRS_CRIER], server.port);
    load_start(&loads[PAIRS_BARE], port);
    for (int i = 0; i < PAIRS_SIDES * TURNS; i++) {
        unsigned side = ((unsigned)i ^ first) % PAIRS_SIDES;
        uint64_t before_ns =
            side == PAIRS_BARE ? server_rig_cpu_ns(bare) : server_rig_tree_cpu_ns(&server);
        load_run(&loads[side]);
        if (i >= PAIRS_SIDES)
            sums_ns[side] +=
                (side == PAIRS_BARE ? server_rig_cpu_ns(bare) : server_rig_tree_cpu_ns(&server)) -
                before_ns;
    }
    for (int side = 0; side < PAIRS_SIDES; side++) {
        server_rig_load_stop(&loads[side]);
        us[side] = (double)sums_ns[side] / 1e3 / (CONNECTIONS * (TURNS - 1));
    }
    kill(bare, SIGKILL);
    waitpid(bare, NULL, 0);
    server_rig_stop(&server);
}

int
main(int argc, char **argv)
{
    static const char *const workers[] = {"1", "2", "4"};
    const char *program = server_rig_open(argc, argv, BARE_FDS);

    for (size_t w = 0; w < sizeof(workers) / sizeof(workers[0]); w++) {
        struct scene scene = {.program = program, .workers = workers[w]};
        char title[80];
        struct pairs pairs = {.title = title,
                              .what = "CPU per connection",
                              .bare = "bare epoll server",
                              .target = 1.15};

        snprintf(title, sizeof(title), "connect, handshake, Close, %d at once, %s worker%s",
                 AT_ONCE, workers[w], w ? "s" : "");
        pairs_compare(&pairs, scene_round, &scene);
    }
    return 0;
}
