/* guarded MIB: rarer advice about memory that may be elsewhere: guards in the
 * midst of it, pages given up in other ways, and advice that changes no contents. */
#include "common.h"
#include <setjmp.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103
#define RUN 8ul

static unsigned long pages, refused;
static char *base;
static sigjmp_buf after;

static char *page_at(unsigned long i)
{
    return base + i * PAGE;
}

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    refused++;
    siglongjmp(after, 1);
}

static int is_refused(volatile uint64_t *at)
{
    if (sigsetjmp(after, 1))
        return 1;
    (void)*at;
    return 0;
}

static void fill_again(unsigned long first)
{
    for (unsigned long i = first; i < first + RUN; i++)
        fill_page(page_at(i), i + 1);
}

static void expect(unsigned long first, int empty, const char *what)
{
    for (unsigned long i = first; i < first + RUN; i++)
        check_page(page_at(i), empty ? 0 : i + 1, what, i);
}

/* A guard refuses every touch; what was under it is gone when it goes. */
static void guards(void)
{
    if (madvise(page_at(0), RUN * PAGE, GUARD_INSTALL)) {
        CHECK(errno == EINVAL); /* before Linux 6.13 */
        puts("no guards");
        return;
    }
    for (unsigned long first = 0; first + 4 * RUN < pages; first += 16 * RUN) {
        CHECK(!madvise(page_at(first), RUN * PAGE, GUARD_INSTALL));
        if (first % (32 * RUN) == 0)
            usleep(3000);
        for (unsigned long i = first; i < first + RUN; i++)
            CHECK(is_refused((uint64_t *)page_at(i)));
        expect(first + RUN, 0, "beside a guard");
        CHECK(!madvise(page_at(first), RUN * PAGE, GUARD_REMOVE));
        expect(first, 1, "under a guard");
        fill_again(first);
        /* Removing a guard where there is none changes nothing. */
        CHECK(!madvise(page_at(first), 2 * RUN * PAGE, GUARD_REMOVE));
        expect(first, 0, "without a guard");
        expect(first + RUN, 0, "never guarded");
    }
    printf("%lu touches refused\n", refused);
}

/* Advice about several ranges at once, through a descriptor. */
static int through_descriptor(int advice, unsigned long first)
{
    struct iovec ranges[2] = { { page_at(first), 2 * PAGE }, { page_at(first + 4), 4 * PAGE } };
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    CHECK(self >= 0);
    long got = syscall(SYS_process_madvise, self, ranges, 2, advice, 0);
    int error = errno;
    CHECK(!close(self));
    if (got < 0)
        return error;
    CHECK(got == (long)(6 * PAGE));
    return 0;
}

static void kept(void)
{
    static const int ways[] = { 20 /* COLD */, 21 /* PAGEOUT */, 22 /* POPULATE_READ */,
                                23 /* POPULATE_WRITE */, MADV_WILLNEED, MADV_HUGEPAGE,
                                MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTDUMP,
                                MADV_DODUMP, MADV_DONTFORK, MADV_DOFORK, MADV_SEQUENTIAL,
                                MADV_RANDOM, MADV_NORMAL, MADV_REMOVE };
    for (unsigned long w = 0; w < sizeof ways / sizeof *ways; w++) {
        unsigned long first = pages / 3 + w * 2 * RUN;
        int error = madvise(page_at(first), RUN * PAGE, ways[w]) ? errno : 0;
        expect(first, 0, "advised");
        printf("advice %d: %s\n", ways[w], strerror(error));
    }
    /* Whether this works depends on what is there. */
    (void)madvise(page_at(pages / 3), RUN * PAGE, MADV_COLLAPSE);
    expect(pages / 3, 0, "collapsed");
    printf("through a descriptor: %s\n", strerror(through_descriptor(20, pages / 3)));
    expect(pages / 3, 0, "advised through a descriptor");
}

static void given_up(void)
{
    unsigned long first = pages / 2;
    CHECK(!mlock(page_at(first), RUN * PAGE));
    CHECK(madvise(page_at(first), RUN * PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
    expect(first, 0, "locked");
    CHECK(!madvise(page_at(first), RUN * PAGE, MADV_DONTNEED_LOCKED));
    expect(first, 1, "locked and given up");
    CHECK(!munlock(page_at(first), RUN * PAGE));
    fill_again(first);
    int error = through_descriptor(MADV_DONTNEED, first);
    printf("given up through a descriptor: %s\n", strerror(error));
    for (unsigned long i = first; i < first + RUN; i++) {
        int gone = !error && i != first + 2 && i != first + 3;
        check_page(page_at(i), gone ? 0 : i + 1, "given up through a descriptor", i);
    }
    fill_again(first);
    /* Zeros or what was there, until it is written. */
    CHECK(!madvise(page_at(first), RUN * PAGE, MADV_FREE));
    for (unsigned long i = first; i < first + RUN; i++)
        if (*(uint64_t *)page_at(i))
            check_page(page_at(i), i + 1, "free", i);
        else
            check_page(page_at(i), 0, "free", i);
    fill_again(first);
    usleep(5000);
    expect(first, 0, "free and filled again");
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO };
    CHECK(!sigaction(SIGSEGV, &action, NULL));
    base = map_filled(pages);
    until_elsewhere(base);
    guards();
    fill_again(0);
    kept();
    given_up();
    for (unsigned long i = 0; i < pages; i++)
        check_page(page_at(i), i + 1, "end", i);
    puts("right");
    return 0;
}
