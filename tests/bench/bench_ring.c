/* long: three measurements that take turns in the same rounds */
/*
 * bench_ring.c: what the ring costs, beside what one would take instead of it, in the same run.
 *
 *   latency     One message of 64 bytes goes to another process, one comes back, and so on; each
 *               carries the time at which its publisher began, and its reader takes the time when
 *               it has read it. The processes stand on two CPUs. Asleep: the reader waits in the
 *               kernel (its voluntary context switches are counted) and has done so for about
 *               THINK_NS. Awake: it polls. "bare" is the least that does it: the message in shared
 *               memory, a word that says so, an eventfd in epoll.
 *   throughput  Messages per second that every reader has read whole, from publishers that never
 *               pause, to readers that sleep when there is nothing. The clock stops when the last
 *               reader has the last message. Readers add up all words of all payloads, and the sums
 *               must be what was published. A message is published by itself; sleepers are woken
 *               once per batch. Then the others may gather a batch before a reader sees any of it,
 *               which costs them less, and which the ring has no use for.
 *   memcpy      How fast a process that does nothing else copies a message of 64 KiB from one
 *               buffer to place after place in as much shared memory as an arena has. The ring
 *               copies a byte once, when it is published, and it is read in place; so with one
 *               publisher and one reader it would be as fast if moving the bytes to the other CPU
 *               and reading them there took no time.
 *
 * bus.h says what work is the same for all, bus_ring.h and bus_peers.h how each is used. Everything
 * runs once in each round, one after the other, so that a noisy neighbour meets all of it: compare
 * figures of one run with each other, and look at min and max before you believe a median. CPU time
 * suffers less from neighbours than the clock does.
 *
 *   bench_ring [ROUNDS]
 *
 * There are fewer rounds when they take longer than BUDGET_NS. The exit status does not depend on
 * the targets.
 */
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "shm/atomic.h"
#include "tests/bench/bus.h"
#include "tests/bench/bus_peers.h"
#include "tests/bench/bus_ring.h"

enum {
    ROUNDS = 5,
    ROUNDS_MIN = 3,
    ROUNDS_MAX = 101,
    RUN_NS = 50000000,
    ROOM_BYTES = 16 << 20, /* the server's default for a publisher */
    PROCESSES_MAX = BUS_PUBLISHERS_MAX + BUS_READERS_MAX,
    PING_PAYLOAD_BYTES = 64,
    PING_ROOM_BYTES = 1 << 20,
    PINGS = 600, /* there and back, per round */
    PINGS_WARM = 50,
    THINK_NS = 20000,
    STUCK_S = 60,
};

#define BUDGET_NS UINT64_C(70000000000)

static const uint32_t sizes[] = {16, 64, 1024, 65536};
static const uint32_t crowds[] = {1, 2, 4};

enum {
    SIZES = sizeof(sizes) / sizeof(sizes[0]),
    CROWDS = sizeof(crowds) / sizeof(crowds[0]),
    KINDS = 4,                  /* the ring first */
    CROWDED = CROWDS * CROWDS,  /* loads of a size */
    GATHERED = SIZES * CROWDED, /* the first cell in which the others gather */
    CELLS = GATHERED + SIZES,
    PAIRS = 7,
    PAIR_AWAKE = 0,
    PAIR_ASLEEP = 2,
    PAIR_BARE = 3,
};

/* What the processes of a run tell the one that started them. */
struct stage {
    uint32_t ready[PROCESSES_MAX];
    uint32_t open;
    uint64_t end_ns[PROCESSES_MAX];
    uint64_t cpu_ns[PROCESSES_MAX];
    struct bus_tally tallies[PROCESSES_MAX];
    uint64_t pings_ns[2][PINGS];
    uint64_t switches;
};

/* Two buses, one for each direction. */
struct pair {
    const char *name;
    bool awake;
    struct bus there;
    struct bus back;
    uint64_t *samples_ns;
    uint64_t count;
    uint64_t switches;
};

