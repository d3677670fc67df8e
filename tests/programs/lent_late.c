/* lent_late MIB LIBRARY WAY: lends pages to a pipe by code that is loaded late: `library` for
 * an instruction of LIBRARY, `handle` for the C library's function by a handle of it, `other`
 * for another C library beside the program's. Much else leaves and comes back, and then the
 * pipe is read. */
#include "common.h"
#include <dlfcn.h>
#include <sys/uio.h>

enum { LENT = 16 }; /* pages */

typedef long Lend(int, void *, unsigned long);
typedef ssize_t Vmsplice(int, const struct iovec *, size_t, unsigned);

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    unsigned long pages = atol(argv[1]) * MIB / PAGE;
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    CHECK(memory != MAP_FAILED);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(memory + i * PAGE, i + 1);
    int ends[2];
    CHECK(pipe(ends) == 0);
    unsigned long first = pages / 2;
    char *what = memory + first * PAGE;
    if (strcmp(argv[3], "library") == 0) {
        void *library = dlopen(argv[2], RTLD_NOW);
        Lend *lend = library ? (Lend *)dlsym(library, "lend") : NULL;
        CHECK(lend && lend(ends[1], what, LENT * PAGE) == LENT * (long)PAGE);
    } else {
        void *libc = strcmp(argv[3], "handle") == 0 ? dlopen("libc.so.6", RTLD_NOW)
                                                    : dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
        Vmsplice *lend = libc ? (Vmsplice *)dlsym(libc, "vmsplice") : NULL;
        struct iovec part = {what, LENT * PAGE};
        CHECK(lend && lend(ends[1], &part, 1, 0) == LENT * (ssize_t)PAGE);
    }
    for (int round = 0; round < 3; round++)
        for (unsigned long i = 0; i < pages; i++) {
            volatile uint64_t *page = (uint64_t *)(memory + i * PAGE);
            CHECK(page[7] == word_of(i + 1, 7));
            page[7] = word_of(i + 1, 7);
        }
    for (unsigned long i = 0; i < LENT; i++) {
        static uint64_t out[WORDS];
        CHECK(read(ends[0], out, PAGE) == (ssize_t)PAGE);
        check_page(out, first + i + 1, "lent", i);
    }
    puts("right");
    return 0;
}
