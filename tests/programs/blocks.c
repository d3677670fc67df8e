/* blocks ROUNDS MIB [THREADS]: large blocks of malloc, each a mapping that the C
 * library makes and unmaps by itself, come and go where others have just been,
 * while those beside them leave. Each holds what was written to it. */
#include "common.h"
#include <malloc.h>

#define LEAST 34
#define MOST 98 /* pages */

struct block {
    char *at;
    unsigned long pages, number;
};

struct walker {
    unsigned long id, rounds, blocks;
};

static void check(const struct block *b, unsigned long i, const char *when)
{
    check_page(b->at + i * PAGE, b->number * MOST + i + 1, when, i);
}

static void make(struct walker *w, struct block *b, uint64_t random, unsigned long round)
{
    b->pages = LEAST + random % (MOST - LEAST);
    b->number = w->id << 32 | round;
    b->at = malloc(b->pages * PAGE);
    CHECK(b->at);
    for (unsigned long i = 0; i < b->pages; i++)
        fill_page(b->at + i * PAGE, b->number * MOST + i + 1);
}

static void *walk(void *arg)
{
    struct walker *w = arg;
    uint64_t random = w->id;
    struct block *blocks = calloc(w->blocks, sizeof *blocks);
    CHECK(blocks);
    for (unsigned long i = 0; i < w->blocks; i++)
        make(w, &blocks[i], next_random(&random), i);
    for (unsigned long round = 0; round < w->rounds; round++) {
        struct block *b = &blocks[next_random(&random) % w->blocks];
        if (round % 4 == 0) {
            for (unsigned long i = 0; i < b->pages; i++)
                check(b, i, "before it goes");
        } else if (round % 4 == 1) {
            /* Grows, and moves by itself where there is no room. */
            char *at = realloc(b->at, (b->pages + 7) * PAGE);
            CHECK(at);
            b->at = at;
            for (unsigned long i = 0; i < b->pages; i += 5)
                check(b, i, "moved");
        }
        free(b->at);
        make(w, b, next_random(&random), w->blocks + round);
        check(b, next_random(&random) % b->pages, "new");
    }
    for (unsigned long i = 0; i < w->blocks; i++)
        for (unsigned long p = 0; p < blocks[i].pages; p++)
            check(&blocks[i], p, "end");
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argument(argc, argv, 1, 500);
    unsigned long mib = argument(argc, argv, 2, 64);
    unsigned long threads = argument(argc, argv, 3, 1);
    static struct walker walkers[16];
    pthread_t ids[16];

    CHECK(threads >= 1 && threads <= 16);
    CHECK(mallopt(M_MMAP_THRESHOLD, 128 << 10));
    for (unsigned long t = 0; t < threads; t++) {
        walkers[t] = (struct walker){ .id = t + 1, .rounds = rounds,
                                      .blocks = mib * MIB / PAGE / threads / ((LEAST + MOST) / 2) };
        CHECK(!pthread_create(&ids[t], NULL, walk, &walkers[t]));
    }
    for (unsigned long t = 0; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    puts("right");
    return 0;
}