/* Of each kind and round. */
struct cell {
    struct bus_load load;
    bool gather;
    double rates[KINDS][ROUNDS_MAX];  /* thousand messages per second */
    double cpu_ns[KINDS][ROUNDS_MAX]; /* of all processes, per message */
};

static struct stage *stage;
static struct bus buses[KINDS];
static struct pair pairs[PAIRS];
static struct cell cells[CELLS];
static double memcpy_rates[ROUNDS_MAX];
static int rounds;

static int
compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void
sort(double *values)
{
    qsort(values, (size_t)rounds, sizeof(values[0]), compare_double);
}

/* Of sorted values. */
static double
median(const double *values)
{
    return values[rounds / 2];
}

/* One publisher's messages or many's, each by itself. */
static const struct cell *
find_cell(uint32_t payload_bytes, uint32_t publishers, uint32_t readers)
{
    const struct cell *cell = cells;

    while (cell->load.payload_bytes != payload_bytes || cell->load.publishers != publishers ||
           cell->load.readers != readers)
        cell++;
    return cell;
}

static uint64_t
timespec_ns(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * 1000000000U + (uint64_t)time->tv_nsec;
}

static uint64_t
timeval_ns(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000000U + (uint64_t)time->tv_usec * 1000U;
}

/* --- processes --- */

static void
gate_pass(uint32_t process)
{
    atomic_store_release(&stage->ready[process], 1U);
    while (!atomic_load_acquire(&stage->open))
        sched_yield();
}

/* Returns in the child; a run that does not end is ended by an alarm of its parent. */
static bool
process_start(void)
{
    pid_t pid = fork();

    REQUIRE(pid >= 0);
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid == 0;
}

/* Opens the gate when all are there, waits until they are done; returns when it was opened. */
static uint64_t
processes_run(uint32_t count)
{
    uint64_t begin_ns;

    alarm(STUCK_S);
    for (uint32_t i = 0; i < count; i++) {
        while (!atomic_load_acquire(&stage->ready[i]))
            sched_yield();
    }
    begin_ns = ring_rig_now_ns();
    atomic_store_release(&stage->open, 1U);
    for (uint32_t i = 0; i < count; i++) {
        int status = 0;
        REQUIRE(wait(&status) > 0 && status == 0);
    }
    alarm(0);
    return begin_ns;
}

/* --- throughput --- */

static uint64_t
cpu_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return timespec_ns(&now);
}

static void
publish_until(struct bus *bus, struct bus_tally *tally, uint64_t end_ns)
{
    static struct bus_batch batch;
    uint64_t sum = 0; /* of a batch, but for its stamps */

    bus_batch_init(&batch, bus->load.payload_bytes, BUS_BATCH_MESSAGES);
    for (uint32_t i = 0; i < batch.count; i++) {
        bus_batch_stamp(&batch, i, 0);
        sum += bus_sum(bus_batch_look(&batch, i), batch.payload_bytes);
    }
    do {
        tally->sum += sum;
        for (uint32_t i = 0; i < batch.count; i++) {
            bus_batch_stamp(&batch, i, ++tally->messages);
            tally->sum += tally->messages;
        }
        bus->kind->publish(bus, &batch);
    } while (ring_rig_now_ns() < end_ns);
    batch.count = 1;
    bus_batch_stamp(&batch, 0, BUS_END);
    bus->kind->publish(bus, &batch);
}

static void
throughput_process(struct bus *bus, uint32_t process)
{
    bool reader = process >= bus->load.publishers;
    struct bus_tally tally = {0};

    bus->self = reader ? process - bus->load.publishers : process;
    bus->kind->attach(bus, reader);
    gate_pass(process);
    stage->cpu_ns[process] = cpu_now_ns();
    if (!reader)
        publish_until(bus, &tally, ring_rig_now_ns() + RUN_NS);
    while (reader && tally.ended < bus->load.publishers)
        bus->kind->read(bus, &tally);
    stage->end_ns[process] = ring_rig_now_ns();
    stage->cpu_ns[process] = cpu_now_ns() - stage->cpu_ns[process];
    stage->tallies[process] = tally;
    _exit(0);
}

