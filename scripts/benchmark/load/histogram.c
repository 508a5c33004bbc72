/* A histogram of latencies with a bounded relative error: each power of two has 128 steps. */
#include "load.h"

static unsigned slot_of(uint64_t ns)
{
    if (ns < (1u << STEP_BITS)) return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - STEP_BITS;
    return ((shift + 1) << STEP_BITS) + (unsigned)((ns >> shift) & ((1u << STEP_BITS) - 1));
}

static uint64_t middle_of(unsigned slot)
{
    if (slot < (1u << STEP_BITS)) return slot;
    unsigned shift = (slot >> STEP_BITS) - 1;
    uint64_t low = ((1ull << STEP_BITS) + (slot & ((1u << STEP_BITS) - 1))) << shift;
    return low + (1ull << shift) / 2;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->count++;
    h->sum_ns += ns;
    if (ns > h->max_ns) h->max_ns = ns;
    h->slot[slot_of(ns)]++;
}

double histogram_percentile_us(const struct histogram *h, double percent)
{
    uint64_t wanted = (uint64_t)((double)h->count * percent / 100.0), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += h->slot[i];
        if (seen > wanted) {
            uint64_t middle = middle_of(i);
            return (double)(middle < h->max_ns ? middle : h->max_ns) / 1000.0;
        }
    }
    return (double)h->max_ns / 1000.0;
}
