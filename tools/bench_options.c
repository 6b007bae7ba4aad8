/*
 * The command line. A number is checked where it is read, what must fit together afterwards, and
 * the URL last, since that may have to ask a name server.
 */
#include "tools/bench_options.h"

#include <getopt.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shm/util/program.h"
#include "tools/bench_mqtt.h"
#include "tools/bench_stamp.h"

enum {
    DEFAULT_CLIENTS = 100,
    DEFAULT_SIZE = 64,
    DEFAULT_SECONDS = 10,
    DEFAULT_DRAIN_SECONDS = 5,
    CLIENTS_MAX = 2000000,
    WINDOW_MAX = 1 << 20,
    SIZE_BYTES_MAX = 64 << 20,
    SECONDS_MAX = 18 * 3600, /* what a stamp's clock can say */
    RATE_MAX = 100000000,
};

static const char default_url[] = "ws://127.0.0.1:8080/";

static const char usage[] = /* of printf: the name of the program */
    "Usage: %s [OPTION...] [URL] [-- COMMAND...]\n"
    "Loads the WebSocket server at URL (default: ws://127.0.0.1:8080/) and measures it: latency,\n"
    "throughput, CPU and memory. Checks that every client receives every message once, whole and in\n"
    "order. With a COMMAND it starts the server itself, and stops it.\n\n"
    "What to do (default: --broadcast):\n"
    "      --broadcast         publishers send, and every client receives all of it\n"
    "      --echo              every client sends, and receives its own messages\n"
    "      --idle              clients connect and stay; what does one cost?\n"
    "      --storm             clients connect, leave and connect again\n\n"
    "How much of it:\n"
    "  -c, --clients N         clients (default: 100); --storm: so many at once\n"
    "  -p, --publishers N      how many of the clients publish (default: 1)\n"
    "  -r, --rate N            messages per second, of all senders together; latency is then from\n"
    "                          when a message was due, however late it was sent\n"
    "  -w, --window N          or, messages of each sender on their way (default: 1)\n"
    "  -s, --size SIZE         bytes of a message (default: 64, at least 16)\n"
    "  -b, --binary            binary messages instead of text\n"
    "  -d, --duration SECS     how long (default: 10)\n"
    "      --drain SECS        how long to wait for what is on its way then (default: 5)\n"
    "      --connect-rate N    connections per second (default: as fast as they are taken)\n"
    "  -t, --threads N         threads of this program (default: 1)\n"
    "      --publish ws|stdin  over a WebSocket, or as lines on COMMAND's standard input\n"
    "      --subprotocol NAME  ask for it in the opening handshake\n"
    "      --mqtt              messages by MQTT 3.1.1 to one topic, at most once (QoS 0)\n\n"
    "What to show:\n"
    "      --pid PID           measure this process and all below it (default: COMMAND's)\n"
    "      --progress          a line every second on stderr (default: when that is a terminal)\n"
    "      --json              one JSON object instead of text\n"
    "      --plot FILE         draw the latencies, FILE ends with .svg or .png; needs gnuplot\n"
    "      --help, --version   this text, the version\n";

enum option_key {
    OPTION_BROADCAST = 256,
    OPTION_ECHO,
    OPTION_IDLE,
    OPTION_STORM,
    OPTION_DRAIN,
    OPTION_CONNECT_RATE,
    OPTION_PUBLISH,
    OPTION_SUBPROTOCOL,
    OPTION_MQTT,
    OPTION_PID,
    OPTION_PROGRESS,
    OPTION_JSON,
    OPTION_PLOT,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"broadcast", no_argument, NULL, OPTION_BROADCAST},
    {"echo", no_argument, NULL, OPTION_ECHO},
    {"idle", no_argument, NULL, OPTION_IDLE},
    {"storm", no_argument, NULL, OPTION_STORM},
    {"clients", required_argument, NULL, 'c'},
    {"publishers", required_argument, NULL, 'p'},
    {"rate", required_argument, NULL, 'r'},
    {"window", required_argument, NULL, 'w'},
    {"size", required_argument, NULL, 's'},
    {"binary", no_argument, NULL, 'b'},
    {"duration", required_argument, NULL, 'd'},
    {"drain", required_argument, NULL, OPTION_DRAIN},
    {"connect-rate", required_argument, NULL, OPTION_CONNECT_RATE},
    {"threads", required_argument, NULL, 't'},
    {"publish", required_argument, NULL, OPTION_PUBLISH},
    {"subprotocol", required_argument, NULL, OPTION_SUBPROTOCOL},
    {"mqtt", no_argument, NULL, OPTION_MQTT},
    {"pid", required_argument, NULL, OPTION_PID},
    {"progress", no_argument, NULL, OPTION_PROGRESS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"plot", required_argument, NULL, OPTION_PLOT},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

