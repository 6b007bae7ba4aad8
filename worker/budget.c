/*
 * budget.c: read budget.h first.
 */
#include "worker/budget.h"

#include "shm/clock.h"
#include "worker/conn.h"

const uint32_t budget_limits_ns[BUDGET_CLASSES] = {
    [BUDGET_ORDINARY] = BUDGET_PERIOD_NS,
    [BUDGET_ARRIVING] = BUDGET_ARRIVING_NS,
    [BUDGET_INDEBTED] = BUDGET_QUANTUM_NS,
    [BUDGET_TURNOVER] = BUDGET_TURNOVER_NS,
};

void
budget_init(struct worker *worker)
{
    struct budget *budget = &worker->budget;

    budget->read_ns = clock_ns(CLOCK_MONOTONIC);
    budget->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    budget->steps_most = BUDGET_STEPS;
    budget->costly = BUDGET_HEAT_COSTLY;
}

/* --- the stretch --- */

/* The part of a long stretch in which the worker ran. `*known`: the two clocks can be compared. */
static uint64_t
budget_ran(struct budget *budget, uint64_t stretch_ns, bool *known)
{
    uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t ran_ns = cpu_ns - budget->cpu_ns;
    uint64_t lost_ns = budget->awake_ns > ran_ns ? budget->awake_ns - ran_ns : 0;

    *known = budget->sleeps <= BUDGET_SLEEPS_MAX;
    budget->cpu_ns = cpu_ns;
    budget->awake_ns = 0;
    budget->sleeps = 0;
    return lost_ns < stretch_ns ? stretch_ns - lost_ns : 0;
}

static void
budget_read_exactly(struct budget *budget, uint32_t readings)
{
    budget->exact = readings;
    budget->steps_most = readings ? BUDGET_STEPS_EXACT : BUDGET_STEPS;
}

/* Charges the stretch to the class and, unless it is a long one of several clients, to the turn. */
static void
budget_charge(struct budget *budget, uint64_t stretch_ns)
{
    budget->spent_ns[budget->turn] += stretch_ns;
    budget->sampled |= budget->mixed;
    if (budget->mixed && stretch_ns > BUDGET_MIXED_NS) {
        budget_read_exactly(budget, BUDGET_EXACT_READINGS + 1);
        return;
    }
    budget->turn_ns += stretch_ns;
    budget->own_ns += budget->mixed ? 0 : stretch_ns;
}

/* A stretch that could make its client costly is checked from a shorter time on. */
static uint64_t
budget_look_ns(const struct budget *budget)
{
    bool of_a_client = budget->turn == BUDGET_ORDINARY || budget->turn == BUDGET_INDEBTED;

    return of_a_client && !budget->mixed ? BUDGET_LOOK_TURN_NS : BUDGET_LOOK_NS;
}

void
budget_read(struct worker *worker)
{
    struct budget *budget = &worker->budget;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    uint64_t stretch_ns = now_ns - budget->read_ns;
    bool known = true;

    budget->read_ns = now_ns;
    budget->awake_ns += stretch_ns;
    if (stretch_ns > budget_look_ns(budget))
        stretch_ns = budget_ran(budget, stretch_ns, &known);
    budget->run_ns += stretch_ns;
    if (known) {
        budget_charge(budget, stretch_ns);
    } else {
        budget->sampled = true;
        budget_read_exactly(budget, BUDGET_EXACT_READINGS + 1);
    }
    if (budget->exact)
        budget_read_exactly(budget, budget->exact - 1);
    budget->steps = 0;
    budget->mixed = false;
    if (!budget->turns)
        return;
    budget->ordinary += budget->turns;
    histogram_record_some(&worker->me->histograms[HISTOGRAM_input_wait],
                          budget->run_ns - budget->reported_ns, budget->turns);
    budget->turns = 0;
}

void
budget_split(struct worker *worker)
{
    struct budget *budget = &worker->budget;
    uint64_t turn_ns = budget->turn_ns, own_ns = budget->own_ns;
    bool sampled = budget->sampled;

    budget_read(worker);
    budget->turn_ns = turn_ns;
    budget->own_ns = own_ns;
    budget->sampled = sampled;
}

/* --- the pass --- */

void
budget_wake(struct worker *worker)
{
    struct budget *budget = &worker->budget;
    uint64_t now_ns;

    if (budget->awake)
        return;
    now_ns = clock_ns(CLOCK_MONOTONIC);
    budget->awake = true;
    run_clock_at(&worker->clock, now_ns);
    if (!budget->slept) {
        uint64_t unread_ns = now_ns - budget->read_ns;
        budget->awake_ns += unread_ns;
        budget->run_ns += unread_ns < BUDGET_LOOK_NS ? unread_ns : BUDGET_LOOK_NS;
    }
    budget->read_ns = now_ns;
}

/* The heat that is costly: a turn below it of each of `clients` takes BUDGET_CROWD_US at most. */
static uint8_t
budget_costly(uint64_t clients)
{
    uint8_t costly = BUDGET_HEAT_COSTLY;

    while (costly > BUDGET_HEAT_LEAST && clients << costly > BUDGET_CROWD_US)
        costly--;
    return costly;
}

/* The kernel reports sockets in the order in which they became ready. So once as many sockets have
 * been reported since a moment as there were connections, all that were ready at that moment have been
 * reported. */
