/* self_mem MIB: a program reads and writes its own memory by /proc/self/mem, as
 * makers of code do: what is elsewhere, what was never touched, what it may only read
 * or not even that; a word, a page, and several pages at once. */
#include "common.h"

static unsigned long pages;
static char *base;

static off_t at(const void *place)
{
    return (off_t)(uintptr_t)place;
}

/* By its position, as far as it goes in one call. */
static void stream(int fd, char *to, unsigned long bytes, int writes)
{
    while (bytes) {
        ssize_t n = writes ? write(fd, to, bytes) : read(fd, to, bytes);
        CHECK(n > 0);
        to += n;
        bytes -= n;
    }
}

static void look(int fd)
{
    char copy[4 * PAGE];
    uint64_t word;
    for (unsigned long i = 0; i + 4 < pages; i += pages / 16) {
        char *page = base + i * PAGE;
        CHECK(pread(fd, &word, 8, at(page + 8)) == 8 && word == word_of(i + 1, 1));
        CHECK(pread(fd, copy, sizeof copy, at(page)) == sizeof copy);
        for (unsigned long j = 0; j < 4; j++)
            check_page(copy + j * PAGE, i + j + 1, "read by its place", i + j);
        CHECK(lseek(fd, at(page), SEEK_SET) == at(page));
        stream(fd, copy, sizeof copy, 0);
        for (unsigned long j = 0; j < 4; j++)
            check_page(copy + j * PAGE, i + j + 1, "read in order", i + j);
    }
}

static void change(int fd)
{
    char copy[4 * PAGE];
    for (unsigned long i = 0; i + 4 < pages; i += pages / 15) {
        char *page = base + i * PAGE;
        for (unsigned long j = 0; j < 4; j++)
            fill_page(copy + j * PAGE, i + j + 900000);
        if (i % 2) {
            CHECK(pwrite(fd, copy, sizeof copy, at(page)) == sizeof copy);
        } else {
            CHECK(lseek(fd, at(page), SEEK_SET) == at(page));
            stream(fd, copy, sizeof copy, 1);
        }
        for (unsigned long j = 0; j < 4; j++) {
            check_page(page + j * PAGE, i + j + 900000, "written", i + j);
            fill_page(copy + j * PAGE, i + j + 1);
        }
        CHECK(pwrite(fd, copy, sizeof copy, at(page)) == sizeof copy);
    }
}

/* Pages of zeros that were never written to, some of which have been read. */
static void begin(int fd, int prot)
{
    char copy[PAGE];
    char *fresh = mmap(NULL, 64 * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(fresh != MAP_FAILED);
    for (unsigned long i = 0; i < 64; i += 3)
        if (i % 2 && prot != PROT_NONE)
            check_page(fresh + i * PAGE, 0, "fresh", i);
    for (unsigned long i = 0; i < 64; i++) {
        fill_page(copy, i + 7);
        CHECK(pwrite(fd, copy, PAGE, at(fresh + i * PAGE)) == (ssize_t)PAGE);
    }
    CHECK(!mprotect(fresh, 64 * PAGE, PROT_READ));
    for (unsigned long i = 0; i < 64; i++)
        check_page(fresh + i * PAGE, i + 7, "began", i);
    CHECK(!munmap(fresh, 64 * PAGE));
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"/proc/self/mem", "/proc/thread-self/mem"};
    static const int prots[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE};
    char copy[PAGE];
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    base = map_filled(pages);
    for (unsigned long i = 0; i < 6; i++) {
        int fd = open(names[i % 2], O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0);
        CHECK(!mprotect(base, pages * PAGE, prots[i / 2]));
        until_elsewhere(base);
        look(fd);
        if (prots[i / 2] != PROT_NONE)
            change(fd);
        begin(fd, prots[i / 2]);
        /* What is not mapped is refused as ever. */
        CHECK(pread(fd, copy, PAGE, 4096) == -1 && errno == EIO);
        CHECK(pwrite(fd, copy, PAGE, 4096) == -1 && errno == EIO);
        CHECK(!close(fd));
    }
    CHECK(!mprotect(base, pages * PAGE, PROT_READ));
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "in the end", i);
    puts("right");
    return 0;
}
