/* Which command comes next, and what became of the last one. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_16 = 0x88, WRITE_16 = 0x8a, SYNCHRONIZE_CACHE_16 = 0x91, REPORTED_ERRORS = 5 };

static uint64_t mixed(uint64_t x) /* scatters: two inputs that differ in a bit have outputs that differ in half */
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    return x ^ x >> 32;
}

/* With --verify every 8 bytes of a LUN are a function of the seed and of where they are. */
static void fill_place(uint8_t *data, uint32_t bytes, uint32_t lun, uint64_t offset)
{
    for (uint32_t i = 0; i < bytes; i += 8) {
        uint64_t word = mixed(options.seed ^ (uint64_t)lun << 48 ^ (offset + i));
        memcpy(data + i, &word, 8);
    }
}

static bool place_is_filled(const uint8_t *data, uint32_t bytes, uint32_t lun, uint64_t offset)
{
    for (uint32_t i = 0; i < bytes; i += 8) {
        uint64_t word = mixed(options.seed ^ (uint64_t)lun << 48 ^ (offset + i));
        if (memcmp(data + i, &word, 8)) return false;
    }
    return true;
}

void work_prepare(struct session *s)
{
    const struct work *w = s->work;
    static uint8_t *noise; /* one buffer for every write that nobody will verify */
    static uint32_t noise_bytes;
    if (noise_bytes < w->bytes) {
        noise = malloc(w->bytes);
        if (!noise) die("out of memory");
        fill_place(noise, noise_bytes = w->bytes, 0, 0);
    }
    s->random_state = mixed(options.seed + s->index + 1) | 1;
    s->cursor = s->places / (w->sessions ? w->sessions : 1) * s->index % s->places;
    s->places_left = s->places;
    s->free_count = w->depth;
    for (unsigned i = 0; i < w->depth; i++) {
        s->free_slots[i] = (uint16_t)i;
        bool own = options.verify || w->operation >= COMMAND;
        s->tasks[i].buffer = own ? malloc(w->bytes) : w->operation == READ ? NULL : noise;
    }
}

static uint64_t next_random(struct session *s) /* xorshift64 */
{
    s->random_state ^= s->random_state << 13;
    s->random_state ^= s->random_state >> 7;
    s->random_state ^= s->random_state << 17;
    return s->random_state;
}

/* The numbers below `places` in scattered order, each once: a full-period generator modulo the next power of two. */
static uint64_t next_scattered(struct session *s)
{
    uint64_t modulus = 4;
    while (modulus < s->places) modulus *= 2;
    do s->random_state = (s->random_state * 0x5851f42d4c957f2dull + 0x14057b7ef767814full) & (modulus - 1);
    while (s->random_state >= s->places);
    return s->random_state;
}

static uint64_t next_place(struct session *s)
{
    if (s->work->pattern == RANDOM) return s->work->once ? next_scattered(s) : next_random(s) % s->places;
    uint64_t place = s->cursor;
    s->cursor = place + 1 == s->places ? 0 : place + 1;
    return place;
}

static void issue_one(struct session *s, unsigned slot)
{
    const struct work *w = s->work;
    struct task *t = &s->tasks[slot];
    uint8_t cdb[16] = {0};
    t->lun = w->lun + (w->luns > 1 ? (uint32_t)(next_random(s) >> 32) % w->luns : 0);
    t->is_write = false;
    t->expected = 0;
    if (w->operation == SYNC && t->phase) {
        t->phase = 0;
        cdb[0] = SYNCHRONIZE_CACHE_16; /* all of it */
    } else {
        uint64_t place = next_place(s);
        t->phase = 1;
        t->lba = place * (w->bytes / s->block_bytes);
        t->is_write = w->operation != READ;
        t->expected = w->bytes;
        if (options.verify && t->is_write) fill_place(t->buffer, w->bytes, t->lun, place * w->bytes);
        cdb[0] = t->is_write ? WRITE_16 : READ_16;
        put64(cdb + 2, t->lba);
        put32(cdb + 10, w->bytes / s->block_bytes);
    }
    session_command(s, slot, cdb);
}

void work_issue(struct session *s)
{
    if (s->work->operation == IDLE || stopping) return;
    while (s->free_count && (int32_t)(s->cmd_sn - s->max_cmd_sn) <= 0) {
        if (s->work->once && !s->places_left--) {
            stopping = exhausted = true;
            return;
        }
        unsigned slot = s->free_slots[--s->free_count];
        if (s->work->operation >= COMMAND) command_issue(s, slot);
        else issue_one(s, slot);
    }
}

void work_completed(struct session *s, unsigned slot, uint8_t status)
{
    struct task *t = &s->tasks[slot];
    struct work *w = s->work;
    if (slot == SETUP_SLOT) {
        s->setup_status = status;
        return;
    }
    if (w->operation >= COMMAND && !command_ended(s, slot, status)) {
        command_issue(s, slot); /* even at the end: no slot is left in use */
        return;
    }
    s->free_slots[s->free_count++] = (uint16_t)slot;
    bool other_data = !status && !t->failed && options.verify && w->operation == READ
        && !place_is_filled(t->buffer, w->bytes, t->lun, t->lba * s->block_bytes);
    if ((status || t->failed || other_data) && w->errors++ < REPORTED_ERRORS) {
        fprintf(stderr, "LUN %u LBA %llu: status %02x", t->lun, (unsigned long long)t->lba, status);
        if (s->small_bytes >= 16) fprintf(stderr, ", sense key %x, code %02x%02x", s->small[4] & 15, s->small[14], s->small[15]);
        fprintf(stderr, ", %u of %u bytes%s\n", t->received, t->expected, other_data ? ", not what was written there" : "");
    }
    if (!measuring) return;
    w->commands++;
    histogram_add(&w->latency, now_ns - t->began_ns);
}
