/* inspected MIB: another process attaches to this one, as debuggers do, and reads
 * and writes its memory through the kernel: by `ptrace` and by `/proc/PID/mem`.
 * Memory that is elsewhere may be refused, but is never seen wrong. */
#include "common.h"
#include <sys/ptrace.h>
#include <sys/wait.h>

static unsigned long pages;
static char *base;

/* What a page holds is its index + 1, or an error of the kernel's. */
static void look_through_file(int fd, char *at, unsigned long i)
{
    char copy[PAGE];
    ssize_t n = pread(fd, copy, PAGE, (off_t)(uintptr_t)at);
    if (n == (ssize_t)PAGE)
        check_page(copy, i + 1, "/proc/PID/mem", i);
    else
        CHECK(n == -1 && errno == EIO);
}

/* Says through `tell` how many pages it wrote to. */
static int inspect(pid_t pid, char *at, unsigned long count, int tell)
{
    unsigned long poked = 0;
    char path[64];
    int status;
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK(!ptrace(PTRACE_ATTACH, pid, NULL, NULL));
    CHECK(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status));
    for (unsigned long i = 0; i < count; i += 7) {
        look_through_file(fd, at + i * PAGE, i);
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, pid, at + i * PAGE + 8, NULL);
        if (errno)
            CHECK(errno == EIO || errno == EFAULT);
        else
            CHECK((uint64_t)word == word_of(i + 1, 1));
        poked += !ptrace(PTRACE_POKEDATA, pid, at + i * PAGE, 42L);
    }
    CHECK(write(tell, &poked, sizeof poked) == sizeof poked);
    CHECK(!ptrace(PTRACE_DETACH, pid, NULL, NULL));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "inspect"))
        return inspect(atoi(argv[2]), (char *)strtoul(argv[3], NULL, 0),
                       strtoul(argv[4], NULL, 0), atoi(argv[5]));
    int told[2];
    CHECK(!pipe(told));
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    base = map_filled(pages);
    until_elsewhere(base);
    pid_t parent = getpid(), child = vfork();
    if (child == 0) {
        char pid[32], address[32], count[32], tell[32];
        snprintf(pid, sizeof pid, "%d", parent);
        snprintf(address, sizeof address, "%lu", (unsigned long)base);
        snprintf(count, sizeof count, "%lu", pages);
        snprintf(tell, sizeof tell, "%d", told[1]);
        execl("/proc/self/exe", "inspected", "inspect", pid, address, count, tell,
              (char *)NULL);
        _exit(1);
    }
    int status;
    while (waitpid(child, &status, 0) != child)
        CHECK(errno == EINTR);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    unsigned long poked, found = 0;
    CHECK(read(told[0], &poked, sizeof poked) == sizeof poked);
    for (unsigned long i = 0; i < pages; i++) {
        uint64_t *word = (uint64_t *)(base + i * PAGE);
        if (i % 7 == 0 && *word == 42) {
            found++;
            *word = word_of(i + 1, 0);
        }
        check_page(base + i * PAGE, i + 1, "inspected", i);
    }
    CHECK(found == poked);
    puts("right");
    return 0;
}
