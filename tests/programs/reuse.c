/* reuse ROUNDS MIB [THREADS]: threads map blocks of one size, fill them, mostly
 * make them read-only, and unmap the oldest, so that what one thread gives up is
 * at once mapped and filled by another while much of it is being evicted. Each
 * block is compared with what was written before it goes. */
#include "common.h"

#define BLOCK_PAGES 16

struct block {
    uint64_t *at;
    uint64_t number;
};

struct walker {
    unsigned long id, rounds, blocks;
    uint64_t sum;
};

static void check(const struct block *b)
{
    for (unsigned long word = 0; word < BLOCK_PAGES * WORDS; word++)
        if (b->at[word] != word_of(b->number, word))
            fail("block %lu at %p, word %lu: %016lx", (unsigned long)b->number, (void *)b->at,
                 word, (unsigned long)b->at[word]);
}

/* Compares the block before, which was written while others unmapped theirs. */
static void check_young(const struct walker *w, const struct block *blocks, unsigned long round)
{
    const struct block *b = &blocks[(round + w->blocks - 1) % w->blocks];
    if (b->at)
        check(b);
}

static void *walk(void *arg)
{
    struct walker *w = arg;
    struct block *blocks = map_anonymous(w->blocks * sizeof *blocks);
    for (unsigned long round = 0; round < w->rounds; round++) {
        struct block *b = &blocks[round % w->blocks];
        if (b->at) {
            /* What is compared was fetched for that, and is not about to leave. */
            if (round / w->blocks % 4 == 0)
                check(b);
            else
                check_young(w, blocks, round);
            w->sum = w->sum * 31 + b->number;
            CHECK(!munmap(b->at, BLOCK_PAGES * PAGE));
        }
        b->at = map_anonymous(BLOCK_PAGES * PAGE);
        b->number = w->id << 32 | (round + 1);
        for (unsigned long word = 0; word < BLOCK_PAGES * WORDS; word++)
            b->at[word] = word_of(b->number, word);
        if (round % 4)
            CHECK(!mprotect(b->at, BLOCK_PAGES * PAGE, PROT_READ));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argument(argc, argv, 1, 2000);
    unsigned long mib = argument(argc, argv, 2, 64);
    unsigned long threads = argument(argc, argv, 3, 4);
    static struct walker walkers[16];
    pthread_t ids[16];
    uint64_t sum = 0;

    CHECK(threads >= 1 && threads <= 16);
    for (unsigned long t = 0; t < threads; t++) {
        walkers[t] = (struct walker){ .id = t + 1, .rounds = rounds,
                                      .blocks = mib * MIB / PAGE / BLOCK_PAGES / threads };
        CHECK(!pthread_create(&ids[t], NULL, walk, &walkers[t]));
    }
    for (unsigned long t = 0; t < threads; t++) {
        CHECK(!pthread_join(ids[t], NULL));
        sum += walkers[t].sum;
    }
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
