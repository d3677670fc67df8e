/* mapped MIB FILE_MIB [FOLDER]: memory beside a mapped file that is in use all the time.
 * Without a folder the file is one of shared memory, whose pages count, and nobody can
 * send them away; with one it is there, on a disk, and its pages do not count. */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 32) * MIB / PAGE;
    unsigned long file_pages = argument(argc, argv, 2, 24) * MIB / PAGE;
    int fd = argc > 3 ? open(argv[3], O_TMPFILE | O_RDWR, 0600) : memfd_create("mapped", 0);
    CHECK(fd >= 0);
    FILE *file = fdopen(fd, "r+");
    CHECK(file);
    static char one[PAGE];
    for (unsigned long i = 0; i < file_pages; i++) {
        fill_page(one, i + 7);
        CHECK(fwrite(one, PAGE, 1, file) == 1);
    }
    CHECK(fflush(file) == 0);
    char *mapped = mmap(NULL, file_pages * PAGE, PROT_READ, MAP_SHARED, fileno(file), 0);
    CHECK(mapped != MAP_FAILED);
    char *base = map_anonymous(pages * PAGE);
    uint64_t sum = 0;
    for (unsigned long i = 0; i < file_pages; i++)
        sum += check_page(mapped + i * PAGE, i + 7, "file", i);
    for (unsigned long i = 0; i < pages; i++) {
        fill_page(base + i * PAGE, i + 1);
        sum += mapped[i * 7 % file_pages * PAGE];
    }
    uint64_t state = 3;
    for (unsigned long n = 0; n < pages * 2; n++) {
        unsigned long i = next_random(&state) % pages;
        sum += check_page(base + i * PAGE, i + 1, "memory", i);
        sum += mapped[i % file_pages * PAGE];
    }
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
