#include "tools/bench_report.h"

#include <inttypes.h>
#include <string.h>

#include "shm/util/escape.h"

enum {
    BUSY_PERCENT = 90, /* of a CPU: a thread that needs as much was perhaps what was measured */
    DURATION_BYTES = 32,
};

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};

enum { PERCENTILES = sizeof(percentiles) / sizeof(percentiles[0]) };

bool
bench_report_has_faults(const struct bench_tally *tally)
{
    return tally->faults.missing || tally->faults.duplicates || tally->faults.late ||
           tally->corrupt || tally->other_order || tally->disconnected || tally->refused;
}

/* --- numbers that both reports have --- */

/* What the run is about: messages received, or connections of a storm. */
static uint64_t
result_units(const struct bench_result *result)
{
    return result->run->options->mode == BENCH_STORM ? result->tally.cycles
                                                     : result->tally.received;
}

static double
result_seconds(const struct bench_result *result)
{
    return (double)result->elapsed_ns / 1e9;
}

static double
result_rate(const struct bench_result *result, uint64_t count)
{
    return result->elapsed_ns ? (double)count / result_seconds(result) : 0;
}

static double
us_each(const struct bench_result *result, uint64_t ns)
{
    uint64_t units = result_units(result);

    return units ? (double)ns / 1e3 / (double)units : 0;
}

/* Since the run began; a process that has ended since makes it less than nothing: then it is 0. */
static uint64_t
used_ns(uint64_t begin_ns, uint64_t end_ns)
{
    return end_ns > begin_ns ? end_ns - begin_ns : 0;
}

static double
memory_each(const struct bench_result *result)
{
    const struct bench_usage *end = &result->end;
    const struct bench_usage *before = &result->before;

    return (double)(end->pss_bytes - end->pss_file_bytes - before->pss_bytes +
                    before->pss_file_bytes) /
           (double)result->run->options->clients;
}

static double
share(const struct bench_result *result, uint64_t ns)
{
    return result->elapsed_ns ? (double)ns / (double)result->elapsed_ns : 0;
}

static uint64_t
own_cpu_ns(const struct bench_result *result)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < result->run->thread_count; i++)
        sum += result->run->threads[i].cpu_ns;
    return sum;
}

static bool
was_bottleneck(const struct bench_result *result)
{
    for (uint32_t i = 0; i < result->run->thread_count; i++) {
        if (share(result, result->run->threads[i].cpu_ns) * 100 >= BUSY_PERCENT)
            return true;
    }
    /* What it was late by is a part of what it measured: is it the larger one? */
    return 2 * bench_histogram_value_at(&result->tally.late, 0.5) >
           bench_histogram_value_at(&result->tally.latency, 0.5);
}

/* --- for people --- */

static const char *
duration(char text[DURATION_BYTES], uint64_t ns)
{
    if (ns < 1000)
        snprintf(text, DURATION_BYTES, "%" PRIu64 " ns", ns);
    else if (ns < 1000000)
        snprintf(text, DURATION_BYTES, "%.1f us", (double)ns / 1e3);
    else if (ns < 1000000000)
        snprintf(text, DURATION_BYTES, "%.2f ms", (double)ns / 1e6);
    else
        snprintf(text, DURATION_BYTES, "%.3f s", (double)ns / 1e9);
    return text;
}

static void
text_histogram(FILE *to, const char *name, const struct bench_histogram *histogram)
{
    char text[DURATION_BYTES];

    if (histogram->count == 0)
        return;
    fprintf(to, "%-13s", name);
    for (int i = 0; i < PERCENTILES; i++)
        fprintf(to, " %s %s ", percentiles[i].name,
                duration(text, bench_histogram_value_at(histogram, percentiles[i].fraction)));
    fprintf(to, " max %s\n", duration(text, histogram->max_ns));
}

