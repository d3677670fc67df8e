/* fork_live MIB CHILDREN [MS]: that many children that live at once, each of which looks at
 * some pages when it begins and, once all have begun, at some more. With MS a child waits so
 * many milliseconds instead, whether the others have begun or not. Prints "right". */
#include "common.h"
#include <sys/wait.h>
#include <time.h>

/* Children that have been forked and not told that they have begun. */
#define AT_ONCE 16

static char *base;
static unsigned long pages;

static void look(unsigned long seed)
{
    uint64_t state = seed * 1000;
    for (int n = 0; n < 4; n++) {
        unsigned long i = next_random(&state) % pages;
        check_page(base + i * PAGE, i + 1, "live child", i);
    }
    unsigned long own = next_random(&state) % pages;
    fill_page(base + own * PAGE, 5);
    check_page(base + own * PAGE, 5, "own page of a live child", own);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long children = argument(argc, argv, 2, 100);
    unsigned long ms = argument(argc, argv, 3, 0);
    int go[2], begun[2], status;
    base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    CHECK(pipe(go) == 0 && pipe(begun) == 0);
    char byte = 0;
    for (unsigned long n = 0; n < children; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(go[1]);
            look(n + 1);
            CHECK(write(begun[1], &byte, 1) == 1);
            if (ms) {
                struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };
                nanosleep(&pause, 0);
            } else {
                CHECK(read(go[0], &byte, 1) == 0);
            }
            look(n + 2 + children);
            _exit(42);
        }
        if (n >= AT_ONCE)
            CHECK(read(begun[0], &byte, 1) == 1);
    }
    for (unsigned long n = 0; n < AT_ONCE && n < children; n++)
        CHECK(read(begun[0], &byte, 1) == 1);
    close(go[1]);
    for (unsigned long n = 0; n < children; n++) {
        CHECK(wait(&status) > 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
            fail("a child ended with status %x", status);
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "parent", i);
    puts("right");
    return 0;
}
