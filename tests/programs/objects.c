/* objects MIB: makes items of six objects each, of sizes that have pools of their own,
 * as an interpreter does, and goes through five of the six three times. */
#include "common.h"

enum { KINDS = 6, POOL = 16 << 10, MIXED = 8 };

static const unsigned long sizes[KINDS] = {80, 160, 64, 32, 112, 48};
static char *next[KINDS], *end[KINDS], *heap;
static unsigned long pools;

static uint64_t *make(int kind)
{
    if (next[kind] + sizes[kind] > end[kind]) {
        unsigned long at = pools / MIXED * MIXED + (pools * 5 + 3) % MIXED;
        pools++;
        next[kind] = heap + at * POOL;
        end[kind] = next[kind] + POOL;
    }
    uint64_t *object = (uint64_t *)next[kind];
    next[kind] += sizes[kind];
    return object;
}

int main(int argc, char **argv)
{
    unsigned long size = argument(argc, argv, 1, 64) * MIB;
    unsigned long items = size / (80 + 160 + 64 + 32 + 112 + 48 + KINDS * sizeof(void *)) * 9 / 10;
    uint64_t *(*table)[KINDS] = map_anonymous(items * sizeof *table);

    heap = map_anonymous(size);
    for (unsigned long i = 0; i < items; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            table[i][kind] = make(kind);
            for (unsigned long w = 0; w < sizes[kind] / 8; w++)
                table[i][kind][w] = mix(i * KINDS + kind + w);
        }
    for (int round = 0; round < 3; round++)
        for (unsigned long i = 0; i < items; i++)
            for (int kind = 0; kind < KINDS; kind++)
                if (kind != 2 && *table[i][kind] != mix(i * KINDS + kind))
                    fail("object %d of item %lu changed", kind, i);
    printf("%lu\n", items);
    return 0;
}