/* What a run has come to; every reader must have got everything. */
static void
throughput_note(struct cell *cell, int kind, int round, uint64_t begin_ns)
{
    uint32_t publishers = cell->load.publishers;
    uint32_t count = publishers + cell->load.readers;
    struct bus_tally published = {0};
    uint64_t end_ns = 0;
    uint64_t cpu_ns = 0;

    for (uint32_t i = 0; i < publishers; i++) {
        published.messages += stage->tallies[i].messages;
        published.sum += stage->tallies[i].sum;
    }
    for (uint32_t i = publishers; i < count; i++) {
        REQUIRE(stage->tallies[i].messages == published.messages);
        REQUIRE(stage->tallies[i].sum == published.sum);
        end_ns = stage->end_ns[i] > end_ns ? stage->end_ns[i] : end_ns;
    }
    for (uint32_t i = 0; i < count; i++)
        cpu_ns += stage->cpu_ns[i];
    cell->rates[kind][round] = (double)published.messages * 1e6 / (double)(end_ns - begin_ns);
    cell->cpu_ns[kind][round] = (double)cpu_ns / (double)published.messages;
}

static void
throughput(struct cell *cell, int kind, int round)
{
    struct bus *bus = &buses[kind];
    uint32_t count = cell->load.publishers + cell->load.readers;
    uint64_t begin_ns;

    memset(stage, 0, sizeof(*stage));
    bus->load = cell->load;
    bus->gather = cell->gather;
    bus->kind->begin(bus);
    for (uint32_t i = 0; i < count; i++) {
        if (process_start())
            throughput_process(bus, i);
    }
    begin_ns = processes_run(count);
    bus->kind->end(bus);
    throughput_note(cell, kind, round, begin_ns);
}

/* Thousand messages per second. */
static double
memcpy_alone(uint8_t *room)
{
    static struct bus_batch batch;
    uint64_t begin_ns;
    uint64_t now_ns;
    uint64_t count = 0;

    bus_batch_init(&batch, BUS_PAYLOAD_MAX_BYTES, 1);
    bus_touch_pages(room, ROOM_BYTES);
    begin_ns = now_ns = ring_rig_now_ns();
    for (; now_ns - begin_ns < RUN_NS; now_ns = ring_rig_now_ns()) {
        bus_batch_stamp(&batch, 0, ++count);
        memcpy(room + count * BUS_PAYLOAD_MAX_BYTES % ROOM_BYTES, bus_batch_look(&batch, 0),
               BUS_PAYLOAD_MAX_BYTES);
    }
    return (double)count * 1e6 / (double)(now_ns - begin_ns);
}

/* --- latency --- */

/* The first or the last CPU that this process may use. */
static void
stand_on(bool last)
{
    cpu_set_t allowed;
    cpu_set_t one;
    int found = -1;

    REQUIRE(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && (last || found < 0))
            found = cpu;
    }
    CPU_ZERO(&one);
    CPU_SET(found, &one);
    REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
}

static uint64_t
switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_nvcsw;
}

static void
ping_publish(struct bus *bus, struct bus_batch *batch)
{
    uint64_t begin_ns = ring_rig_now_ns();

    while (!bus->awake && ring_rig_now_ns() - begin_ns < THINK_NS)
        ;
    bus_batch_stamp(batch, 0, ring_rig_now_ns());
    bus->kind->publish(bus, batch);
}

static uint64_t
ping_read(struct bus *bus, struct bus_tally *tally)
{
    uint64_t before = tally->messages;

    while (tally->messages == before)
        bus->kind->read(bus, tally);
    return ring_rig_now_ns() - tally->stamp;
}

