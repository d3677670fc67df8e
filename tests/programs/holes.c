/* holes MIB: gives memory up before there is so much of it that any is paged, and
 * maps some anew at the same addresses when much has been paged: nobody else may
 * have mapped anything there. */
#include "common.h"
#include <sys/wait.h>

#define HOLES 8

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    char *holes[HOLES];
    /* From 16 to 2048 pages, each between memory that stays. */
    for (int i = 0; i < HOLES; i++) {
        unsigned long n = 16ul << i;
        char *all = map_anonymous((n + 2) * PAGE);
        fill_page(all, i + 1);
        fill_page(all + (n + 1) * PAGE, i + 2);
        holes[i] = all + PAGE;
        CHECK(!munmap(holes[i], n * PAGE));
    }
    char *base = map_filled(pages);
    for (int round = 0; round < 3; round++) {
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "before", i);
        for (int i = 0; i < HOLES; i++) {
            unsigned long n = 16ul << i;
            CHECK(mmap(holes[i], n * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == holes[i]);
            for (unsigned long j = 0; j < n; j++)
                fill_page(holes[i] + j * PAGE, j + 5);
        }
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "after", i);
        for (int i = 0; i < HOLES; i++) {
            unsigned long n = 16ul << i;
            for (unsigned long j = 0; j < n; j++)
                check_page(holes[i] + j * PAGE, j + 5, "anew", j);
            check_page(holes[i] - PAGE, i + 1, "below", i);
            check_page(holes[i] + n * PAGE, i + 2, "above", i);
            CHECK(!munmap(holes[i], n * PAGE));
        }
        /* A fork has things of its own mapped. */
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            for (unsigned long i = 0; i < pages; i++)
                check_page(base + i * PAGE, i + 1, "child", i);
            _exit(42);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    }
    puts("right");
    return 0;
}
