/* The load generator of scripts/bench: one thread, an iSCSI initiator as cheap as it can be made.
 *
 *   load --port N --target IQN [--seconds S] [--warmup S] --work op=read,bytes=4096,depth=32 [--work ...]
 *
 * Each --work is a group of sessions with a load of its own; each is reported by itself. JSON on stdout.
 */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { DRAIN_SECONDS = 10, EVENTS = 64 };

struct options options = {
    .host = "127.0.0.1", .initiator = "iqn.2026-11.io.arrayd:load", .seconds = 1, .warmup = 0.2, .seed = 1,
    /* what open-iscsi asks for by default */
    .first_burst = 262144, .max_burst = 16776192, .receive_segment = 262144,
};
uint64_t now_ns;
bool measuring, stopping, exhausted;

static struct session *sessions[MAX_SESSIONS];
static unsigned session_count;

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t read_timer(clockid_t timer)
{
    struct timespec t;
    clock_gettime(timer, &t);
    return (uint64_t)t.tv_sec * NANOSECONDS + (uint64_t)t.tv_nsec;
}

uint64_t read_clock(void) { return read_timer(CLOCK_MONOTONIC); }

/* ---------------------------------------------------------------- options */

static uint64_t number(const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    uint64_t value = text ? strtoull(text, &end, 10) : 0;
    if (!text || !*text || *end || errno || value < low || value > high)
        die("%s: expected a number from %llu to %llu", text ? text : "(nothing)", (unsigned long long)low, (unsigned long long)high);
    return value;
}

static unsigned one_of(const char *text, char *const names[])
{
    for (unsigned i = 0; names[i]; i++)
        if (text && !strcmp(text, names[i])) return i;
    die("%s: not known", text ? text : "(nothing)");
}

static char *const operations[] = {"read", "write", "sync", "idle", "command", "message", NULL};

static void add_work(char *text)
{
    enum { OP, PATTERN, BYTES, DEPTH, SESSIONS, LUN, LUNS, SPAN, ONCE, PATH, GAP };
    char *const keys[] = {"op", "pattern", "bytes", "depth", "sessions", "lun", "luns", "span", "once", "path", "gap", NULL};
    char *const patterns[] = {"random", "sequential", NULL};
    if (options.work_count == MAX_WORKS) die("more than %d --work", MAX_WORKS);
    struct work *w = &options.works[options.work_count++];
    w->bytes = 4096;
    w->depth = w->sessions = w->luns = 1;
    char *value;
    while (*text) switch (getsubopt(&text, keys, &value)) {
        case OP: w->operation = (enum operation)one_of(value, operations); break;
        case PATTERN: w->pattern = (enum pattern)one_of(value, patterns); break;
        case BYTES: w->bytes = (uint32_t)number(value, 512, 16 << 20); break;
        case DEPTH: w->depth = (uint32_t)number(value, 1, MAX_DEPTH); break;
        case SESSIONS: w->sessions = (uint32_t)number(value, 1, MAX_SESSIONS); break;
        case LUN: w->lun = (uint32_t)number(value, 0, 16383); break;
        case LUNS: w->luns = (uint32_t)number(value, 1, 16384); break;
        case ONCE: w->once = true; break;
        case PATH: w->path = value; break;
        case GAP: w->gap_us = (uint32_t)number(value, 0, 1000000); break;
        case SPAN: w->span = number(value, 0, UINT64_MAX); break;
        default: die("--work %s: not known", value);
        }
}

