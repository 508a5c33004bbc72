/* PDUs of the full feature phase, initiator side: commands, Data-In, Data-Out, R2T, NOP (RFC 7143 section 11). */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum opcode {
    NOP_OUT = 0x00, SCSI_COMMAND = 0x01, DATA_OUT = 0x05,
    NOP_IN = 0x20, SCSI_RESPONSE = 0x21, DATA_IN = 0x25, LOGOUT_RESPONSE = 0x26, R2T = 0x31, ASYNC = 0x32, REJECT = 0x3f,
};
enum { IMMEDIATE = 0x40, FINAL = 0x80, HAS_STATUS = 0x01, OVERFLOW_OR_UNDERFLOW = 0x06 };
enum { SEGMENTS_A_SEND = 128, DISCARD_FROM_BYTES = 16384 };

/* ---------------------------------------------------------------- out */

struct segment *session_queue(struct session *s, const uint8_t *header, const uint8_t *data, uint32_t data_bytes)
{
    if (s->output_end - s->output_first > s->output_mask) die("the output ring is full");
    struct segment *g = &s->output[s->output_end++ & s->output_mask];
    memcpy(g->header, header, HEADER_BYTES);
    g->header[5] = (uint8_t)(data_bytes >> 16);
    g->header[6] = (uint8_t)(data_bytes >> 8);
    g->header[7] = (uint8_t)data_bytes;
    g->header_bytes = HEADER_BYTES;
    if (s->header_digest) {
        uint32_t crc = crc32c(0, g->header, HEADER_BYTES); /* the digest goes out least significant byte first */
        memcpy(g->header + HEADER_BYTES, &crc, DIGEST_BYTES);
        g->header_bytes += DIGEST_BYTES;
    }
    g->data = data;
    g->data_bytes = data_bytes;
    uint32_t padding = padded(data_bytes) - data_bytes;
    memset(g->tail, 0, padding);
    g->tail_bytes = (uint8_t)padding;
    if (s->data_digest && data_bytes) {
        uint32_t crc = crc32c(crc32c(0, data, data_bytes), g->tail, padding);
        memcpy(g->tail + padding, &crc, DIGEST_BYTES);
        g->tail_bytes += DIGEST_BYTES;
    }
    return g;
}