static void
ping_process(struct bus *out, struct bus *in, uint32_t process)
{
    static struct bus_batch batch;
    struct bus_tally tally = {0};
    uint64_t before = 0;

    stand_on(process == 1);
    bus_batch_init(&batch, PING_PAYLOAD_BYTES, 1);
    out->kind->attach(out, false);
    in->kind->attach(in, true);
    gate_pass(process);
    for (int i = -PINGS_WARM; i < PINGS; i++) {
        uint64_t ns;

        if (i == 0)
            before = switches();
        if (process == 0)
            ping_publish(out, &batch);
        ns = ping_read(in, &tally);
        if (i >= 0)
            stage->pings_ns[process][i] = ns;
        if (process == 1)
            ping_publish(out, &batch);
    }
    if (process == 1)
        stage->switches = switches() - before;
    _exit(0);
}

static void
ping_round(struct pair *pair)
{
    memset(stage, 0, sizeof(*stage));
    pair->there.kind->begin(&pair->there);
    pair->back.kind->begin(&pair->back);
    for (uint32_t i = 0; i < 2; i++) {
        if (process_start())
            ping_process(i == 0 ? &pair->there : &pair->back, i == 0 ? &pair->back : &pair->there,
                         i);
    }
    processes_run(2);
    pair->there.kind->end(&pair->there);
    pair->back.kind->end(&pair->back);
    memcpy(pair->samples_ns + pair->count, stage->pings_ns, sizeof(stage->pings_ns));
    pair->count += 2 * PINGS;
    pair->switches += stage->switches;
}

static int
compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double
pair_us(const struct pair *pair, uint64_t per_mille)
{
    uint64_t place = (pair->count - 1) * per_mille / 1000;

    return (double)pair->samples_ns[place] / 1e3;
}

/* --- all of it --- */

static void
bus_open(struct bus *bus, const struct bus_kind *kind, uint64_t room_bytes, bool awake)
{
    *bus = (struct bus){.kind = kind, .awake = awake, .load = {PING_PAYLOAD_BYTES, 1, 1}};
    kind->create(bus, room_bytes);
}

static void
open_pairs(int most)
{
    const struct {
        const char *name;
        bool awake;
        const struct bus_kind *kind;
    } plan[PAIRS] = {
        {"ring", true, bus_ring_kind()},
        {"bare word", true, bus_bare_kind()},
        {"ring", false, bus_ring_kind()},
        {"bare eventfd + epoll", false, bus_bare_kind()},
        {"pipe", false, bus_pipe_kind()},
        {"seqpacket", false, bus_seqpacket_kind()},
        {"mutex, condition variable", false, bus_mutex_kind()},
    };

    for (int p = 0; p < PAIRS; p++) {
        struct pair *pair = &pairs[p];

        pair->name = plan[p].name;
        pair->awake = plan[p].awake;
        bus_open(&pair->there, plan[p].kind, PING_ROOM_BYTES, plan[p].awake);
        bus_open(&pair->back, plan[p].kind, PING_ROOM_BYTES, plan[p].awake);
        pair->samples_ns = calloc((size_t)most * 2 * PINGS, sizeof(uint64_t));
        REQUIRE(pair->samples_ns);
    }
}

static void
open_all(int most)
{
    const struct bus_kind *kinds[KINDS] = {bus_ring_kind(), bus_pipe_kind(), bus_seqpacket_kind(),
                                           bus_mutex_kind()};

    for (int k = 0; k < KINDS; k++)
        bus_open(&buses[k], kinds[k], ROOM_BYTES, false);
    for (int c = 0; c < CELLS; c++) {
        cells[c].gather = c >= GATHERED;
        cells[c].load = c >= GATHERED
                            ? (struct bus_load){sizes[c - GATHERED], 1, 2}
                            : (struct bus_load){sizes[c / CROWDED], crowds[c / CROWDS % CROWDS],
                                                crowds[c % CROWDS]};
    }
    open_pairs(most);
}

