/* heap MIB [THREADS]: small blocks of malloc, which lie in heaps that the C library
 * extends bit by bit and that nobody hears of, are filled as fast as they come; then
 * each is looked at. */
#include "common.h"

#define SIZE 984ul

static unsigned long count;

static void *fill(void *arg)
{
    uint64_t first = (uintptr_t)arg * count;
    char **blocks = malloc(count * sizeof *blocks);

    CHECK(blocks);
    for (unsigned long i = 0; i < count; i++) {
        CHECK((blocks[i] = malloc(SIZE)));
        memset(blocks[i], (int)(mix(first + i) & 0x7f), SIZE);
    }
    for (unsigned long i = 0; i < count; i++)
        for (unsigned long at = 0; at < SIZE; at += 41)
            if (blocks[i][at] != (char)(mix(first + i) & 0x7f))
                fail("block %lu changed", i);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long threads = argument(argc, argv, 2, 1);
    pthread_t ids[16];

    CHECK(threads >= 1 && threads <= 16);
    count = argument(argc, argv, 1, 64) * MIB / (SIZE + 16) / threads;
    for (uintptr_t t = 1; t < threads; t++)
        CHECK(!pthread_create(&ids[t], NULL, fill, (void *)t));
    fill(NULL);
    for (unsigned long t = 1; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    puts("right");
    return 0;
}
