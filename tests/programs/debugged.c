/* debugged MIB [WHAT [FILE]]: a program for debuggers, most of whose memory is elsewhere. It
 * writes a copy of its memory to FILE, says where the memory is, and goes on as WHAT says:
 * `wait` until a debugger sets `go`, and then by `stop_here` to the right result; `go` there
 * at once; `crash`. */
#include "common.h"
#include <sys/prctl.h>
#include <sys/resource.h>

volatile int go;
unsigned long pages;
volatile unsigned long *base;

/* For the debugger to call. */
unsigned long sum_of(unsigned long from, unsigned long to)
{
    unsigned long sum = 0;
    for (unsigned long page = from; page < to; page++)
        sum += base[page * WORDS + page % WORDS];
    return sum;
}

__attribute__((noinline)) void stop_here(unsigned long page)
{
    __asm__ volatile("" : : "r"(page));
}

static void copy_to(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0);
    for (unsigned long page = 0; page < pages; page++)
        CHECK(write(fd, (char *)base + page * PAGE, PAGE) == PAGE);
    close(fd);
}

static void crash(void)
{
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_CORE, &limit));
    limit.rlim_cur = getenv("NO_CORE") ? 0 : limit.rlim_max;
    CHECK(!setrlimit(RLIMIT_CORE, &limit));
    abort();
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "wait";
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    base = (unsigned long *)map_filled(pages);
    prctl(PR_SET_PTRACER, -1, 0, 0, 0);
    if (argc > 3)
        copy_to(argv[3]);
    printf("%p %lu\n", (void *)base, pages);
    fflush(stdout);
    if (!strcmp(what, "crash"))
        crash();
    while (!go && strcmp(what, "go"))
        usleep(1000);
    for (unsigned long page = 0; page < pages; page += 1000)
        stop_here(page);
    /* A debugger may watch the last word. */
    base[pages * WORDS - 1] ^= 1;
    base[pages * WORDS - 1] ^= 1;
    /* A debugger has written this one. */
    if (base[5] == 4711)
        fill_page((char *)base, 1);
    for (unsigned long i = 0; i < pages; i++)
        check_page((char *)base + i * PAGE, i + 1, "at the end", i);
    puts("right");
    return 0;
}