/* Data-Outs for `count` bytes from `offset` on: one burst, its last PDU with the F bit. */
static void queue_data_out(struct session *s, uint32_t tag, uint32_t transfer_tag, uint32_t lun, const uint8_t *data,
                           uint32_t offset, uint32_t count)
{
    for (uint32_t data_sn = 0; count; data_sn++) {
        uint32_t part = count < s->target_segment ? count : s->target_segment;
        uint8_t h[HEADER_BYTES] = {DATA_OUT, part == count ? FINAL : 0};
        session_put_lun(h + 8, lun);
        put32(h + 16, tag);
        put32(h + 20, transfer_tag);
        put32(h + 28, s->exp_stat_sn);
        put32(h + 36, data_sn);
        put32(h + 40, offset);
        session_queue(s, h, data + offset, part);
        offset += part;
        count -= part;
    }
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The slot's task is filled in by the caller: lun, expected, is_write, buffer. */
void session_command(struct session *s, unsigned slot, const uint8_t *cdb)
{
    struct task *t = &s->tasks[slot];
    t->busy = true;
    t->failed = false;
    t->received = 0;
    t->began_ns = now_ns;
    t->generation = (t->generation + 1) & 0xffff;
    uint32_t tag = t->generation << 12 | slot;

    uint32_t immediate = 0, unsolicited = 0;
    if (t->is_write) {
        uint32_t burst = smaller(t->expected, s->first_burst);
        if (s->immediate_data) immediate = smaller(burst, s->target_segment);
        if (!s->initial_r2t) unsolicited = burst - immediate;
    }
    uint8_t h[HEADER_BYTES] = {SCSI_COMMAND};
    h[1] = 1; /* SIMPLE */
    if (!unsolicited) h[1] |= FINAL;
    if (t->expected) h[1] |= t->is_write ? 0x20 : 0x40;
    session_put_lun(h + 8, t->lun);
    put32(h + 16, tag);
    put32(h + 20, t->expected);
    put32(h + 24, s->cmd_sn++);
    put32(h + 28, s->exp_stat_sn);
    memcpy(h + 32, cdb, 16);
    session_queue(s, h, t->buffer, immediate);
    if (unsolicited) queue_data_out(s, tag, RESERVED_TAG, t->lun, t->buffer, immediate, unsolicited);
}

bool session_flush(struct session *s)
{
    while (s->output_first != s->output_end) {
        struct iovec parts[SEGMENTS_A_SEND * 3];
        int count = 0;
        size_t skip = s->output_sent, total = 0;
        for (uint32_t i = s->output_first; i != s->output_end && i - s->output_first < SEGMENTS_A_SEND; i++) {
            struct segment *g = &s->output[i & s->output_mask];
            const struct iovec whole[3] = {{g->header, g->header_bytes}, {(void *)g->data, g->data_bytes}, {g->tail, g->tail_bytes}};
            for (int k = 0; k < 3; k++) {
                size_t gone = skip < whole[k].iov_len ? skip : whole[k].iov_len;
                skip -= gone;
                if (gone == whole[k].iov_len) continue;
                parts[count++] = (struct iovec){(uint8_t *)whole[k].iov_base + gone, whole[k].iov_len - gone};
                total += whole[k].iov_len - gone;
            }
        }
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(s->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return false;
        if (sent < 0) die("send: %s", strerror(errno));
        bool everything = (size_t)sent == total;
        s->output_sent += (size_t)sent;
        while (s->output_first != s->output_end) {
            struct segment *g = &s->output[s->output_first & s->output_mask];
            size_t length = g->header_bytes + g->data_bytes + (size_t)g->tail_bytes;
            if (s->output_sent < length) break;
            s->output_sent -= length;
            s->output_first++;
        }
        if (!everything) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- in */

static void update_window(struct session *s, const uint8_t *h)
{
    uint32_t max_cmd_sn = get32(h + 32);
    if ((int32_t)(max_cmd_sn - s->max_cmd_sn) > 0) s->max_cmd_sn = max_cmd_sn; /* serial number arithmetic */
}

static struct task *task_of(struct session *s, const uint8_t *h)
{
    uint32_t tag = get32(h + 16), slot = tag & 0xfff;
    if (slot > MAX_DEPTH || !s->tasks[slot].busy || s->tasks[slot].generation != tag >> 12)
        die("opcode %02x for task tag %08x, which is not open", h[0], tag);
    return &s->tasks[slot];
}

static void complete(struct session *s, struct task *t, uint8_t status)
{
    if (!t->is_write && status == 0 && t->received != t->expected && t != &s->tasks[SETUP_SLOT]) t->failed = true;
    t->busy = false;
    work_completed(s, (unsigned)(t - s->tasks), status);
}

static void answer_nop(struct session *s, const uint8_t *nop_in)
{
    uint8_t h[HEADER_BYTES] = {NOP_OUT | IMMEDIATE, FINAL};
    memcpy(h + 8, nop_in + 8, 8);
    put32(h + 16, RESERVED_TAG);
    memcpy(h + 20, nop_in + 20, 4);
    put32(h + 24, s->cmd_sn);
    put32(h + 28, s->exp_stat_sn);
    session_queue(s, h, NULL, 0); /* without the ping data: its buffer would have to live on */
}

static void finish_pdu(struct session *s)
{
    const uint8_t *h = s->header;
    struct task *t;
    update_window(s, h);
    switch (h[0] & 0x3f) {
    case DATA_IN:
        t = task_of(s, h);
        t->received += get24(h + 5);
        if (h[1] & HAS_STATUS) {
            s->exp_stat_sn = get32(h + 24) + 1;
            complete(s, t, h[3]);
        }
        return;
    case SCSI_RESPONSE:
        t = task_of(s, h);
        s->exp_stat_sn = get32(h + 24) + 1;
        if (h[2] || ((h[1] & OVERFLOW_OR_UNDERFLOW) && get32(h + 44) && t != &s->tasks[SETUP_SLOT])) t->failed = true;
        complete(s, t, h[3]);
        return;
    case R2T: {
        t = task_of(s, h);
        uint32_t offset = get32(h + 40), count = get32(h + 44);
        if (!t->is_write || !count || offset > t->expected || count > t->expected - offset || count > s->max_burst)
            die("R2T for %u bytes at %u of a task of %u", count, offset, t->expected);
        queue_data_out(s, get32(h + 16), get32(h + 20), t->lun, t->buffer, offset, count);
        return;
    }
    case NOP_IN:
        if (get32(h + 16) != RESERVED_TAG) s->exp_stat_sn = get32(h + 24) + 1;
        if (get32(h + 20) != RESERVED_TAG) answer_nop(s, h);
        return;
    case LOGOUT_RESPONSE:
        s->logged_out = true;
        return;
    case ASYNC:
        die("asynchronous message, event %u", h[36]);
    case REJECT:
        die("Reject, reason %02x, of opcode %02x", h[2], s->small_bytes ? s->small[0] : 0xff);
    default:
        die("unexpected opcode %02x", h[0]);
    }
}

static void begin_pdu(struct session *s, const uint8_t *header)
{
    memcpy(s->header, header, HEADER_BYTES);
    if (s->header_digest) {
        uint32_t crc = crc32c(0, header, HEADER_BYTES);
        if (memcmp(&crc, header + HEADER_BYTES, DIGEST_BYTES)) die("wrong header digest");
    }
    if (header[4]) die("additional header segment in opcode %02x", header[0]);
    s->data_left = get24(header + 5);
    s->payload_left = padded(s->data_left);
    s->digest_left = s->data_digest && s->data_left ? DIGEST_BYTES : 0;
    s->payload_crc = 0;
    s->small_bytes = 0;
}

/* Some bytes of the data segment: dropped, or kept where a task or a report wants them. */
static void take_payload(struct session *s, const uint8_t *bytes, uint32_t count)
{
    if (s->data_digest) s->payload_crc = crc32c(s->payload_crc, bytes, count);
    uint32_t data = smaller(count, s->data_left);
    if ((s->header[0] & 0x3f) == DATA_IN) {
        struct task *t = task_of(s, s->header);
        uint32_t offset = get32(s->header + 40) + get24(s->header + 5) - s->data_left;
        if (t->is_write || offset > t->expected || data > t->expected - offset) die("Data-In that the task has no room for");
        if (t->buffer) memcpy(t->buffer + offset, bytes, data);
    } else {
        uint32_t kept = smaller(data, SMALL_SEGMENT_BYTES - s->small_bytes);
        memcpy(s->small + s->small_bytes, bytes, kept);
        s->small_bytes += kept;
    }
    s->data_left -= data;
    s->payload_left -= count;
}

static void parse(struct session *s)
{
    const uint32_t header_bytes = HEADER_BYTES + (s->header_digest ? DIGEST_BYTES : 0);
    for (;;) {
        size_t available = s->input_end - s->input_start;
        const uint8_t *p = s->input + s->input_start;
        if (s->payload_left) {
            if (!available) break;
            uint32_t part = available < s->payload_left ? (uint32_t)available : s->payload_left;
            take_payload(s, p, part);
            s->input_start += part;
        } else if (s->digest_left) {
            if (!available) break;
            s->digest[DIGEST_BYTES - s->digest_left--] = *p;
            s->input_start++;
            if (!s->digest_left && memcmp(&s->payload_crc, s->digest, DIGEST_BYTES)) die("wrong data digest");
        } else {
            if (available < header_bytes) break;
            begin_pdu(s, p);
            s->input_start += header_bytes;
        }
        if (!s->payload_left && !s->digest_left) finish_pdu(s);
    }
    size_t rest = s->input_end - s->input_start; /* part of a header at most */
    memmove(s->input, s->input + s->input_start, rest);
    s->input_start = 0;
    s->input_end = rest;
}

/* One recv, and what it brought. `wait`: block until there is something (or the socket's time limit passes). */
void session_receive(struct session *s, bool wait)
{
    const int flags = wait ? 0 : MSG_DONTWAIT;
    ssize_t got;
    if (options.discard && !s->input_end && s->payload_left >= DISCARD_FROM_BYTES && !s->data_digest) {
        got = recv(s->socket, NULL, s->payload_left, flags | MSG_TRUNC); /* TCP drops the bytes without a copy */
        if (got > 0) {
            s->payload_left -= (uint32_t)got;
            s->data_left -= smaller((uint32_t)got, s->data_left);
            now_ns = read_clock();
            if (!s->payload_left) finish_pdu(s);
            return;
        }
    } else {
        got = recv(s->socket, s->input + s->input_end, RECEIVE_BYTES - s->input_end, flags);
    }
    now_ns = read_clock();
    if (got == 0) die("the target closed the connection");
    if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        die("recv: %s", strerror(errno));
    }
    s->input_end += (size_t)got;
    parse(s);
}
