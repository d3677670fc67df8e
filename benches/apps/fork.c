/* fork MIB FORKS: fills memory and forks again and again; each child reads some
 * pages here and there, and the parent writes some before the next. Prints the
 * medians in microseconds: until fork has returned, until the first read is done in
 * the child, and until the child is gone. Status 1 where a child reads wrong data. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, READS = 50, WRITES = 500, MOST = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *of, int n)
{
    qsort(of, n, sizeof *of, by_size);
    return of[n / 2];
}

static uint64_t word(size_t page, size_t at)
{
    return (page * 512 + at) * 0x9e3779b97f4a7c15;
}

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) * 256 : 0;
    int forks = argc > 2 ? atoi(argv[2]) : 0;
    static double forked[MOST], read_first[MOST], gone[MOST];
    if (!pages || forks < 1 || forks > MOST)
        return 2;
    /* A word that the children share with their parent. */
    double *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || shared == MAP_FAILED)
        return 2;
    for (size_t page = 0; page < pages; page++)
        for (size_t at = 0; at < 512; at++)
            memory[page * 512 + at] = word(page, at);
    uint64_t random = 1;
    for (int i = 0; i < forks; i++) {
        for (int j = 0; j < WRITES; j++) {
            random = random * 6364136223846793005 + 1442695040888963407;
            memory[(random >> 33) % pages * 512 + 1]++;
        }
        double start = now();
        pid_t child = fork();
        if (child < 0)
            return 2;
        if (child == 0) {
            int wrong = 0;
            for (int j = 0; j < READS; j++) {
                random = random * 6364136223846793005 + 1442695040888963407;
                size_t page = (random >> 33) % pages;
                wrong |= memory[page * 512] != word(page, 0);
                if (j == 0)
                    *shared = now();
            }
            _exit(wrong);
        }
        forked[i] = now() - start;
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "a child ended with %x\n", status);
            return 1;
        }
        gone[i] = now() - start;
        read_first[i] = *shared - start;
    }
    printf("%.0f %.0f %.0f\n", median(forked, forks), median(read_first, forks), median(gone, forks));
    return 0;
}
