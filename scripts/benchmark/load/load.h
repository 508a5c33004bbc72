/* What the load generator's files share: options, work, task, session (RFC 7143, initiator side).
 *
 * crc32c.c     digests (section 13.1)
 * histogram.c  latencies
 * login.c      connect, Login (section 6), the commands a disk wants before it is used
 * session.c    PDUs in and out in the full feature phase (sections 11.3 to 11.19)
 * work.c       which command comes next, and what became of it
 * commands.c   commands for arrays: what is written, and whether the answer is right
 * main.c       options, the loop, the report
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HEADER_BYTES = 48,
    DIGEST_BYTES = 4,
    MAX_DEPTH = 1024,
    MAX_SESSIONS = 256,
    MAX_WORKS = 4,
    RECEIVE_BYTES = 256 * 1024,       /* stays in the second-level cache */
    SETUP_SLOT = MAX_DEPTH,           /* the task of a command before the load starts */
    SMALL_SEGMENT_BYTES = 1024,       /* sense data, Reject's header, text: what is kept of it */
};

#define RESERVED_TAG 0xffffffffu
#define NANOSECONDS 1000000000ull

/* --- crc32c.c */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t count); /* start with 0 */

/* --- histogram.c: 128 steps in each power of two, so a percentile is within 1% */
enum { STEP_BITS = 7, HISTOGRAM_SLOTS = (64 - STEP_BITS + 1) << STEP_BITS };
struct histogram {
    uint64_t count, sum_ns, max_ns;
    uint64_t slot[HISTOGRAM_SLOTS];
};
void histogram_add(struct histogram *h, uint64_t ns);
double histogram_percentile_us(const struct histogram *h, double percent);

/* --- work.c */
enum operation { READ, WRITE, SYNC, IDLE, COMMAND, MESSAGE };
/* SYNC: a WRITE, then a SYNCHRONIZE CACHE, and so on. COMMAND: "echo" is written to a slot of a command device, and its
 * answer read. MESSAGE: the same by WRITE BUFFER and READ BUFFER, for the last array of the path. */
enum pattern { RANDOM, SEQUENTIAL };

struct work {
    enum operation operation;
    enum pattern pattern;
    bool once;                                  /* no place twice; the load ends when a session has had all of them */
    uint32_t bytes, depth, sessions, lun, luns; /* bytes a command; LUNs lun .. lun+luns-1 */
    uint64_t span;                              /* use the first so many bytes of a LUN; 0: all */
    const char *path;                           /* of MESSAGE: names of arrays, each followed by a slash */
    uint32_t gap_us;                            /* of COMMAND and MESSAGE: pause before each; for one session alone */
    struct histogram latency;
    uint64_t commands, errors;
};

struct task {
    bool busy, failed;
    uint8_t phase;            /* of SYNC, COMMAND and MESSAGE: what the next SCSI command of this slot is */
    uint32_t generation;      /* upper bits of the Initiator Task Tag */
    uint32_t lun, received;   /* received: bytes of Data-In */
    uint32_t expected;        /* Expected Data Transfer Length */
    bool is_write;
    uint64_t lba, began_ns;
    uint64_t number, sent_ns; /* of COMMAND and MESSAGE: its identification number, and when it was sent */
    uint8_t *buffer;          /* what a WRITE carries; where Data-In goes, or NULL: dropped */
};

/* --- session.c */
struct segment {              /* a PDU that waits for the socket: header, data, padding and digest */
    uint8_t header[HEADER_BYTES + DIGEST_BYTES];
    uint8_t tail[3 + DIGEST_BYTES];
    uint8_t header_bytes, tail_bytes;
    uint32_t data_bytes;
    const uint8_t *data;
};

struct session {
    int socket;
    unsigned index;
    struct work *work;
    bool setting_up, closing, logged_out, wants_out;

    /* negotiated */
    bool header_digest, data_digest, initial_r2t, immediate_data;
    uint32_t target_segment, first_burst, max_burst;

    uint32_t cmd_sn, exp_stat_sn, max_cmd_sn;
    struct task tasks[MAX_DEPTH + 1];
    uint16_t free_slots[MAX_DEPTH];
    unsigned free_count;
    uint8_t setup_status;

    /* places */
    uint64_t places, random_state, cursor; /* places: commands' worth of bytes on a LUN */
    uint64_t places_left;                  /* with work->once */
    uint32_t block_bytes;

    /* in */
    uint8_t *input;
    size_t input_start, input_end;
    uint8_t header[HEADER_BYTES];
    uint32_t data_left, payload_left, payload_crc; /* data; data with padding; both still to come */
    uint32_t digest_left;
    uint8_t digest[DIGEST_BYTES];
    uint8_t small[SMALL_SEGMENT_BYTES];
    uint32_t small_bytes;

    /* out: a ring */
    struct segment *output;
    uint32_t output_mask, output_first, output_end;
    size_t output_sent;       /* bytes of the first segment that are gone */
};

struct options {
    const char *host, *port, *target, *initiator;
    double seconds, warmup;
    uint64_t seed;
    bool header_digest, data_digest, verify, discard, want_initial_r2t, refuse_immediate;
    uint32_t first_burst, max_burst, receive_segment;
    long target_pid;
    struct work works[MAX_WORKS];
    unsigned work_count;
};

extern struct options options;
extern uint64_t now_ns;        /* read once a batch: cheap, and the same for both targets */
extern bool measuring, stopping, exhausted; /* exhausted: a work that says once has nothing left */

uint64_t read_clock(void);
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24); p[1] = (uint8_t)(v >> 16); p[2] = (uint8_t)(v >> 8); p[3] = (uint8_t)v;
}
static inline void put64(uint8_t *p, uint64_t v) { put32(p, (uint32_t)(v >> 32)); put32(p + 4, (uint32_t)v); }
static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }
static inline uint32_t get24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint32_t padded(uint32_t n) { return (n + 3) & ~3u; }

/* login.c */
void session_open(struct session *s, unsigned index, struct work *work);
void session_close(struct session *s);
void session_put_lun(uint8_t *field, uint32_t lun);

/* session.c */
struct segment *session_queue(struct session *s, const uint8_t *header, const uint8_t *data, uint32_t data_bytes);
void session_command(struct session *s, unsigned slot, const uint8_t *cdb);
bool session_flush(struct session *s);   /* true: all is sent */
void session_receive(struct session *s, bool wait);

/* work.c */
void work_prepare(struct session *s);
void work_issue(struct session *s);      /* as many commands as depth and MaxCmdSN allow */
void work_completed(struct session *s, unsigned slot, uint8_t status);

/* commands.c */
void command_issue(struct session *s, unsigned slot);
bool command_ended(struct session *s, unsigned slot, uint8_t status); /* false: it goes on */

#endif