const char *
bench_mode_name(enum bench_mode mode)
{
    switch (mode) {
    case BENCH_BROADCAST: return "broadcast";
    case BENCH_ECHO: return "echo";
    case BENCH_IDLE: return "idle";
    case BENCH_STORM: return "storm";
    }
    return "unknown";
}

int
bench_options_complain(int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    program_vcomplain(format, args);
    va_end(args);
    return code;
}

/* --- numbers: -1, or the exit code --- */

static int
parse_real(const char *name, const char *text, double min, double max, double *value)
{
    char *end;

    *value = strtod(text, &end);
    if (*text >= '0' && *text <= '9' && !*end && *value >= min && *value <= max)
        return -1;
    return bench_options_complain(BENCH_EXIT_USAGE,
                                  "--%s wants a number from %g to %.12g, not '%.80s'", name, min,
                                  max, text);
}

static int
parse_count(const char *name, const char *text, uint32_t min, uint32_t max, uint32_t *value)
{
    char *end;
    unsigned long long number = strtoull(text, &end, 10);

    *value = (uint32_t)number;
    if (*text >= '0' && *text <= '9' && !*end && number >= min && number <= max)
        return -1;
    return bench_options_complain(BENCH_EXIT_USAGE,
                                  "--%s wants a whole number from %u to %u, not '%.80s'", name, min,
                                  max, text);
}

static int
parse_seconds(const char *name, const char *text, double min, uint64_t *ns)
{
    double seconds;
    int code = parse_real(name, text, min, SECONDS_MAX, &seconds);

    *ns = (uint64_t)(seconds * 1e9);
    return code;
}

static int
parse_size(const char *text, size_t *bytes)
{
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    unsigned shift = *end == 'k' || *end == 'K' ? 10 : *end == 'M' ? 20 : 0;

    *bytes = (size_t)number << shift;
    if (*text >= '0' && *text <= '9' && !end[shift ? 1 : 0] && number <= SIZE_BYTES_MAX &&
        *bytes >= BENCH_STAMP_BYTES && *bytes <= SIZE_BYTES_MAX)
        return -1;
    return bench_options_complain(BENCH_EXIT_USAGE, "--size wants %d bytes to %dM, not '%.80s'",
                                  BENCH_STAMP_BYTES, SIZE_BYTES_MAX >> 20, text);
}

/* --- options --- */

static int
parse_publish(struct bench_options *options, const char *text)
{
    options->publish_stdin = strcmp(text, "stdin") == 0;
    if (options->publish_stdin || strcmp(text, "ws") == 0)
        return -1;
    return bench_options_complain(BENCH_EXIT_USAGE, "--publish wants ws or stdin, not '%.80s'",
                                  text);
}

/* A token, RFC 6455 section 4.1. */
static int
parse_subprotocol(struct bench_options *options, const char *text)
{
    static const char separators[] = "()<>@,;:\\\"/[]?={} \t";
    size_t bytes = 0;

    while (text[bytes] > ' ' && text[bytes] < 0x7f && !strchr(separators, text[bytes]))
        bytes++;
    options->subprotocol = text;
    if (bytes > 0 && !text[bytes])
        return -1;
    return bench_options_complain(BENCH_EXIT_USAGE,
                                  "--subprotocol wants a name without blanks, not '%.80s'", text);
}

