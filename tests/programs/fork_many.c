/* fork_many MIB CHILDREN: that many short-lived children, some at a time, each
 * of which looks at some pages and changes one. Prints "right". */
#include "common.h"
#include <sys/wait.h>

#define AT_ONCE 4

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long children = argument(argc, argv, 2, 100);
    char *base = map_anonymous(pages * PAGE);
    pid_t running[AT_ONCE] = {0};
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (unsigned long n = 0; n < children + AT_ONCE; n++) {
        pid_t *slot = &running[n % AT_ONCE];
        int status;
        if (*slot) {
            CHECK(waitpid(*slot, &status, 0) == *slot);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
                fail("a child ended with status %x", status);
            *slot = 0;
        }
        if (n >= children)
            continue;
        *slot = fork();
        CHECK(*slot >= 0);
        if (*slot == 0) {
            uint64_t state = n * 1000;
            for (int look = 0; look < 16; look++) {
                unsigned long i = next_random(&state) % pages;
                check_page(base + i * PAGE, i + 1, "short-lived child", i);
            }
            fill_page(base + n % pages * PAGE, 5);
            _exit(42);
        }
        /* The parent's memory changes in between, and back. */
        unsigned long own = n * 7919 % pages;
        fill_page(base + own * PAGE, 9);
        fill_page(base + own * PAGE, own + 1);
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "parent", i);
    puts("right");
    return 0;
}