static void
measure_round(int round, uint8_t *room)
{
    for (int p = 0; p < PAIRS; p++)
        ping_round(&pairs[p]);
    for (int c = 0; c < CELLS; c++) {
        const struct bus_load *load = &cells[c].load;

        if (load->payload_bytes == BUS_PAYLOAD_MAX_BYTES && load->publishers + load->readers == 2)
            memcpy_rates[round] = memcpy_alone(room);
        for (int k = 0; k < KINDS; k++)
            throughput(&cells[c], k, round);
    }
}

/* Values of the rounds are in order afterwards. */
static void
sort_all(void)
{
    for (int c = 0; c < CELLS; c++) {
        for (int k = 0; k < KINDS; k++) {
            sort(cells[c].rates[k]);
            sort(cells[c].cpu_ns[k]);
        }
    }
    for (int p = 0; p < PAIRS; p++)
        qsort(pairs[p].samples_ns, pairs[p].count, sizeof(uint64_t), compare_u64);
    sort(memcpy_rates);
}

/* --- how busy the machine was --- */

/* CPU time of all processes there are, and of this one with its children. */
struct busy {
    uint64_t clock_ns;
    uint64_t all_ns;
    uint64_t own_ns;
};

static struct busy
busy_now(void)
{
    struct busy busy = {.clock_ns = ring_rig_now_ns()};
    unsigned long long ticks[8] = {0}; /* user nice system idle iowait irq softirq steal */
    struct rusage self;
    struct rusage children;
    FILE *file = fopen("/proc/stat", "r");

    if (!file || fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &ticks[0], &ticks[1],
                        &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7]) != 8)
        memset(ticks, 0, sizeof(ticks));
    if (file)
        fclose(file);
    busy.all_ns = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7]) * 1000000000U /
                  (uint64_t)sysconf(_SC_CLK_TCK);
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    busy.own_ns = timeval_ns(&self.ru_utime) + timeval_ns(&self.ru_stime) +
                  timeval_ns(&children.ru_utime) + timeval_ns(&children.ru_stime);
    return busy;
}

static void
print_neighbours(const struct busy *begin, const struct busy *end)
{
    double own = (double)(end->own_ns - begin->own_ns);
    double all = (double)(end->all_ns - begin->all_ns);
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);

    printf("  other processes had %.0f %% of the CPUs meanwhile\n",
           all > own ? (all - own) * 100 / cpus / (double)(end->clock_ns - begin->clock_ns) : 0.0);
}

/* --- the report --- */

static void
print_latency(void)
{
    printf("latency of one message of %d bytes from process to process, one way, microseconds\n\n",
           PING_PAYLOAD_BYTES);
    printf("  reader                               p50      p99   asleep when it came\n");
    for (int p = 0; p < PAIRS; p++) {
        const struct pair *pair = &pairs[p];

        printf("  %-6s  %-26s %6.2f %8.2f", pair->awake ? "awake" : "asleep", pair->name,
               pair_us(pair, 500), pair_us(pair, 990));
        if (pair->awake)
            printf("   polls\n");
        else
            printf("   %3.0f %%\n", (double)pair->switches * 200 / (double)pair->count);
    }
}

static double
best_other(const struct cell *cell)
{
    double best = 0;

    for (int k = 1; k < KINDS; k++)
        best = median(cell->rates[k]) > best ? median(cell->rates[k]) : best;
    return best;
}

static void
print_kinds(void)
{
    for (int k = 0; k < KINDS; k++)
        printf(" %9s", buses[k].kind->name);
}

static void
print_throughput(void)
{
    printf("\nthroughput, thousand messages per second that every reader has read whole\n\n");
    printf("  payload  publishers  readers ");
    print_kinds();
    printf("   ring / best other   ring min to max\n");
    for (int c = 0; c < GATHERED; c++) {
        const struct cell *cell = &cells[c];

        if (c % CROWDED == 0 && c > 0)
            printf("\n");
        printf("  %5u B  %10u  %7u ", cell->load.payload_bytes, cell->load.publishers,
               cell->load.readers);
        for (int k = 0; k < KINDS; k++)
            printf(" %9.0f", median(cell->rates[k]));
        printf("   %17.2f   %.0f to %.0f\n", median(cell->rates[0]) / best_other(cell),
               cell->rates[0][0], cell->rates[0][rounds - 1]);
    }
}

