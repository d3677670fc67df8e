/* debugged MIB [FILE]: a program for debuggers: its memory is elsewhere. It says where that is,
 * writes a copy of it to FILE, and waits until a debugger sets `go`; then it goes on by
 * `stop_here` to the right result. */
#include "common.h"
#include <sys/prctl.h>

volatile int go;
unsigned long pages;
unsigned long *base;

/* For the debugger to call. */
unsigned long sum_of(unsigned long from, unsigned long to)
{
    unsigned long sum = 0;
    for (unsigned long page = from; page < to; page++)
        sum += base[page * (PAGE / sizeof *base) + page % 512];
    return sum;
}

__attribute__((noinline)) void stop_here(unsigned long page)
{
    __asm__ volatile("" : : "r"(page));
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    base = (unsigned long *)map_filled(pages);
    prctl(PR_SET_PTRACER, -1, 0, 0, 0);
    if (argc > 2) {
        int fd = open(argv[2], O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0);
        for (unsigned long page = 0; page < pages; page++)
            CHECK(write(fd, (char *)base + page * PAGE, PAGE) == PAGE);
        close(fd);
    }
    until_elsewhere((char *)base);
    printf("%p %lu\n", (void *)base, pages);
    fflush(stdout);
    while (!go)
        usleep(1000);
    for (unsigned long page = 0; page < pages; page += 1000)
        stop_here(page);
    /* A debugger has written this one. */
    if (base[5] == 4711)
        fill_page((char *)base, 1);
    for (unsigned long i = 0; i < pages; i++)
        check_page((char *)base + i * PAGE, i + 1, "at the end", i);
    puts("right");
    return 0;
}
