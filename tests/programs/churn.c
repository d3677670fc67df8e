/* churn MIB ROUNDS: threads come and go all the time, each using its stack,
 * its arena of malloc and memory that outlives it. */
#include "common.h"

static unsigned long pages, round_now;
static char *base;

static void *one(void *arg)
{
    unsigned long t = (uintptr_t)arg;
    uint64_t state = round_now * 64 + t;
    volatile char stack[64 * 1024];
    memset((char *)stack, (int)t + 1, sizeof stack);
    char *own[32];
    for (int i = 0; i < 32; i++) {
        own[i] = malloc(3 * PAGE);
        memset(own[i], (int)t, 3 * PAGE);
    }
    for (int n = 0; n < 200; n++) {
        /* Each thread has every eighth page to itself. */
        unsigned long i = next_random(&state) % (pages / 8) * 8 + t;
        uint64_t *page = (uint64_t *)(base + i * PAGE);
        check_page(page, i + 1, "churn", i);
        fill_page(page, i + 1);
    }
    for (int i = 0; i < 32; i++) {
        for (unsigned long at = 0; at < 3 * PAGE; at += 512)
            if (own[i][at] != (char)t)
                fail("thread %lu: its own memory changed", t);
        free(own[i]);
    }
    for (unsigned long at = 0; at < sizeof stack; at += 512)
        if (stack[at] != (char)(t + 1))
            fail("thread %lu: its stack changed", t);
    return NULL;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 100);
    base = map_filled(pages);
    for (round_now = 0; round_now < rounds; round_now++) {
        pthread_t ids[8];
        for (unsigned long t = 0; t < 8; t++)
            CHECK(!pthread_create(&ids[t], NULL, one, (void *)t));
        for (unsigned long t = 0; t < 8; t++)
            CHECK(!pthread_join(ids[t], NULL));
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "end", i);
    puts("right");
    return 0;
}