static void
text_task(FILE *to, const struct bench_result *result)
{
    const struct bench_options *o = result->run->options;

    fprintf(to, "%-13s %" PRIu32 " clients", bench_mode_name(o->mode), o->clients);
    if (o->mode == BENCH_BROADCAST)
        fprintf(to, ", %" PRIu32 " publisher%s%s", o->publishers, o->publishers == 1 ? "" : "s",
                o->publish_stdin ? " on standard input" : "");
    if (o->mode == BENCH_BROADCAST || o->mode == BENCH_ECHO) {
        if (o->rate > 0)
            fprintf(to, ", %.6g messages/s", o->rate);
        else
            fprintf(to, ", %" PRIu32 " on their way of each sender", o->window);
        fprintf(to, ", %zu bytes", o->size_bytes);
    }
    if (o->mode == BENCH_STORM && o->connect_rate > 0)
        fprintf(to, " at once at most, %.6g connections/s", o->connect_rate);
    fprintf(to, ", %.2f s%s\n", result_seconds(result), result->interrupted ? ", cut short" : "");
}

static void
text_traffic(FILE *to, const struct bench_result *result)
{
    const struct bench_options *o = result->run->options;
    const struct bench_tally *t = &result->tally;

    if (o->mode == BENCH_STORM) {
        fprintf(to, "%-13s %" PRIu64 " connections (%.0f/s), %" PRIu64 " failed\n", "cycles",
                t->cycles, result_rate(result, t->cycles), t->refused);
        return;
    }
    fprintf(to, "%-13s in %.2f s (%.0f/s)\n", "connected", (double)result->connect_ns / 1e9,
            result->connect_ns ? o->clients / ((double)result->connect_ns / 1e9) : 0);
    if (o->mode == BENCH_IDLE)
        return;
    fprintf(to, "%-13s %" PRIu64 " messages (%.0f/s)\n", "sent", t->sent,
            result_rate(result, t->sent));
    fprintf(to, "%-13s %" PRIu64 " messages (%.0f/s, %.1f MB/s)\n", "received", t->received,
            result_rate(result, t->received), result_rate(result, t->received_bytes) / 1e6);
}

static void
text_count(FILE *to, uint64_t count, const char *what)
{
    if (count)
        fprintf(to, "%-13s %" PRIu64 " %s\n", "FAULT", count, what);
}

/* The server's own words may be in it: its status line, the reason of its Close. */
static void
text_why(FILE *to, const char *why)
{
    char shown[4 * BENCH_WHY_BYTES];

    escape_text(shown, sizeof(shown), why, strlen(why), ESCAPE_LINE);
    if (*why)
        fprintf(to, "%-13s %s\n", "", shown);
}

static void
text_faults(FILE *to, const struct bench_result *result)
{
    const struct bench_tally *t = &result->tally;

    text_count(to, t->faults.missing, "messages did not arrive");
    text_count(to, t->faults.duplicates, "messages arrived again");
    text_count(to, t->faults.late, "messages arrived behind later ones");
    text_count(to, t->corrupt, "messages were damaged, and count as not arrived too");
    text_count(to, t->other_order, "clients saw the messages in another order than the others");
    text_count(to, t->disconnected, "clients were disconnected");
    text_count(to, t->refused, "connections failed");
    for (uint32_t i = 0; i < result->run->thread_count; i++)
        text_why(to, result->run->threads[i].why);
    if (t->foreign)
        fprintf(to, "%-13s %" PRIu64 " messages were not crier-bench's, and do not count\n", "note",
                t->foreign);
    if (t->unsent)
        fprintf(to,
                "%-13s %" PRIu64 " messages were due, but the server did not take them in time\n",
                "note", t->unsent);
    if (result->run->options->mode == BENCH_BROADCAST && t->received == t->sent &&
        result->run->options->clients > 1 && t->sent)
        fprintf(to,
                "%-13s only publishers received anything: does the server pass messages on? "
                "crier does with --on-message broadcast\n",
                "note");
    if (!bench_report_has_faults(t) && t->received)
        fprintf(to, "%-13s every message arrived once, whole and in order\n", "checked");
}

