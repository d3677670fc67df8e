/* resident MIB: what `mincore` says: all that was touched is in memory, what is far
 * from that or was given up is not. */
#include "common.h"
#include <sys/syscall.h>

/* Memory that is filled in order comes ahead of that, though no farther. */
#define AHEAD 1024ul

static unsigned long pages;
static char *base;

static unsigned long count(unsigned long first, unsigned long n, int raw)
{
    unsigned char *vec = malloc(n);
    unsigned long there = 0;
    CHECK(vec);
    memset(vec, 0xfe, n);
    if (raw)
        CHECK(!syscall(SYS_mincore, base + first * PAGE, n * PAGE, vec));
    else
        CHECK(!mincore(base + first * PAGE, n * PAGE, vec));
    for (unsigned long i = 0; i < n; i++)
        there += vec[i] & 1;
    free(vec);
    return there;
}

static void *ask(void *arg)
{
    uint64_t state = (uintptr_t)arg;
    for (int round = 0; round < 50; round++) {
        unsigned long first = next_random(&state) % (pages / 2);
        if (count(first, 100, round % 2) != 100)
            fail("from page %lu on not all pages are there", first);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    unsigned char vec[4];
    base = map_anonymous(2 * pages * PAGE);
    /* Huge pages would be there as a whole. */
    CHECK(!madvise(base, 2 * pages * PAGE, MADV_NOHUGEPAGE));
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    until_elsewhere(base);
    printf("%lu of %lu\n", count(0, pages, 0), pages);
    printf("%lu beyond\n", count(pages + AHEAD, pages - AHEAD, 0));
    pthread_t ids[3];
    for (uintptr_t t = 0; t < 3; t++)
        CHECK(!pthread_create(&ids[t], NULL, ask, (void *)(t + 1)));
    for (int t = 0; t < 3; t++)
        CHECK(!pthread_join(ids[t], NULL));
    CHECK(!madvise(base + 64 * PAGE, 128 * PAGE, MADV_DONTNEED));
    printf("%lu of %lu\n", count(0, pages, 1), pages);
    CHECK(mincore(base + 1, PAGE, vec) == -1 && errno == EINVAL);
    CHECK(mincore(base, PAGE, NULL) == -1 && errno == EFAULT);
    CHECK(!munmap(base + pages * PAGE, PAGE));
    CHECK(mincore(base + (pages - 1) * PAGE, 3 * PAGE, vec) == -1 && errno == ENOMEM);
    for (unsigned long i = 192; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "resident", i);
    puts("right");
    return 0;
}
