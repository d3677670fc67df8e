/* moves ROUNDS MIB [THREADS]: threads have blocks of memory grow and shrink so
 * that the kernel moves them, each to where another's has just been, while much
 * of it is elsewhere. All of it is compared now and then, and in the end. */
#include "common.h"

#define BLOCKS 8

struct walker {
    unsigned long id, rounds, pages;
    char *at[BLOCKS];
};

static void check(const struct walker *w, unsigned long b, unsigned long first, unsigned long end)
{
    for (unsigned long i = first; i < end; i++)
        check_page(w->at[b] + i * PAGE, w->id << 32 | b << 24 | (i + 1), "moved", i);
}

static void move(struct walker *w, unsigned long b, unsigned long from, unsigned long to)
{
    char *at = mremap(w->at[b], from * PAGE, to * PAGE, MREMAP_MAYMOVE);
    CHECK(at != MAP_FAILED);
    w->at[b] = at;
}

static void *walk(void *arg)
{
    struct walker *w = arg;
    uint64_t random = w->id;
    for (unsigned long b = 0; b < BLOCKS; b++) {
        w->at[b] = map_anonymous(w->pages * PAGE);
        for (unsigned long i = 0; i < w->pages; i++)
            fill_page(w->at[b] + i * PAGE, w->id << 32 | b << 24 | (i + 1));
    }
    for (unsigned long round = 0; round < w->rounds; round++) {
        unsigned long b = next_random(&random) % BLOCKS;
        unsigned long first = next_random(&random) % w->pages;
        unsigned long most = w->pages + 1 + next_random(&random) % w->pages;
        move(w, b, w->pages, most);
        /* What it grew by is empty, whatever was there before. */
        check_page(w->at[b] + (most - 1) * PAGE, 0, "new", most - 1);
        move(w, b, most, w->pages);
        check(w, b, first, first + 4 < w->pages ? first + 4 : w->pages);
    }
    for (unsigned long b = 0; b < BLOCKS; b++)
        check(w, b, 0, w->pages);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argument(argc, argv, 1, 500);
    unsigned long mib = argument(argc, argv, 2, 64);
    unsigned long threads = argument(argc, argv, 3, 4);
    static struct walker walkers[16];
    pthread_t ids[16];

    CHECK(threads >= 1 && threads <= 16);
    for (unsigned long t = 0; t < threads; t++) {
        walkers[t] = (struct walker){ .id = t + 1, .rounds = rounds,
                                      .pages = mib * MIB / PAGE / BLOCKS / threads };
        CHECK(!pthread_create(&ids[t], NULL, walk, &walkers[t]));
    }
    for (unsigned long t = 0; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    puts("right");
    return 0;
}
