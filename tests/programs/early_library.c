/* The library of `early`: functions that tmem interposes are called before the program
 * begins, by a function that chooses another one and by a constructor, and after it has
 * ended, by a destructor. */
#include "common.h"
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* How many of these calls are wrong. Nothing is printed: the C library may not be ready. */
static int call_all(void)
{
    struct rlimit limit;
    char text[16];
    int wrong = 0;
    char *p = malloc(100);
    wrong += !p;
    memset(p, 1, 100);
    p = realloc(p, 1 << 20);
    wrong += !p || p[99] != 1;
    free(p);
    p = calloc(1 << 18, 1);
    wrong += !p || p[1 << 17];
    free(p);
    p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    wrong += p == MAP_FAILED;
    *p = 1;
    wrong += madvise(p, PAGE, MADV_DONTNEED) || *(volatile char *)p;
    p = mremap(p, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    wrong += p == MAP_FAILED || munmap(p, 4 * PAGE);
    int fd = open("/proc/self/stat", O_RDONLY);
    wrong += fd < 0 || read(fd, text, 1) != 1 || pread(fd, text, 1, 0) != 1 || close(fd);
    wrong += getrlimit(RLIMIT_AS, &limit) != 0;
    wrong += prctl(PR_GET_DUMPABLE) < 0;
    wrong += syscall(SYS_getpid) != getpid();
    return wrong;
}

static int right(void)
{
    return 0;
}

static int not_right(void)
{
    return 1;
}

static int (*choose(void))(void)
{
    return call_all() ? not_right : right;
}

/* Nobody else sees it, so that it is chosen when this library is relocated: before libraries
 * that were named before it, as those are that are preloaded. */
__attribute__((visibility("hidden"))) int chosen(void) __attribute__((ifunc("choose")));

int of_choice(void)
{
    return chosen();
}

static int at_start = -1;

__attribute__((constructor)) static void begin(void)
{
    at_start = call_all();
}

int of_constructor(void)
{
    return at_start;
}

__attribute__((destructor)) static void end(void)
{
    if (call_all())
        fail("calls of the destructor");
}
