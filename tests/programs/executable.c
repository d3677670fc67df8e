/* executable MIB: a heap that is readable, writable and executable, as those of some
 * language runtimes are. Each page begins with a function, which is called; pages are
 * changed in place, and now and then may not be executed, or not be written to, for a
 * while. */
#include "common.h"

enum { CODE = 16 };

/* mov eax, number; ret */
static void put_function(char *page, uint32_t number)
{
    page[0] = (char)0xb8;
    memcpy(page + 1, &number, sizeof number);
    page[5] = (char)0xc3;
}

static void fill(char *page, uint64_t number)
{
    fill_page(page, number);
    memset(page, 0x90, CODE);
    put_function(page, (uint32_t)number);
}

static void check(char *page, uint64_t number, const char *what)
{
    uint32_t (*function)(void) = (uint32_t(*)(void))(uintptr_t)page;
    if (function() != (uint32_t)number)
        fail("%s: page %p is the function of another", what, page);
    const uint64_t *words = (const void *)page;
    for (unsigned long at = CODE / 8; at < WORDS; at++)
        if (words[at] != word_of(number, at))
            fail("%s: page %p word %lu is wrong", what, page, at);
}

static void protect(char *base, unsigned long pages, int how)
{
    CHECK(mprotect(base, pages * PAGE, how) == 0);
}

int main(int argc, char **argv)
{
    const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
    unsigned long pages = argument(argc, argv, 1, 32) * (MIB / PAGE);
    char *base = map_anonymous(pages * PAGE);
    protect(base, pages, all);
    for (unsigned long i = 0; i < pages; i++)
        fill(base + i * PAGE, i + 1);
    for (unsigned long i = 0; i < pages; i++)
        check(base + i * PAGE, i + 1, "in order");
    uint64_t state = 1;
    for (unsigned long n = 0; n < pages; n++) {
        unsigned long i = next_random(&state) % pages;
        check(base + i * PAGE, i + 1, "at random");
        fill(base + i * PAGE, i + 1);
    }
    /* A quarter is plain memory for a while, another is code. */
    unsigned long quarter = pages / 4;
    protect(base, quarter, PROT_READ | PROT_WRITE);
    protect(base + quarter * PAGE, quarter, PROT_READ | PROT_EXEC);
    for (unsigned long i = 0; i < quarter; i++)
        fill(base + i * PAGE, i + 1);
    for (unsigned long i = quarter; i < pages; i++)
        check(base + i * PAGE, i + 1, "as code");
    protect(base, pages, all);
    for (unsigned long i = 0; i < pages; i++)
        check(base + i * PAGE, i + 1, "again");
    /* What is given up reads as zeros. */
    CHECK(madvise(base, quarter * PAGE, MADV_DONTNEED) == 0);
    for (unsigned long i = 0; i < quarter; i++)
        check_page(base + i * PAGE, 0, "given up", i);
    for (unsigned long i = 0; i < quarter; i++)
        fill(base + i * PAGE, i + 1);
    for (unsigned long i = 0; i < pages; i++)
        check(base + i * PAGE, i + 1, "at last");
    puts("right");
    return 0;
}
