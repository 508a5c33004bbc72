/* Commands for arrays (docs/formats.md): "echo", by a slot of a command device or by a message, and its answer. */
#include "load.h"

#include <string.h>
#include <unistd.h>

enum { READ_16 = 0x88, WRITE_16 = 0x8a, WRITE_BUFFER = 0x3b, READ_BUFFER = 0x3c, VENDOR_SPECIFIC = 1 };
enum { BLOCK_BYTES = 512, SLOTS = 64, SLOT_BYTES = 256 * 1024, REQUEST_BYTES = 64 * 1024, HEAD_BYTES = 64 };
enum { ECHO = 2, LIMIT_MS = 10000, RUNNING = 1, STATE_AT = 6, RESULT_AT = 8, NUMBER_AT = 16, NUMBER_BYTES = 24 };
enum { SENT = 0, ASKED = 1 }; /* phases */

static const char input[] = "{\"text\":\"load\"}";

static uint8_t *put_number(uint8_t *p, const struct session *s, const struct task *t)
{
    static uint64_t epoch; /* of this run: whoever ran before counted, too */
    if (!epoch) epoch = read_clock();
    memcpy(p, "load", 4);
    put32(p + 4, s->index + 1);
    put64(p + 8, epoch);
    put64(p + 16, t->number);
    return p + NUMBER_BYTES;
}

static uint32_t put_request(uint8_t *p, const struct session *s, const struct task *t)
{
    memset(p, 0, BLOCK_BYTES);
    memcpy(p, "ACMD\0\1\0", 7);
    p[7] = ECHO;
    p[8] = 1; /* edited data is asked for */
    put32(p + 12, sizeof input - 1);
    put_number(p + NUMBER_AT, s, t);
    memcpy(p + HEAD_BYTES, input, sizeof input - 1);
    return BLOCK_BYTES;
}

static uint32_t put_message(uint8_t *message, const struct session *s, const struct task *t)
{
    uint8_t *p = message, *parts, *addresses;
    memcpy(p, "ACIF\0\1\0\0", 8);
    put32(p + 8, LIMIT_MS);
    p = put_number(p + 12, s, t);
    *p++ = 0; /* origin */
    *p++ = 0; /* trail */
    parts = p++;
    *parts = 1;
    if (s->work->path && *s->work->path) {
        *parts = 2;
        *p++ = 1; /* transfer destination parameter */
        addresses = p++;
        *addresses = 0;
        for (const char *name = s->work->path; *name; ++*addresses) {
            size_t length = strcspn(name, "/");
            *p++ = (uint8_t)length;
            memcpy(p, name, length);
            p += length;
            name += length + (name[length] == '/');
        }
    }
    memcpy(p, "\2\0", 2); /* control parameter */
    p[2] = ECHO;
    p[3] = 1;
    p = put_number(p + 4, s, t);
    put32(p, sizeof input - 1);
    memcpy(p + 4, input, sizeof input - 1);
    return (uint32_t)(p + 4 + sizeof input - 1 - message);
}

static void put_cdb(uint8_t *cdb, const struct session *s, const struct task *t, unsigned slot)
{
    if (s->work->operation == MESSAGE) {
        cdb[0] = t->is_write ? WRITE_BUFFER : READ_BUFFER;
        cdb[1] = VENDOR_SPECIFIC;
        cdb[2] = (uint8_t)slot; /* the lane */
        cdb[6] = (uint8_t)(t->expected >> 16);
        cdb[7] = (uint8_t)(t->expected >> 8);
        cdb[8] = (uint8_t)t->expected;
    } else {
        uint64_t begin = (1 + (slot + s->index * s->work->depth) % SLOTS) * (uint64_t)SLOT_BYTES;
        cdb[0] = t->is_write ? WRITE_16 : READ_16;
        put64(cdb + 2, (t->is_write ? begin : begin + REQUEST_BYTES) / BLOCK_BYTES);
        put32(cdb + 10, t->expected / BLOCK_BYTES);
    }
}

void command_issue(struct session *s, unsigned slot)
{
    struct task *t = &s->tasks[slot];
    uint8_t cdb[16] = {0};
    bool by_message = s->work->operation == MESSAGE;
    t->lun = s->work->lun;
    t->is_write = t->phase == SENT;
    if (t->is_write) {
        static uint64_t last;
        if (s->work->gap_us) usleep(s->work->gap_us);
        now_ns = read_clock();
        t->number = ++last;
        t->expected = by_message ? put_message(t->buffer, s, t) : put_request(t->buffer, s, t);
        t->sent_ns = now_ns;
        t->phase = ASKED;
    } else {
        t->expected = by_message ? HEAD_BYTES : BLOCK_BYTES;
    }
    put_cdb(cdb, s, t, slot);
    session_command(s, slot, cdb);
}

bool command_ended(struct session *s, unsigned slot, uint8_t status)
{
    struct task *t = &s->tasks[slot];
    uint8_t number[NUMBER_BYTES];
    if (status || t->failed) {
        t->phase = SENT;
        return true;
    }
    if (t->is_write || t->buffer[STATE_AT] == RUNNING) return false;
    put_number(number, s, t);
    t->phase = SENT;
    t->began_ns = t->sent_ns;
    t->failed = memcmp(t->buffer, "AANS", 4) || memcmp(t->buffer + NUMBER_AT, number, NUMBER_BYTES)
        || t->buffer[RESULT_AT] || t->buffer[RESULT_AT + 1];
    return true;
}
