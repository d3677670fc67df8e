/* small MIB [FORKS]: memory in many mappings of one to three pages with holes between
 * them, as some allocators make them. Half of them are unmapped and made anew, then all
 * are checked; so do FORKS children. */
#include "common.h"
#include <sys/wait.h>

struct piece {
    char *at;
    unsigned pages;
    uint64_t seed;
};

static void make(struct piece *piece, uint64_t seed)
{
    piece->pages = 1 + seed % 3;
    piece->seed = seed;
    char *at = map_anonymous((piece->pages + 1) * PAGE);
    /* The next mapping would otherwise be joined to this one. */
    CHECK(munmap(at + piece->pages * PAGE, PAGE) == 0);
    piece->at = at;
    for (unsigned i = 0; i < piece->pages; i++)
        fill_page(at + i * PAGE, seed * 4 + i + 1);
}

static uint64_t check(const struct piece *pieces, unsigned long n)
{
    uint64_t sum = 0;
    for (unsigned long p = 0; p < n; p++)
        for (unsigned i = 0; i < pieces[p].pages; i++)
            sum = sum * 31 + check_page(pieces[p].at + i * PAGE, pieces[p].seed * 4 + i + 1, "small", p);
    return sum;
}

int main(int argc, char **argv)
{
    unsigned long n = argument(argc, argv, 1, 32) * (MIB / PAGE) / 2;
    unsigned long forks = argument(argc, argv, 2, 0);
    struct piece *pieces = calloc(n, sizeof *pieces);
    CHECK(pieces);
    for (unsigned long p = 0; p < n; p++)
        make(&pieces[p], p);
    for (unsigned long p = 0; p < n; p += 2) {
        CHECK(munmap(pieces[p].at, pieces[p].pages * PAGE) == 0);
        make(&pieces[p], p + n);
    }
    uint64_t sum = check(pieces, n);
    for (unsigned long f = 0; f < forks; f++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(check(pieces, n) == sum ? 0 : 1);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0)
            fail("a child ended with %x", status);
    }
    if (check(pieces, n) != sum)
        fail("another sum");
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
