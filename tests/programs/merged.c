/* merged MIB [all]: memory of which the kernel merges equal pages (KSM) while some of it leaves. A
 * merged page is shared with others and read-only until it is written to. As root; others
 * just have the memory. */
#include "common.h"
#include <sys/file.h>
#include <sys/prctl.h>

enum { KINDS = 64, ROUNDS = 3, PATIENCE_MS = 3000 };

static unsigned long pages;
static char *base;

static long number_in(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atol(text) : -1;
}

static int set(const char *path, long value)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%ld", value);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, len);
    close(fd);
    return n == len ? 0 : -1;
}

static const char *const settings[] = {
    "/sys/kernel/mm/ksm/pages_to_scan",
    "/sys/kernel/mm/ksm/sleep_millisecs",
    "/sys/kernel/mm/ksm/run",
};
static long before[3];

/* Has the kernel merge, and nobody else set that. Returns the lock, or -1. */
static int begin(void)
{
    static const long wanted[3] = { 20000, 1, 1 };
    int lock = open(settings[2], O_RDWR | O_CLOEXEC);
    if (lock < 0)
        return -1;
    CHECK(!flock(lock, LOCK_EX));
    for (int n = 0; n < 3; n++) {
        before[n] = number_in(settings[n]);
        CHECK(!set(settings[n], wanted[n]));
    }
    return lock;
}

static void end(int lock)
{
    for (int n = 2; n >= 0; n--)
        CHECK(!set(settings[n], before[n]));
    close(lock);
}

static uint64_t kind_of(unsigned long page, int round)
{
    return 1 + (page + (page % 3 ? 0 : round)) % KINDS;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    int lock = begin();
    /* PR_SET_MEMORY_MERGE: the kernel merges all memory, from Linux 6.4 on. */
    if (argc > 2 && !strcmp(argv[2], "all"))
        CHECK(!prctl(67, 1, 0, 0, 0) || errno == EINVAL || errno == EPERM);
    base = map_anonymous(pages * PAGE);
    CHECK(!madvise(base, pages * PAGE, MADV_MERGEABLE) || errno == EINVAL);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, kind_of(i, 0));
    for (int round = 0; round < ROUNDS; round++) {
        /* Where pages leave all the time, few stay long enough to be merged. */
        for (int ms = 0; lock >= 0 && ms < PATIENCE_MS / ROUNDS; ms += 10) {
            if (number_in("/proc/self/ksm_merging_pages") > (long)pages / 4)
                break;
            usleep(10000);
        }
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, kind_of(i, round), "merged", i);
        for (unsigned long i = 0; i < pages; i += 3)
            fill_page(base + i * PAGE, kind_of(i, round + 1));
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, kind_of(i, ROUNDS), "end", i);
    if (lock >= 0)
        end(lock);
    puts("right");
    return 0;
}
