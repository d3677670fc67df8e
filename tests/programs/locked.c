/* locked MIB: a program that locks a range (as keepers of keys do) finds it
 * resident always, and the rest of its memory right; locks come and go.
 * locked MIB WHICH: a program locks all of its memory, some of which is elsewhere:
 * what is there (current), what comes to be (future), both, or both as it is touched
 * (on-fault). */
#include "common.h"
#include <sys/syscall.h>
#include <sys/wait.h>

#define LOCKED_PAGES 64ul

static unsigned long resident(char *at)
{
    unsigned long count = 0;
    for (unsigned long i = 0; i < LOCKED_PAGES; i++)
        count += is_present(at + i * PAGE);
    return count;
}

static int lock_all(char *base, unsigned long pages, const char *which)
{
    int flags = !strcmp(which, "current") ? MCL_CURRENT
              : !strcmp(which, "future")  ? MCL_FUTURE
              : !strcmp(which, "both")    ? MCL_CURRENT | MCL_FUTURE
                                          : MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (int round = 0; round < 2; round++) {
        until_elsewhere(base);
        if (round)
            CHECK(!syscall(SYS_mlockall, flags));
        else
            CHECK(!mlockall(flags));
        if (flags == MCL_CURRENT || flags == (MCL_CURRENT | MCL_FUTURE))
            for (unsigned long i = 0; i < pages; i++)
                if (!is_present(base + i * PAGE))
                    fail("round %d: page %lu was locked and is elsewhere", round, i);
        /* A child has none of the locks. */
        char *more = map_filled(4 * MIB / PAGE);
        pid_t pid = fork();
        CHECK(pid >= 0);
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "locked", i);
        for (unsigned long i = 0; i < 4 * MIB / PAGE; i++)
            check_page(more + i * PAGE, i + 1, "new", i);
        if (pid == 0)
            _exit(42);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
        CHECK(!munlockall() && !munmap(more, 4 * MIB));
        char *other = map_filled(pages);
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "unlocked", i);
        CHECK(!munmap(other, pages * PAGE));
    }
    puts("right");
    return 0;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    char *base = map_anonymous(pages * PAGE);
    if (argc > 2)
        return lock_all(base, pages, argv[2]);
    char *early = base + 100 * PAGE, *late = base + pages / 2 * PAGE;
    for (unsigned long i = 0; i < 200; i++)
        fill_page(base + i * PAGE, i + 1);
    CHECK(!mlock(early, LOCKED_PAGES * PAGE));
    for (unsigned long i = 200; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (int round = 0; round < 3; round++) {
        /* These may be elsewhere when they are locked. */
        CHECK(!mlock(late, LOCKED_PAGES * PAGE));
        for (unsigned long i = 0; i < pages; i++) {
            check_page(base + i * PAGE, i + 1, "locked", i);
            if (i % 4096 == 0 && (resident(early) != LOCKED_PAGES || resident(late) != LOCKED_PAGES))
                fail("round %d: of %lu locked pages %lu and %lu are resident", round,
                     LOCKED_PAGES, resident(early), resident(late));
        }
        CHECK(!munlock(late, LOCKED_PAGES * PAGE));
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "unlocked", i);
    }
    puts("right");
    return 0;
}
