/* records MIB ACCESSES [PAUSE]: pages of records that are much alike, as those of a store of
 * keys and values are, looked at in no order; one in eight is written anew each time. Before
 * the access of number PAUSE it waits for a line. */
#include "common.h"

/* Word `at` of a page: of each record of eight words two are its own. */
static uint64_t field(uint64_t page, uint64_t version, unsigned long at)
{
    return at % 8 < 2 ? mix(page * WORDS + at) ^ version : at % 8;
}

static void fill(uint64_t *words, uint64_t page, uint64_t version)
{
    for (unsigned long at = 0; at < WORDS; at++)
        words[at] = field(page, version, at);
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 48) * MIB / PAGE;
    unsigned long accesses = argument(argc, argv, 2, 40000);
    unsigned long pause = argument(argc, argv, 3, accesses);
    char *base = map_anonymous(pages * PAGE);
    uint64_t *versions = map_anonymous(pages * sizeof *versions);
    uint64_t state = 1, sum = 0;

    for (unsigned long i = 0; i < pages; i++)
        fill((uint64_t *)(base + i * PAGE), i, 0);
    for (unsigned long n = 0; n < accesses; n++) {
        unsigned long i = next_random(&state) % pages;
        if (n == pause)
            stage("halfway");
        uint64_t *words = (uint64_t *)(base + i * PAGE);
        for (unsigned long at = 0; at < WORDS; at++)
            if (words[at] != field(i, versions[i], at))
                fail("access %lu: word %lu of page %lu changed", n, at, i);
        sum = sum * 31 + words[n % WORDS];
        if (n % 8 == 0)
            fill(words, i, ++versions[i]);
    }
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