static int
parse_plot(struct bench_options *options, const char *file)
{
    const char *dot = strrchr(file, '.');

    options->plot = file;
    if (dot && (strcasecmp(dot, ".svg") == 0 || strcasecmp(dot, ".png") == 0))
        return -1;
    return bench_options_complain(
        BENCH_EXIT_USAGE, "--plot wants a file that ends with .svg or .png, not '%.80s'", file);
}

static int
parse_number_option(struct bench_options *o, int key, const char *text)
{
    uint32_t pid = 0;
    int code;

    switch (key) {
    case 'c': return parse_count("clients", text, 1, CLIENTS_MAX, &o->clients);
    case 'p': return parse_count("publishers", text, 1, BENCH_STAMP_IDS, &o->publishers);
    case 'r': return parse_real("rate", text, 0.001, RATE_MAX, &o->rate);
    case 'w': return parse_count("window", text, 1, WINDOW_MAX, &o->window);
    case 's': return parse_size(text, &o->size_bytes);
    case 'd': return parse_seconds("duration", text, 0.01, &o->duration_ns);
    case OPTION_DRAIN: return parse_seconds("drain", text, 0, &o->drain_ns);
    case OPTION_CONNECT_RATE:
        return parse_real("connect-rate", text, 0.001, RATE_MAX, &o->connect_rate);
    case 't': return parse_count("threads", text, 1, BENCH_THREADS_MAX, &o->threads);
    }
    code = parse_count("pid", text, 1, INT32_MAX, &pid);
    o->pid = (pid_t)pid;
    return code;
}

static int
parse_option(struct bench_options *options, int key, const char *text)
{
    switch (key) {
    case OPTION_BROADCAST: options->mode = BENCH_BROADCAST; return -1;
    case OPTION_ECHO: options->mode = BENCH_ECHO; return -1;
    case OPTION_IDLE: options->mode = BENCH_IDLE; return -1;
    case OPTION_STORM: options->mode = BENCH_STORM; return -1;
    case 'b': options->binary = true; return -1;
    case OPTION_PROGRESS: options->progress = true; return -1;
    case OPTION_JSON: options->json = true; return -1;
    case OPTION_MQTT: options->mqtt = true; return -1;
    case OPTION_SUBPROTOCOL: return parse_subprotocol(options, text);
    case OPTION_PUBLISH: return parse_publish(options, text);
    case OPTION_PLOT: return parse_plot(options, text);
    case OPTION_HELP: return printf(usage, program_name()) < 0;
    case OPTION_VERSION: return printf("%s " CRIER_VERSION "\n", program_name()) < 0;
    }
    return parse_number_option(options, key, text);
}

static int
check_together(struct bench_options *options)
{
    if (options->rate > 0 && options->window)
        return bench_options_complain(
            BENCH_EXIT_USAGE,
            "--rate and --window exclude each other: messages are sent when they are "
            "due, or when others have come back");
    if (options->rate <= 0 && !options->window)
        options->window = 1;
    if (options->publish_stdin && !options->command)
        return bench_options_complain(
            BENCH_EXIT_USAGE,
            "--publish stdin needs the server's command line: crier-bench --publish "
            "stdin -- crier");
    if (options->publish_stdin && options->mode != BENCH_BROADCAST)
        return bench_options_complain(BENCH_EXIT_USAGE,
                                      "--publish stdin makes sense with --broadcast only");
    if (options->publish_stdin && options->publishers > 1)
        return bench_options_complain(BENCH_EXIT_USAGE, "--publish stdin is one publisher");
    if (options->publish_stdin && options->mqtt)
        return bench_options_complain(BENCH_EXIT_USAGE,
                                      "--mqtt publishes over a WebSocket, not --publish stdin");
    if (options->mqtt && options->mode == BENCH_ECHO)
        return bench_options_complain(
            BENCH_EXIT_USAGE, "--mqtt has one topic for all clients, so there is no --echo");
    if (options->mqtt && !options->subprotocol)
        options->subprotocol = BENCH_MQTT_SUBPROTOCOL;
    if (options->publishers > options->clients)
        return bench_options_complain(
            BENCH_EXIT_USAGE,
            "--publishers %u are more than --clients %u, of which they are a part",
            options->publishers, options->clients);
    if (options->threads > options->clients)
        options->threads = options->clients;
    return -1;
}