void
budget_report(struct worker *worker, uint32_t count, bool all)
{
    struct budget *budget = &worker->budget;

    budget->reported_ns = budget->all_ns;
    budget->reported += count;
    budget->costly = budget_costly(
        budget->ordinary > budget->ordinary_before ? budget->ordinary : budget->ordinary_before);
    if (!all && budget->reported < budget->connections)
        return;
    budget->all_ns = all ? budget->run_ns : budget->mark_ns;
    budget->mark_ns = budget->run_ns;
    budget->connections = worker->conn_count;
    budget->reported = 0;
    budget->ordinary_before = budget->ordinary;
    budget->ordinary = 0;
}

static bool
budget_is_owed(const struct budget *budget)
{
    return (int32_t)(budget->owed_us - budget->round_us) > 0;
}

static uint64_t
budget_carry(uint64_t spent_ns, uint64_t limit_ns)
{
    if (spent_ns <= limit_ns)
        return 0;
    return spent_ns - limit_ns < BUDGET_CARRY_MAX_NS ? spent_ns - limit_ns : BUDGET_CARRY_MAX_NS;
}

/* All classes have what they may spend, less the excess of before. */
static void
budget_renew(struct budget *budget)
{
    budget->spent_ns[BUDGET_ORDINARY] = 0;
    for (int i = BUDGET_ORDINARY + 1; i < BUDGET_CLASSES; i++)
        budget->spent_ns[i] = budget_carry(budget->spent_ns[i], budget_limits_ns[i]);
}

void
budget_sleep(struct worker *worker, bool sleeps, bool idle)
{
    struct budget *budget = &worker->budget;

    if (budget->steps > 0)
        budget_read(worker);
    if (idle || !budget_has_time(budget, BUDGET_ORDINARY))
        budget_renew(budget);
    if (budget_is_owed(budget) && idle && worker->queued[CONN_QUEUE_INDEBTED] == 0)
        budget->round_us += BUDGET_QUANTUM_US;
    budget->sleeps += sleeps;
    budget->slept = sleeps;
    budget->awake = false;
}

/* --- the turn --- */

void
budget_enter(struct worker *worker, enum budget_class class)
{
    budget_read(worker);
    worker->budget.turn = class;
    budget_begin(&worker->budget, 0);
}

static void
budget_owe(struct conn *conn, uint64_t cost_ns)
{
    struct budget *budget = &conn->worker->budget;
    uint32_t before_us = conn_debt_us(conn);
    uint64_t debt_us = before_us + (cost_ns + 999) / 1000;
    uint64_t most_us = BUDGET_DEBT_MAX_US;

    if (conn->heat < BUDGET_HEAT_LEAST)
        most_us = before_us < BUDGET_DEBT_CHEAP_US ? BUDGET_DEBT_CHEAP_US : before_us;
    if (debt_us > most_us)
        debt_us = most_us;
    conn->paid_us = budget->round_us + (uint32_t)debt_us;
    if ((int32_t)(conn->paid_us - budget->owed_us) > 0)
        budget->owed_us = conn->paid_us;
}

/* Perhaps the worker was disturbed in this expensive turn. */
static bool
budget_spares(struct conn *conn)
{
    const struct budget *budget = &conn->worker->budget;

    if (budget->turn != BUDGET_ORDINARY || budget->own_ns >= BUDGET_QUANTUM_NS ||
        conn->spared > (BUDGET_SPARED_MOST - 1) * BUDGET_SPARED_EACH)
        return false;
    conn->spared += BUDGET_SPARED_EACH;
    return true;
}

/* Updates the heat after a turn. */
static void
budget_heat(struct conn *conn)
{
    const struct budget *budget = &conn->worker->budget;
    uint8_t heat = (uint8_t)(63 - __builtin_clzll(budget->own_ns / 1000 + 1));
    bool cheap = heat < BUDGET_HEAT_COSTLY;

    if (cheap ? budget->sampled : budget_spares(conn))
        return;
    conn->spared -= conn->spared > 0;
    if (cheap && heat > conn->heat)
        heat = conn->heat + 1;
    conn->heat -= conn->heat > 0;
    if (heat > conn->heat)
        conn->heat = heat;
}

void
budget_settle(struct worker *worker, struct conn *conn)
{
    struct budget *budget = &worker->budget;

    budget_read(worker);
    if (conn && conn_is_open(conn)) {
        budget_heat(conn);
        budget_owe(conn, budget->turn_ns);
    }
    budget->turn = BUDGET_ORDINARY;
    budget_begin(budget, 0);
}

/* --- the round --- */

bool
budget_affords(struct worker *worker, const struct conn *conn, uint32_t count)
{
    struct budget *budget = &worker->budget;
    uint32_t debt_us = conn_debt_us(conn);

    if (budget->left == 0) {
        uint32_t rounds = budget->least_us / BUDGET_QUANTUM_US;
        budget->round_us += (rounds > 0 ? rounds : 1) * BUDGET_QUANTUM_US;
        budget->left = count;
        budget->least_us = BUDGET_DEBT_MAX_US;
        debt_us = conn_debt_us(conn);
    }
    budget->left--;
    if (debt_us >= BUDGET_QUANTUM_US) {
        budget->least_us = debt_us < budget->least_us ? debt_us : budget->least_us;
        return false;
    }
    budget->least_us = 0;
    return true;
}