static void read_options(int count, char **words)
{
    enum { HOST = 256, PORT, TARGET, INITIATOR, SECONDS, WARMUP, SEED, HEADER_DIGEST, DATA_DIGEST, VERIFY, DISCARD,
           INITIAL_R2T, NO_IMMEDIATE, FIRST_BURST, MAX_BURST, RECEIVE_SEGMENT, TARGET_PID, WORK };
    const struct option known[] = {
        {"host", required_argument, 0, HOST}, {"port", required_argument, 0, PORT},
        {"target", required_argument, 0, TARGET}, {"initiator", required_argument, 0, INITIATOR},
        {"seconds", required_argument, 0, SECONDS}, {"warmup", required_argument, 0, WARMUP},
        {"seed", required_argument, 0, SEED}, {"header-digest", no_argument, 0, HEADER_DIGEST},
        {"data-digest", no_argument, 0, DATA_DIGEST}, {"verify", no_argument, 0, VERIFY},
        {"discard", no_argument, 0, DISCARD}, {"initial-r2t", no_argument, 0, INITIAL_R2T},
        {"no-immediate-data", no_argument, 0, NO_IMMEDIATE}, {"first-burst", required_argument, 0, FIRST_BURST},
        {"max-burst", required_argument, 0, MAX_BURST}, {"receive-segment", required_argument, 0, RECEIVE_SEGMENT},
        {"target-pid", required_argument, 0, TARGET_PID}, {"work", required_argument, 0, WORK}, {0, 0, 0, 0}};
    for (int c; (c = getopt_long(count, words, "", known, NULL)) != -1;) switch (c) {
        case HOST: options.host = optarg; break;
        case PORT: options.port = optarg; break;
        case TARGET: options.target = optarg; break;
        case INITIATOR: options.initiator = optarg; break;
        case SECONDS: options.seconds = atof(optarg); break;
        case WARMUP: options.warmup = atof(optarg); break;
        case SEED: options.seed = number(optarg, 0, UINT64_MAX); break;
        case HEADER_DIGEST: options.header_digest = true; break;
        case DATA_DIGEST: options.data_digest = true; break;
        case VERIFY: options.verify = true; break;
        case DISCARD: options.discard = true; break;
        case INITIAL_R2T: options.want_initial_r2t = true; break;
        case NO_IMMEDIATE: options.refuse_immediate = true; break;
        case FIRST_BURST: options.first_burst = (uint32_t)number(optarg, 512, 0xffffff); break;
        case MAX_BURST: options.max_burst = (uint32_t)number(optarg, 512, 0xffffff); break;
        case RECEIVE_SEGMENT: options.receive_segment = (uint32_t)number(optarg, 512, 0xffffff); break;
        case TARGET_PID: options.target_pid = (long)number(optarg, 1, 1 << 22); break;
        case WORK: add_work(optarg); break;
        default: exit(2);
        }
    if (!options.port || !options.target || !options.work_count || optind != count) die("--port, --target and --work are needed");
    if (options.discard && (options.verify || options.data_digest)) die("--discard drops what --verify or --data-digest would look at");
}

/* ---------------------------------------------------------------- processor time */

/* User and system time of a process with all its threads, in seconds (proc(5): fields 14 and 15, in clock ticks). */
static double process_cpu_seconds(long pid)
{
    char path[64], line[1024];
    unsigned long user, kernel;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f)) die("%s: cannot read it", path);
    fclose(f);
    char *after_name = strrchr(line, ')');
    if (!after_name || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
        die("%s: not understood", path);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* Busy seconds of all processors since the machine started (proc(5): the line "cpu" of /proc/stat). */
static double machine_busy_seconds(void)
{
    unsigned long long user, nice, kernel, idle, waiting, irq, soft, stolen;
    FILE *f = fopen("/proc/stat", "r");
    if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel, &idle, &waiting, &irq, &soft, &stolen) != 8)
        die("/proc/stat: not understood");
    fclose(f);
    return (double)(user + nice + kernel + irq + soft + stolen) / (double)sysconf(_SC_CLK_TCK);
}

struct sample { uint64_t clock_ns, own_ns; double target_seconds, machine_seconds; };

static struct sample take_sample(void)
{
    return (struct sample){
        .clock_ns = read_clock(), .own_ns = read_timer(CLOCK_PROCESS_CPUTIME_ID),
        .target_seconds = options.target_pid ? process_cpu_seconds(options.target_pid) : 0,
        .machine_seconds = machine_busy_seconds()};
}

/* ---------------------------------------------------------------- the loop */

static void want_output(int poller, struct session *s, bool wanted)
{
    if (s->wants_out == wanted) return;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = s};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, s->socket, &e)) die("epoll_ctl: %s", strerror(errno));
    s->wants_out = wanted;
}

static void turn(int poller)
{
    if (session_count == 1 && !sessions[0]->wants_out) { /* one system call less than epoll */
        session_receive(sessions[0], true);
        work_issue(sessions[0]);
        want_output(poller, sessions[0], !session_flush(sessions[0]));
        return;
    }
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, 100);
    for (int i = 0; i < count; i++) {
        struct session *s = events[i].data.ptr;
        if (events[i].events & ~(uint32_t)EPOLLOUT) session_receive(s, false);
        work_issue(s);
        want_output(poller, s, !session_flush(s));
    }
    now_ns = read_clock();
}