static void
print_gathered_row(const struct cell *cell)
{
    printf("  %5u B  %-8s ", cell->load.payload_bytes, cell->gather ? "gathered" : "single");
    for (int k = 0; k < KINDS; k++)
        printf(" %9.0f", median(cell->rates[k]));
    printf("   |");
    for (int k = 0; k < KINDS; k++)
        printf(" %9.0f", median(cell->cpu_ns[k]));
    printf("\n");
}

static void
print_gathered(void)
{
    printf(
        "\none publisher, two readers; gathered: the others hand over %d messages, or %d KiB, at "
        "a time\n\n",
        BUS_BATCH_MESSAGES, BUS_BATCH_BYTES >> 10);
    printf("                      %-39s   | CPU time of all processes per message, ns\n",
           "thousand messages per second");
    printf("  payload           ");
    print_kinds();
    printf("   |");
    print_kinds();
    printf("\n");
    for (int i = 0; i < SIZES; i++) {
        print_gathered_row(find_cell(sizes[i], 1, 2));
        print_gathered_row(&cells[GATHERED + i]);
    }
}

/* `shortfall` is how many times too slow it is: at most 1 when the target is met. */
static void
print_target(const char *what, double value, const char *unit, double shortfall)
{
    printf("  %-62s %6.2f %-6s", what, value, unit);
    if (shortfall <= 1)
        printf("  met\n");
    else
        printf("  MISSED by %.0f %%\n", (shortfall - 1) * 100);
}

static void
print_targets(void)
{
    double copy = median(memcpy_rates);
    double large = median(find_cell(BUS_PAYLOAD_MAX_BYTES, 1, 1)->rates[0]);
    double messages = median(find_cell(64, 1, 2)->rates[0]) / 1e3;
    double wake = pair_us(&pairs[PAIR_ASLEEP], 500) / pair_us(&pairs[PAIR_BARE], 500);

    printf("\nbandwidth at 64 KiB: memcpy alone %.1f GB/s, ring from one publisher to one reader "
           "%.1f GB/s of payload\n",
           copy * BUS_PAYLOAD_MAX_BYTES / 1e6, large * BUS_PAYLOAD_MAX_BYTES / 1e6);
    printf("\ntargets, for two cores with nothing else to do\n\n");
    print_target("64 B, 1 publisher, 2 readers: at least 10 million messages/s", messages, "M/s",
                 10 / messages);
    print_target("64 KiB, 1 publisher, 1 reader: memcpy at most 2 times as fast", copy / large,
                 "times", copy / large / 2);
    print_target("wake-up: p50 at most 1.3 times that of bare eventfd + epoll", wake, "times",
                 wake / 1.3);
}

int
main(int argc, char **argv)
{
    int most = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS;
    uint8_t *room = bus_map_shared(ROOM_BYTES);
    struct busy begin = busy_now();
    struct busy end = begin;

    if (most < 1 || most > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_ring [ROUNDS], 1 to %d, default %d\n", ROUNDS_MAX, ROUNDS);
        return 2;
    }
    stage = bus_map_shared(sizeof(*stage));
    open_all(most);
    while (rounds < most &&
           (argc > 1 || rounds < ROUNDS_MIN || ring_rig_now_ns() - begin.clock_ns < BUDGET_NS))
        measure_round(rounds++, room);
    end = busy_now();
    sort_all();
    printf("ring: %ld CPUs, medians of %d rounds, batches of %d messages or %d KiB, %d MiB of "
           "room\n\n",
           sysconf(_SC_NPROCESSORS_ONLN), rounds, BUS_BATCH_MESSAGES, BUS_BATCH_BYTES >> 10,
           ROOM_BYTES >> 20);
    print_latency();
    print_throughput();
    print_gathered();
    print_targets();
    print_neighbours(&begin, &end);
    return 0;
}
