/* barrier MIB ROUNDS: a write barrier as garbage collectors have: all memory
 * read-only, the handler of SIGSEGV notes the page and lets the write go on. */
#include "common.h"

static char *base;
static unsigned long pages;
static unsigned char *dirty;

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    char *at = info->si_addr;
    if (at < base || at >= base + pages * PAGE)
        _exit(3);
    unsigned long i = (at - base) / PAGE;
    dirty[i] = 1;
    if (mprotect(base + i * PAGE, PAGE, PROT_READ | PROT_WRITE))
        _exit(4);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 3), writes = pages / 50;
    struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_NODEFER };
    unsigned char *expected = calloc(1, pages);
    uint32_t *numbers = calloc(pages, sizeof *numbers);
    base = map_anonymous(pages * PAGE);
    dirty = calloc(1, pages);
    CHECK(expected && numbers && dirty);
    CHECK(!sigaction(SIGSEGV, &action, NULL));
    for (unsigned long i = 0; i < pages; i++) {
        numbers[i] = i + 1;
        fill_page(base + i * PAGE, numbers[i]);
    }
    uint64_t state = 99;
    unsigned long count = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        CHECK(!mprotect(base, pages * PAGE, PROT_READ));
        memset(dirty, 0, pages);
        memset(expected, 0, pages);
        for (unsigned long n = 0; n < writes; n++) {
            unsigned long i = next_random(&state) % pages;
            expected[i] = 1;
            numbers[i] += pages;
            fill_page(base + i * PAGE, numbers[i]);
        }
        for (unsigned long i = 0; i < pages; i++) {
            if (dirty[i] != expected[i])
                fail("round %lu: page %lu is %s dirty", round, i, dirty[i] ? "wrongly" : "not");
            count += dirty[i];
            check_page(base + i * PAGE, numbers[i], "barrier", i);
        }
    }
    printf("%lu dirty pages\n", count);
    return 0;
}
