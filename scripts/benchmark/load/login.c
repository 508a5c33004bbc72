/* Connect, Login straight into the operational stage (RFC 7143 sections 6 and 13), and what a disk wants before it is used. */
#include "load.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { LOGIN = 0x43, LOGIN_RESPONSE = 0x23, LOGOUT = 0x46, TEXT_BYTES = 8192, SETUP_ATTEMPTS = 8, SETUP_SECONDS = 10 };
enum { OPERATIONAL_TO_FULL_FEATURE = 1 << 2 | 3, TRANSIT = 0x80 };

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *a;
    int problem = getaddrinfo(host, port, &hints, &found), fd = -1, yes = 1;
    if (problem) die("%s: %s", host, gai_strerror(problem));
    for (a = found; a; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    if (fd < 0) die("connect to %s port %s: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    const struct timeval limit = {.tv_usec = 100000}; /* a blocking recv looks at the clock ten times a second */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void send_all(int fd, const uint8_t *bytes, size_t count)
{
    while (count) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        if (sent < 0) die("login: send: %s", strerror(errno));
        bytes += sent;
        count -= (size_t)sent;
    }
}

static void receive_all(int fd, uint8_t *bytes, size_t count)
{
    uint64_t limit = read_clock() + SETUP_SECONDS * NANOSECONDS;
    while (count) {
        ssize_t got = recv(fd, bytes, count, 0);
        if (got == 0) die("login: the target closed the connection");
        if (got < 0 && errno != EAGAIN) die("login: recv: %s", strerror(errno));
        if (got < 0 && read_clock() > limit) die("login: no answer for %d seconds", SETUP_SECONDS);
        if (got < 0) continue;
        bytes += got;
        count -= (size_t)got;
    }
}

struct text { char bytes[TEXT_BYTES]; size_t count; };

__attribute__((format(printf, 2, 3))) static void add_key(struct text *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(t->bytes + t->count, TEXT_BYTES - t->count, format, arguments);
    va_end(arguments);
    if (n < 0 || t->count + (size_t)n + 1 > TEXT_BYTES) die("login: too many keys");
    t->count += (size_t)n + 1; /* the zero byte ends the pair */
}

static void take_answer(struct session *s, const char *key, const char *value)
{
    uint32_t number = (uint32_t)strtoul(value, NULL, 0);
    if (!strcmp(key, "HeaderDigest")) s->header_digest = !strcmp(value, "CRC32C");
    else if (!strcmp(key, "DataDigest")) s->data_digest = !strcmp(value, "CRC32C");
    else if (!strcmp(key, "InitialR2T")) s->initial_r2t = !strcmp(value, "Yes");
    else if (!strcmp(key, "ImmediateData")) s->immediate_data = !strcmp(value, "Yes");
    else if (!strcmp(key, "MaxRecvDataSegmentLength")) s->target_segment = number;
    else if (!strcmp(key, "FirstBurstLength")) s->first_burst = number;
    else if (!strcmp(key, "MaxBurstLength")) s->max_burst = number;
}

static void take_answers(struct session *s, char *text, size_t count)
{
    text[count] = 0;
    for (char *pair = text; pair < text + count; pair += strlen(pair) + 1) {
        char *equals = strchr(pair, '=');
        if (!equals) continue;
        *equals = 0;
        take_answer(s, pair, equals + 1);
        *equals = '=';
    }
}

static void log_in(struct session *s)
{
    struct text keys = {.count = 0};
    add_key(&keys, "InitiatorName=%s", options.initiator);
    add_key(&keys, "TargetName=%s", options.target);
    add_key(&keys, "SessionType=Normal");
    add_key(&keys, "HeaderDigest=%s", options.header_digest ? "CRC32C" : "None");
    add_key(&keys, "DataDigest=%s", options.data_digest ? "CRC32C" : "None");
    add_key(&keys, "InitialR2T=%s", options.want_initial_r2t ? "Yes" : "No");
    add_key(&keys, "ImmediateData=%s", options.refuse_immediate ? "No" : "Yes");
    add_key(&keys, "MaxRecvDataSegmentLength=%u", options.receive_segment);
    add_key(&keys, "MaxBurstLength=%u", options.max_burst);
    add_key(&keys, "FirstBurstLength=%u", options.first_burst);
    add_key(&keys, "MaxOutstandingR2T=1");
    add_key(&keys, "MaxConnections=1");
    add_key(&keys, "ErrorRecoveryLevel=0");
    add_key(&keys, "DefaultTime2Wait=0");
    add_key(&keys, "DefaultTime2Retain=0");

    s->target_segment = 8192; /* the RFC's defaults, until the target says otherwise */
    s->first_burst = 65536;
    s->max_burst = 262144;
    s->initial_r2t = s->immediate_data = true;

    uint8_t header[HEADER_BYTES], text[(1 << 24) / 256 + 8];
    uint16_t target_session = 0;
    for (int round = 0; round < SETUP_ATTEMPTS; round++) {
        memset(header, 0, sizeof header);
        header[0] = LOGIN;
        header[1] = TRANSIT | OPERATIONAL_TO_FULL_FEATURE;
        put32(header + 4, (uint32_t)keys.count);
        header[8] = 0x80; /* ISID of the random kind: one for each session of each process */
        put32(header + 9, (uint32_t)getpid() << 8);
        header[12] = (uint8_t)(s->index >> 8);
        header[13] = (uint8_t)s->index;
        header[14] = (uint8_t)(target_session >> 8);
        header[15] = (uint8_t)target_session;
        put32(header + 24, 1); /* CmdSN */
        put32(header + 28, s->exp_stat_sn);
        send_all(s->socket, header, HEADER_BYTES);
        memset(keys.bytes + keys.count, 0, padded((uint32_t)keys.count) - keys.count);
        send_all(s->socket, (uint8_t *)keys.bytes, padded((uint32_t)keys.count));

        receive_all(s->socket, header, HEADER_BYTES);
        uint32_t count = get24(header + 5);
        if ((header[0] & 0x3f) != LOGIN_RESPONSE || count + 4 > sizeof text) die("login: unexpected opcode %02x", header[0]);
        receive_all(s->socket, text, padded(count));
        if (header[36]) die("login: status %02x%02x", header[36], header[37]);
        take_answers(s, (char *)text, count);
        s->exp_stat_sn = get32(header + 24) + 1;
        s->max_cmd_sn = get32(header + 32);
        target_session = (uint16_t)(header[14] << 8 | header[15]);
        if ((header[1] & (TRANSIT | 3)) == (TRANSIT | 3)) return;
        keys.count = 0;
    }
    die("login: no end in %d rounds", SETUP_ATTEMPTS);
}

void session_put_lun(uint8_t *field, uint32_t lun)
{
    field[0] = (uint8_t)(lun < 256 ? 0 : 0x40 | lun >> 8); /* SAM-5: peripheral device addressing, or flat space */
    field[1] = (uint8_t)lun;
}

/* One command and its end, before the load starts; the status comes back. */
static uint8_t run_command(struct session *s, uint32_t lun, const uint8_t *cdb, uint8_t *buffer, uint32_t expected)
{
    struct task *t = &s->tasks[SETUP_SLOT];
    uint64_t limit = read_clock() + SETUP_SECONDS * NANOSECONDS;
    t->lun = lun;
    t->expected = expected;
    t->buffer = buffer;
    t->is_write = false;
    session_command(s, SETUP_SLOT, cdb);
    session_flush(s);
    while (t->busy) {
        session_receive(s, true);
        session_flush(s);
        if (read_clock() > limit) die("opcode %02x on LUN %u: no answer", cdb[0], lun);
    }
    return s->setup_status;
}

/* A new I_T nexus meets a unit attention or two on each LUN; then the capacity. */
static void prepare_lun(struct session *s, uint32_t lun)
{
    const uint8_t test_unit_ready[16] = {0x00};
    const uint8_t read_capacity_16[16] = {0x9e, 0x10, [13] = 32};
    uint8_t capacity[32] = {0};
    for (int attempt = 0; run_command(s, lun, test_unit_ready, NULL, 0); attempt++)
        if (attempt == SETUP_ATTEMPTS) die("LUN %u is not ready", lun);
    if (run_command(s, lun, read_capacity_16, capacity, sizeof capacity)) die("LUN %u: READ CAPACITY failed", lun);
    uint64_t blocks = get64(capacity) + 1;
    uint32_t block_bytes = get32(capacity + 8);
    if (!block_bytes || s->work->bytes % block_bytes) die("LUN %u has blocks of %u bytes", lun, block_bytes);
    uint64_t bytes = blocks * block_bytes;
    if (s->work->span && s->work->span < bytes) bytes = s->work->span;
    uint64_t places = bytes / s->work->bytes;
    if (!places) die("LUN %u is too small", lun);
    if (!s->places || places < s->places) s->places = places;
    s->block_bytes = block_bytes;
}

static uint32_t ring_size(const struct session *s)
{
    uint64_t pdus = 2 + s->work->bytes / (s->target_segment ? s->target_segment : 1);
    pdus += 2 + s->work->bytes / s->max_burst; /* each burst may end in a short PDU */
    uint64_t wanted = s->work->depth * pdus + 64, size = 64;
    while (size < wanted) size *= 2;
    return (uint32_t)size;
}

void session_open(struct session *s, unsigned index, struct work *work)
{
    s->index = index;
    s->work = work;
    s->socket = connect_to(options.host, options.port);
    s->setting_up = true;
    log_in(s);
    if (!s->target_segment || !s->max_burst) die("login: a length of zero was negotiated");
    s->cmd_sn = 1;
    s->input = malloc(RECEIVE_BYTES);
    uint32_t ring = ring_size(s);
    s->output = malloc(ring * sizeof *s->output);
    if (!s->input || !s->output) die("out of memory");
    s->output_mask = ring - 1;
    for (uint32_t lun = work->lun; lun < work->lun + work->luns; lun++) prepare_lun(s, lun);
    s->setting_up = false;
    work_prepare(s);
}

void session_close(struct session *s)
{
    uint8_t h[HEADER_BYTES] = {LOGOUT, 0x80}; /* close the session */
    uint64_t limit = read_clock() + SETUP_SECONDS * NANOSECONDS;
    put32(h + 16, RESERVED_TAG - 1);
    put32(h + 24, s->cmd_sn);
    put32(h + 28, s->exp_stat_sn);
    session_queue(s, h, NULL, 0);
    while (!s->logged_out && read_clock() < limit) {
        session_flush(s);
        session_receive(s, true);
    }
    if (!s->logged_out) die("logout: no answer");
    close(s->socket);
}
