/* family together CHILDREN MIB: each child fills MIB and keeps it until all
 * have; then each checks it.
 * family idle MIB: one child fills MIB and waits; another fills as much and
 * walks over it again and again, until most of it is resident at once. Then the
 * first checks its own. Prints how each ended.
 * family shared CHILDREN MIB OWN: each child touches all of MIB that they share, and
 * fills OWN MIB of its own; all keep it for a while.
 * family apart PROCESSES MIB FILE: one of so many processes that do not know each other
 * but by a byte that each adds to FILE: it fills MIB, waits for the others to have done
 * so, and checks. */
#include "common.h"
#include <sys/prctl.h>
#include <sys/wait.h>

static char *filled(unsigned long pages, unsigned long seed)
{
    char *base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, seed + i);
    return base;
}

static void check_all(char *base, unsigned long pages, unsigned long seed)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, seed + i, "child", i);
}

static unsigned long resident_pages(void)
{
    unsigned long size, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%lu %lu", &size, &resident) == 2);
    fclose(file);
    return resident;
}

/* What one child tells the parent, and what it waits for. */
static int told[2], word[2];

static void tell(void)
{
    CHECK(write(told[1], "x", 1) == 1);
}

static void hear(int fd)
{
    char byte;
    CHECK(read(fd, &byte, 1) == 1);
}

static void ended(pid_t pid, const char *who)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status))
        printf("%s: %d\n", who, WEXITSTATUS(status));
    else
        printf("%s: signal %d\n", who, WTERMSIG(status));
}

/* A child that ends before it was told to. */
static void too_early(int signal)
{
    static const char text[] = "a child was ended\n";
    (void)signal;
    _exit(write(2, text, sizeof text - 1) > 0 ? 3 : 4);
}

static void together(unsigned long children, unsigned long pages)
{
    pid_t pids[64];
    CHECK(children <= 64);
    CHECK(signal(SIGCHLD, too_early) != SIG_ERR);
    for (unsigned long n = 0; n < children; n++) {
        pids[n] = fork();
        CHECK(pids[n] >= 0);
        if (pids[n] == 0) {
            signal(SIGCHLD, SIG_DFL);
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            unsigned long seed = 1 + n * pages;
            char *base = filled(pages, seed);
            tell();
            hear(word[0]);
            check_all(base, pages, seed);
            _exit(0);
        }
    }
    for (unsigned long n = 0; n < children; n++)
        hear(told[0]);
    signal(SIGCHLD, SIG_DFL);
    for (unsigned long n = 0; n < children; n++)
        CHECK(write(word[1], "x", 1) == 1);
    for (unsigned long n = 0; n < children; n++)
        ended(pids[n], "child");
}

static void idle(unsigned long pages)
{
    pid_t first = fork();
    CHECK(first >= 0);
    if (first == 0) {
        char *base = filled(pages, 1);
        tell();
        hear(word[0]);
        check_all(base, pages, 1);
        _exit(0);
    }
    hear(told[0]);
    pid_t second = fork();
    CHECK(second >= 0);
    if (second == 0) {
        char *base = filled(pages, 1 + pages);
        int walks = 0;
        do
            check_all(base, pages, 1 + pages);
        while (resident_pages() < pages / 8 * 7 && walks++ < 3000);
        _exit(walks < 3000 ? 0 : 2);
    }
    ended(second, "the one that works");
    CHECK(write(word[1], "x", 1) == 1);
    ended(first, "the one that waits");
}

static void shared(unsigned long children, unsigned long pages, unsigned long own)
{
    pid_t pids[64];
    CHECK(children <= 64);
    char *base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    for (unsigned long n = 0; n < children; n++) {
        pids[n] = fork();
        CHECK(pids[n] >= 0);
        if (pids[n] == 0) {
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            char *mine = filled(own, 1 + n * own);
            for (unsigned long i = 0; i < pages; i++)
                __atomic_fetch_add((uint64_t *)(base + i * PAGE), 1, __ATOMIC_RELAXED);
            tell();
            hear(word[0]);
            check_all(mine, own, 1 + n * own);
            _exit(0);
        }
    }
    for (unsigned long n = 0; n < children; n++)
        hear(told[0]);
    /* So long that each engine has looked several times. */
    usleep(500000);
    for (unsigned long n = 0; n < children; n++)
        CHECK(write(word[1], "x", 1) == 1);
    for (unsigned long n = 0; n < children; n++)
        ended(pids[n], "child");
    for (unsigned long i = 0; i < pages; i++)
        CHECK(*(uint64_t *)(base + i * PAGE) == children);
}

static void apart(off_t processes, unsigned long pages, const char *name)
{
    char *base = filled(pages, 1);
    int file = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    CHECK(file >= 0 && write(file, "x", 1) == 1);
    for (off_t size = 0; size < processes;) {
        check_all(base, pages, 1);
        size = lseek(file, 0, SEEK_END);
        CHECK(size >= 0);
    }
    check_all(base, pages, 1);
}

int main(int argc, char **argv)
{
    CHECK(pipe(told) == 0 && pipe(word) == 0);
    if (argc > 1 && !strcmp(argv[1], "together"))
        together(argument(argc, argv, 2, 4), argument(argc, argv, 3, 64) * MIB / PAGE);
    else if (argc > 1 && !strcmp(argv[1], "shared"))
        shared(argument(argc, argv, 2, 8), argument(argc, argv, 3, 32) * MIB / PAGE,
               argument(argc, argv, 4, 8) * MIB / PAGE);
    else if (argc > 4 && !strcmp(argv[1], "apart"))
        apart(argument(argc, argv, 2, 3), argument(argc, argv, 3, 64) * MIB / PAGE, argv[4]);
    else
        idle(argument(argc, argv, 2, 64) * MIB / PAGE);
    puts("done");
    return 0;
}