/* --- the URL --- */

/* ws://HOST[:PORT][/PATH], RFC 6455 section 3; HOST may be [IPv6]. */
static int
parse_url(struct bench_options *options, const char *url)
{
    const char *host = url + strlen("ws://");
    size_t host_bytes;
    size_t all_bytes;
    const char *port;
    int bracket;

    if (strncasecmp(url, "wss://", strlen("wss://")) == 0)
        return bench_options_complain(BENCH_EXIT_USAGE,
                                      "TLS is not supported: '%.80s' would need it", url);
    if (strncasecmp(url, "ws://", strlen("ws://")) != 0 || strpbrk(url, " \r\n#"))
        return bench_options_complain(BENCH_EXIT_USAGE,
                                      "the URL is ws://HOST:PORT/PATH, not '%.80s'", url);
    bracket = *host == '[';
    host += bracket;
    all_bytes = strcspn(host, "/?");
    host_bytes = strcspn(host, bracket ? "]/?" : ":/?");
    port = host + host_bytes + bracket;
    if (host_bytes == 0 || (bracket && host[host_bytes] != ']'))
        return bench_options_complain(BENCH_EXIT_USAGE,
                                      "the URL is ws://HOST:PORT/PATH, not '%.80s'", url);
    if (asprintf(&options->host, "%.*s", (int)host_bytes, host) < 0 ||
        asprintf(&options->port, "%.*s", *port == ':' ? (int)(host + all_bytes - port - 1) : 2,
                 *port == ':' ? port + 1 : "80") < 0 ||
        asprintf(&options->path, "%s%s", host[all_bytes] == '/' ? "" : "/", host + all_bytes) < 0)
        abort(); /* some bytes, at boot */
    return -1;
}

static int
resolve(struct bench_options *options)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int rc = getaddrinfo(options->host, options->port, &hints, &found);

    if (rc) {
        bench_options_complain(BENCH_EXIT_USAGE, "cannot find %s port %s: %s", options->host,
                               options->port, gai_strerror(rc));
        return BENCH_EXIT_FAILED;
    }
    memcpy(&options->address, found->ai_addr, found->ai_addrlen);
    options->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return -1;
}

int
bench_options_parse(struct bench_options *options, int argc, char **argv)
{
    const char *url = default_url;
    int own = 0; /* arguments before the command */
    int code;
    int key;

    *options = (struct bench_options){
        .clients = DEFAULT_CLIENTS,
        .publishers = 1,
        .threads = 1,
        .size_bytes = DEFAULT_SIZE,
        .duration_ns = DEFAULT_SECONDS * UINT64_C(1000000000),
        .drain_ns = DEFAULT_DRAIN_SECONDS * UINT64_C(1000000000),
    };
    while (own < argc && strcmp(argv[own], "--") != 0)
        own++;
    if (own + 1 < argc)
        options->command = argv + own + 1;
    opterr = 0;
    while ((key = getopt_long(own, argv, ":c:p:r:w:s:bd:t:", long_options, NULL)) != -1) {
        if (key == '?' || key == ':') {
            program_complain_option(argv, long_options, key);
            return BENCH_EXIT_USAGE;
        }
        code = parse_option(options, key, optarg);
        if (code >= 0)
            return code;
    }
    if (optind < own)
        url = argv[optind++];
    if (optind < own)
        return bench_options_complain(
            BENCH_EXIT_USAGE, "one URL at a time, not '%.80s' too; a command goes behind --",
            argv[optind]);
    code = check_together(options);
    if (code < 0)
        code = parse_url(options, url);
    return code < 0 ? resolve(options) : code;
}

void
bench_options_fini(struct bench_options *options)
{
    free(options->host);
    free(options->port);
    free(options->path);
}