static void
text_server(FILE *to, const struct bench_result *result)
{
    const struct bench_usage *begin = &result->begin;
    const struct bench_usage *end = &result->end;
    uint64_t cpu_ns = used_ns(begin->cpu_ns, end->cpu_ns);

    if (end->processes == 0)
        return;
    fprintf(to, "%-13s %d process%s, %.2f s of CPU (%.0f %%; user %.2f s, system %.2f s)", "server",
            end->processes, end->processes == 1 ? "" : "es", (double)cpu_ns / 1e9,
            100 * share(result, cpu_ns), (double)used_ns(begin->user_ns, end->user_ns) / 1e9,
            (double)used_ns(begin->system_ns, end->system_ns) / 1e9);
    if (result_units(result))
        fprintf(to, ", %.3f us each", us_each(result, cpu_ns));
    fputc('\n', to);
    if (end->pss_bytes < 0 || result->before.pss_bytes < 0)
        return;
    fprintf(to, "%-13s %.2f MiB, before any client %.2f MiB", "memory",
            (double)end->pss_bytes / 1048576, (double)result->before.pss_bytes / 1048576);
    if (result->run->options->mode != BENCH_STORM)
        fprintf(to, ": %.0f bytes per client", memory_each(result));
    fputc('\n', to);
}

static void
text_self(FILE *to, const struct bench_result *result)
{
    const struct bench_run *run = result->run;

    fprintf(to, "%-13s", "crier-bench");
    for (uint32_t i = 0; i < run->thread_count; i++)
        fprintf(to, "%s thread %" PRIu32 ": %.0f %% of a CPU, waited %.0f %% for one", i ? ";" : "",
                i, 100 * share(result, run->threads[i].cpu_ns),
                100 * share(result, run->threads[i].delay_ns));
    if (result_units(result))
        fprintf(to, "; %.3f us each", us_each(result, own_cpu_ns(result)));
    fputc('\n', to);
    text_histogram(to, "sent late by", &result->tally.late);
    if (was_bottleneck(result))
        fprintf(
            to,
            "%-13s crier-bench was busy all the time or often late: perhaps it was measured, and "
            "not the server; try --threads, or less\n",
            "note");
}

void
bench_report_text(FILE *to, const struct bench_result *result)
{
    text_task(to, result);
    text_traffic(to, result);
    text_histogram(to, "opening", &result->tally.opening);
    text_histogram(to, "latency", &result->tally.latency);
    text_histogram(to, "last client", &result->tally.last);
    text_faults(to, result);
    text_server(to, result);
    text_self(to, result);
}

/* --- for programs --- */

static void
json_histogram(FILE *to, const char *name, const struct bench_histogram *histogram)
{
    fprintf(to, "  \"%s\": {\"count\": %" PRIu64 ", \"mean\": %.1f", name, histogram->count,
            bench_histogram_mean(histogram));
    for (int i = 0; i < PERCENTILES; i++)
        fprintf(to, ", \"%s\": %" PRIu64, percentiles[i].name,
                bench_histogram_value_at(histogram, percentiles[i].fraction));
    fprintf(to, ", \"max\": %" PRIu64 "},\n", histogram->max_ns);
}

static void
json_task(FILE *to, const struct bench_result *result)
{
    const struct bench_options *o = result->run->options;

    fprintf(to,
            "  \"version\": \"" CRIER_VERSION "\",\n  \"mode\": \"%s\",\n"
            "  \"clients\": %" PRIu32 ",\n  \"publishers\": %" PRIu32 ",\n  \"publish\": \"%s\",\n"
            "  \"rate\": %.12g,\n  \"window\": %" PRIu32 ",\n  \"size_bytes\": %zu,\n"
            "  \"connect_rate\": %.12g,\n  \"threads\": %" PRIu32 ",\n",
            bench_mode_name(o->mode), o->clients, o->publishers, o->publish_stdin ? "stdin" : "ws",
            o->rate, o->window, o->size_bytes, o->connect_rate, o->threads);
    fprintf(to, "  \"connect_s\": %.6f,\n  \"elapsed_s\": %.6f,\n  \"interrupted\": %s,\n",
            (double)result->connect_ns / 1e9, result_seconds(result),
            result->interrupted ? "true" : "false");
}

