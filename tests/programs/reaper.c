/* reaper MIB CHILDREN: a program that is told of all processes below it that have lost
 * their parent is told of those only that it has started itself. */
#include "common.h"
#include <sys/prctl.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    unsigned long children = argument(argc, argv, 2, 8);
    pid_t own[64];
    CHECK(children <= 64 && !prctl(PR_SET_CHILD_SUBREAPER, 1));
    char *base = map_filled(pages);
    until_elsewhere(base);
    for (unsigned long n = 0; n < children; n++) {
        own[n] = fork();
        CHECK(own[n] >= 0);
        if (own[n])
            continue;
        for (unsigned long i = 0; i < pages; i++) {
            check_page(base + i * PAGE, i + 1, "a child", i);
            fill_page(base + i * PAGE, i + 2);
        }
        if (n % 2)
            exit(3);
        _exit(3);
    }
    for (pid_t pid; (pid = wait(NULL)) > 0;) {
        unsigned long n = 0;
        while (n < children && own[n] != pid)
            n++;
        if (n == children)
            fail("a process ended that is no child of this one's");
    }
    puts("right");
    return 0;
}
