/* A library for `loading`: counts, for each thread by itself, in memory that is
 * larger than what the C library has in reserve for such. */
#include "common.h"

static __thread uint64_t counts[2000] = { 1 };
static uint64_t filled[3 * WORDS];
static char *allocated;

__attribute__((constructor)) static void begin(void)
{
    fill_page(filled + WORDS, 5);
    CHECK((allocated = malloc(100000)));
    memset(allocated, 7, 100000);
}

__attribute__((destructor)) static void end(void)
{
    for (int i = 0; i < 100000; i++)
        CHECK(allocated[i] == 7);
    free(allocated);
}

/* The first call of a thread gives `first` + 1. */
uint64_t *count(uint64_t first)
{
    check_page(filled + WORDS, 5, "a library's memory", 0);
    if (counts[1999] == 0)
        counts[0] = first + counts[0] - 1;
    counts[1999]++;
    counts[0]++;
    return counts;
}
