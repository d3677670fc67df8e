/* protections MIB [ROUNDS]: ranges become read-only or inaccessible and come back; a
 * touch that is not allowed still is SIGSEGV, one that is still sees its data. */
#include "common.h"
#include <setjmp.h>

static sigjmp_buf after;
static volatile unsigned long segvs;

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (info->si_code != SEGV_ACCERR)
        fail("SIGSEGV with code %d at %p", info->si_code, info->si_addr);
    segvs++;
    siglongjmp(after, 1);
}

static int refused(volatile uint64_t *at, int write)
{
    if (sigsetjmp(after, 1))
        return 1;
    if (write)
        *at = 1;
    else
        (void)*at;
    return 0;
}

static void change(char *base, unsigned long pages)
{
    unsigned long quarter = pages / 4;
    for (unsigned long i = 0; i < quarter * 2; i++)
        fill_page(base + i * PAGE, i + 1);
    char *readable = base, *hidden = base + quarter * PAGE;
    CHECK(!mprotect(readable, quarter * PAGE, PROT_READ));
    CHECK(!mprotect(hidden, quarter * PAGE, PROT_NONE));
    for (unsigned long i = quarter * 2; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (unsigned long i = 0; i < quarter; i++) {
        check_page(readable + i * PAGE, i + 1, "read-only", i);
        if (i % 64)
            continue;
        CHECK(refused((uint64_t *)(readable + i * PAGE), 1));
        CHECK(refused((uint64_t *)(hidden + i * PAGE), 0));
    }
    for (unsigned long i = quarter * 2; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "the rest", i);
    CHECK(!mprotect(base, quarter * 2 * PAGE, PROT_READ | PROT_WRITE));
    for (unsigned long i = 0; i < pages; i++) {
        check_page(base + i * PAGE, i + 1, "back", i);
        fill_page(base + i * PAGE, i + 2);
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 2, "end", i);
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 1);
    char *base = map_anonymous(pages * PAGE);
    struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO };
    CHECK(!sigaction(SIGSEGV, &action, NULL));
    for (unsigned long round = 0; round < rounds; round++)
        change(base, pages);
    printf("%lu refusals\n", segvs);
    return 0;
}