static void run_until(int poller, uint64_t end_ns)
{
    while (now_ns < end_ns && !exhausted) turn(poller);
}

static bool anything_open(void)
{
    for (unsigned i = 0; i < session_count; i++)
        if (sessions[i]->free_count != sessions[i]->work->depth) return true;
    return false;
}

/* ---------------------------------------------------------------- the report */

static void print_work(const struct work *w, double seconds)
{
    const struct histogram *h = &w->latency;
    double n = (double)w->commands;
    printf("{\"op\": \"%s\", \"commands\": %llu, \"iops\": %.1f, \"mb_per_s\": %.2f, \"errors\": %llu, ",
           operations[w->operation], (unsigned long long)w->commands, n / seconds,
           n * (double)w->bytes / (w->operation == SYNC ? 2 : 1) / seconds / 1e6, (unsigned long long)w->errors);
    printf("\"latency_us\": {\"mean\": %.2f, \"p50\": %.2f, \"p99\": %.2f, \"p99.9\": %.2f, \"max\": %.2f}}",
           h->count ? (double)h->sum_ns / (double)h->count / 1000 : 0.0, histogram_percentile_us(h, 50),
           histogram_percentile_us(h, 99), histogram_percentile_us(h, 99.9), (double)h->max_ns / 1000);
}

static void print_report(const struct sample *a, const struct sample *b)
{
    const struct session *s = sessions[0];
    double seconds = (double)(b->clock_ns - a->clock_ns) / 1e9;
    printf("{\"seconds\": %.4f, \"exhausted\": %s, \"client_cpu_seconds\": %.4f, ", seconds, exhausted ? "true" : "false", (double)(b->own_ns - a->own_ns) / 1e9);
    if (options.target_pid) printf("\"target_cpu_seconds\": %.2f, ", b->target_seconds - a->target_seconds);
    printf("\"machine_busy_seconds\": %.2f, ", b->machine_seconds - a->machine_seconds);
    printf("\"negotiated\": {\"header_digest\": %s, \"data_digest\": %s, \"initial_r2t\": %s, \"immediate_data\": %s, "
           "\"target_segment\": %u, \"first_burst\": %u, \"max_burst\": %u}, \"works\": [",
           s->header_digest ? "true" : "false", s->data_digest ? "true" : "false", s->initial_r2t ? "true" : "false",
           s->immediate_data ? "true" : "false", s->target_segment, s->first_burst, s->max_burst);
    for (unsigned i = 0; i < options.work_count; i++) {
        if (i) printf(", ");
        print_work(&options.works[i], seconds);
    }
    printf("]}\n");
}

int main(int count, char **words)
{
    read_options(count, words);
    int poller = epoll_create1(0);
    if (poller < 0) die("epoll_create1: %s", strerror(errno));
    now_ns = read_clock();
    for (unsigned w = 0; w < options.work_count; w++)
        for (unsigned i = 0; i < options.works[w].sessions; i++) {
            if (session_count == MAX_SESSIONS) die("more than %d sessions", MAX_SESSIONS);
            struct session *s = sessions[session_count] = calloc(1, sizeof *s);
            if (!s) die("out of memory");
            session_open(s, session_count++, &options.works[w]);
            struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
            if (epoll_ctl(poller, EPOLL_CTL_ADD, s->socket, &e)) die("epoll_ctl: %s", strerror(errno));
        }
    now_ns = read_clock();
    for (unsigned i = 0; i < session_count; i++) {
        work_issue(sessions[i]);
        want_output(poller, sessions[i], !session_flush(sessions[i]));
    }
    run_until(poller, now_ns + (uint64_t)(options.warmup * 1e9));
    struct sample before = take_sample();
    measuring = true;
    run_until(poller, before.clock_ns + (uint64_t)(options.seconds * 1e9));
    measuring = false;
    struct sample after = take_sample();

    stopping = true;
    uint64_t limit = now_ns + DRAIN_SECONDS * NANOSECONDS;
    while (anything_open()) {
        if (now_ns > limit) die("commands without an answer for %d seconds", DRAIN_SECONDS);
        turn(poller);
    }
    for (unsigned i = 0; i < session_count; i++) session_close(sessions[i]);
    print_report(&before, &after);
    uint64_t errors = 0;
    for (unsigned w = 0; w < options.work_count; w++) errors += options.works[w].errors;
    return errors ? 1 : 0;
}
