/* forks MIB CHILDREN [huge|grown]: forks while memory may be elsewhere. Each child checks
 * all of memory, changes some and leaves; it must see the right data or not
 * live to see any. Prints for each child "right" or "ended", then checks that
 * the parent's memory is untouched. huge: in huge pages, where the kernel has
 * them. grown: in a mapping that grows, of a program that gives advice by an
 * instruction of its own. */
#include "common.h"
#include <sys/wait.h>

static void check_all(char *base, unsigned long pages, const char *who)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, who, i);
}

/* MADV_NORMAL, which changes nothing. */
static void advise(char *at)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(28L), "D"(at), "S"(4096L), "d"(0L) : "rcx", "r11", "memory");
    CHECK(result == 0);
}

/* Maps memory a MiB at a time, and fills it as it grows. */
static char *grown(unsigned long pages)
{
    unsigned long have = MIB / PAGE;
    char *base = map_anonymous(MIB);
    for (unsigned long i = 0; i < pages; i++) {
        if (i == have) {
            base = mremap(base, have * PAGE, have * PAGE + MIB, MREMAP_MAYMOVE);
            CHECK(base != MAP_FAILED);
            have += MIB / PAGE;
        }
        if (i % 1024 == 0)
            advise(base);
        fill_page(base + i * PAGE, i + 1);
    }
    return base;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long children = argument(argc, argv, 2, 2);
    int grows = argc > 3 && strcmp(argv[3], "grown") == 0;
    char *base = grows ? grown(pages) : map_anonymous(pages * PAGE);
    if (argc > 3 && !grows)
        madvise(base, pages * PAGE, MADV_HUGEPAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (unsigned long n = 0; n < children; n++) {
        int status;
        fflush(stdout);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            check_all(base, pages, "child");
            for (unsigned long i = 0; i < pages; i += 3)
                fill_page(base + i * PAGE, i + 1000000);
            for (unsigned long i = 0; i < pages; i++)
                check_page(base + i * PAGE, i % 3 ? i + 1 : i + 1000000, "child after writing", i);
            _exit(42);
        }
        /* The parent goes on writing while the child reads. */
        for (unsigned long i = 0; i < pages; i += 5)
            fill_page(base + i * PAGE, i + 1);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 42)
            puts("right");
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
            fail("a child saw wrong data");
        else
            puts("ended");
        check_all(base, pages, "parent");
    }
    puts("parent right");
    return 0;
}
