/* locked MIB: a program that locks a range (as keepers of keys do) finds it
 * resident always, and the rest of its memory right; locks come and go. */
#include "common.h"

#define LOCKED_PAGES 64ul

static unsigned long resident(char *at)
{
    unsigned long count = 0;
    for (unsigned long i = 0; i < LOCKED_PAGES; i++)
        count += is_present(at + i * PAGE);
    return count;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    char *base = map_anonymous(pages * PAGE);
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
