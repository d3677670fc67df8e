/* self_mem MIB: a program reads and writes its own memory by /proc/self/mem, as
 * makers of code do: what is elsewhere, what was never touched, what it may only read
 * or not even that; a word, a page, and several pages at once; by descriptors that were
 * duplicated, in a forked child, and while its memory leaves. */
#include "common.h"
#include <sys/uio.h>
#include <sys/wait.h>

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

/* To and from several places, also across the bounds of pages. */
static void parts(int fd)
{
    char copy[3 * PAGE];
    char head[100], *rest = copy + sizeof head;
    for (unsigned long i = 0; i + 4 < pages; i += pages / 7) {
        char *page = base + i * PAGE;
        struct iovec to[] = {{head, sizeof head}, {NULL, 0}, {rest, sizeof copy - sizeof head}};
        memset(copy, 1, sizeof copy);
        CHECK(preadv(fd, to, 3, at(page)) == sizeof copy);
        memcpy(copy, head, sizeof head);
        for (unsigned long j = 0; j < 3; j++)
            check_page(copy + j * PAGE, i + j + 1, "read in parts", i + j);
        for (unsigned long j = 0; j < 3; j++)
            fill_page(copy + j * PAGE, i + j + 700000);
        memcpy(head, copy, sizeof head);
        CHECK(lseek(fd, at(page), SEEK_SET) == at(page));
        CHECK(writev(fd, to, 3) == sizeof copy);
        CHECK(lseek(fd, 0, SEEK_CUR) == at(page) + (off_t)sizeof copy);
        for (unsigned long j = 0; j < 3; j++) {
            check_page(page + j * PAGE, i + j + 700000, "written in parts", i + j);
            fill_page(page + j * PAGE, i + j + 1);
        }
    }
    volatile int few = -1;
    char *volatile nowhere = (char *)8;
    CHECK(preadv(fd, NULL, few, 0) == -1 && errno == EINVAL);
    CHECK(pread(fd, nowhere, 64, at(base)) == -1 && errno == EFAULT);
}

/* Other numbers of the descriptor, and other files of its number. */
static void descriptors(int fd)
{
    uint64_t word;
    int twice = dup(fd), file = fileno(tmpfile());
    CHECK(twice >= 0 && file >= 0 && !ftruncate(file, 3 * PAGE));
    CHECK(pread(twice, &word, 8, at(base + 8)) == 8 && word == word_of(1, 1));
    CHECK(dup2(file, twice) == twice);
    CHECK(pread(twice, &word, 8, at(base + 8)) == 0);
    CHECK(pwrite(twice, "word", 4, 2 * PAGE) == 4 && pread(file, &word, 4, 2 * PAGE) == 4);
    CHECK(!close(twice) && !close(file));
}

/* A child has memory of its own, and may go on with its parent's as well. */
static void child(int parent)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        uint64_t word, mine = 4711;
        int fd = open("/proc/self/mem", O_RDWR);
        CHECK(fd >= 0);
        until_elsewhere(base + 3 * PAGE);
        CHECK(pwrite(fd, &mine, 8, at(base + 3 * PAGE)) == 8);
        CHECK(pread(fd, &word, 8, at(base + 3 * PAGE)) == 8 && word == mine);
        CHECK(*(volatile uint64_t *)(base + 3 * PAGE) == mine);
        CHECK(pread(parent, &word, 8, at(&word)) == 8);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && !status);
    check_page(base + 3 * PAGE, 4, "the parent's", 3);
}

/* What is written and read while pages leave. */
static void busy(int fd)
{
    uint64_t word, random = 1;
    for (uint64_t n = 1; n <= 20000; n++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        char *place = base + (random >> 33) % pages * PAGE + 16;
        uint64_t was = *(volatile uint64_t *)place;
        CHECK(pwrite(fd, &n, 8, at(place)) == 8);
        CHECK(pread(fd, &word, 8, at(place)) == 8 && word == n);
        CHECK(*(volatile uint64_t *)place == n);
        *(volatile uint64_t *)place = was;
        CHECK(pread(fd, &word, 8, at(place)) == 8 && word == was);
    }
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
        if (prots[i / 2] == (PROT_READ | PROT_WRITE)) {
            parts(fd);
            descriptors(fd);
            child(fd);
            busy(fd);
        }
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