static void
json_traffic(FILE *to, const struct bench_result *result)
{
    const struct bench_tally *t = &result->tally;

    fprintf(to,
            "  \"sent\": %" PRIu64 ",\n  \"unsent\": %" PRIu64 ",\n  \"received\": %" PRIu64 ",\n"
            "  \"received_bytes\": %" PRIu64 ",\n  \"received_per_s\": %.3f,\n"
            "  \"foreign\": %" PRIu64 ",\n  \"cycles\": %" PRIu64 ",\n  \"cycles_per_s\": %.3f,\n",
            t->sent, t->unsent, t->received, t->received_bytes, result_rate(result, t->received),
            t->foreign, t->cycles, result_rate(result, t->cycles));
    fprintf(to,
            "  \"faults\": {\"missing\": %" PRIu64 ", \"duplicates\": %" PRIu64
            ", \"late\": %" PRIu64 ", \"corrupt\": %" PRIu64 ", \"other_order\": %" PRIu64
            ", \"disconnected\": %" PRIu64 ", \"refused\": %" PRIu64 "},\n",
            t->faults.missing, t->faults.duplicates, t->faults.late, t->corrupt, t->other_order,
            t->disconnected, t->refused);
    json_histogram(to, "latency_ns", &t->latency);
    json_histogram(to, "last_client_ns", &t->last);
    json_histogram(to, "opening_ns", &t->opening);
    json_histogram(to, "sent_late_ns", &t->late);
}

static void
json_server(FILE *to, const struct bench_result *result)
{
    const struct bench_usage *begin = &result->begin;
    const struct bench_usage *end = &result->end;
    uint64_t cpu_ns = used_ns(begin->cpu_ns, end->cpu_ns);
    bool memory = end->pss_bytes >= 0 && result->before.pss_bytes >= 0;

    if (end->processes == 0) {
        fprintf(to, "  \"server\": null,\n");
        return;
    }
    fprintf(to,
            "  \"server\": {\"pid\": %d, \"processes\": %d, \"cpu_s\": %.6f, \"user_s\": %.2f, "
            "\"system_s\": %.2f, \"cpu_us_each\": %.4f, ",
            (int)result->pid, end->processes, (double)cpu_ns / 1e9,
            (double)used_ns(begin->user_ns, end->user_ns) / 1e9,
            (double)used_ns(begin->system_ns, end->system_ns) / 1e9, us_each(result, cpu_ns));
    if (memory)
        fprintf(to,
                "\"pss_bytes\": %" PRId64 ", \"pss_bytes_before\": %" PRId64
                ", \"pss_bytes_per_client\": %.1f},\n",
                end->pss_bytes, result->before.pss_bytes, memory_each(result));
    else
        fprintf(to, "\"pss_bytes\": null, \"pss_bytes_before\": null, "
                    "\"pss_bytes_per_client\": null},\n");
}

void
bench_report_json(FILE *to, const struct bench_result *result)
{
    const struct bench_run *run = result->run;

    fprintf(to, "{\n");
    json_task(to, result);
    json_traffic(to, result);
    json_server(to, result);
    fprintf(to, "  \"self\": {\"cpu_us_each\": %.4f, \"bottleneck\": %s, \"threads\": [",
            us_each(result, own_cpu_ns(result)), was_bottleneck(result) ? "true" : "false");
    for (uint32_t i = 0; i < run->thread_count; i++)
        fprintf(to, "%s{\"cpu_share\": %.4f, \"wait_share\": %.4f}", i ? ", " : "",
                share(result, run->threads[i].cpu_ns), share(result, run->threads[i].delay_ns));
    fprintf(to, "]}\n}\n");
}
