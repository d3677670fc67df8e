/* fork_storm MIB THREADS FORKS: forks again and again while threads change
 * memory, map and unmap some, and take malloc's locks. Each child checks memory
 * that nobody changes and memory whose state is known at the fork, changes
 * some, and now and then has a child of its own. Prints "right". */
#include "common.h"
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>

#define STRIPES 16
#define AT_ONCE 3

extern char **environ;

static unsigned long pages;
static char *still, *moving;
static uint64_t *numbers; /* of the pages of `moving` */
static pthread_mutex_t stripes[STRIPES];
static volatile int stop;

static void *change(void *arg)
{
    uint64_t state = (uintptr_t)arg * 7919;
    while (!stop) {
        unsigned long i = next_random(&state) % pages;
        pthread_mutex_lock(&stripes[i % STRIPES]);
        check_page(moving + i * PAGE, numbers[i], "changing", i);
        numbers[i] = next_random(&state) % 64 ? next_random(&state) : 0;
        if (numbers[i])
            fill_page(moving + i * PAGE, numbers[i]);
        else
            CHECK(!madvise(moving + i * PAGE, PAGE, MADV_DONTNEED));
        pthread_mutex_unlock(&stripes[i % STRIPES]);
    }
    return NULL;
}

static void *map(void *arg)
{
    uint64_t state = (uintptr_t)arg * 104729;
    while (!stop) {
        unsigned long n = 1 + next_random(&state) % 64;
        char *own = map_anonymous(n * PAGE);
        for (unsigned long i = 0; i < n; i++)
            fill_page(own + i * PAGE, i + 1);
        if (next_random(&state) % 2) {
            own = mremap(own, n * PAGE, (n + 64) * PAGE, MREMAP_MAYMOVE);
            CHECK(own != MAP_FAILED);
            check_page(own + n * PAGE, 0, "grown", n);
            n += 64;
        }
        char *block = calloc(1, n * PAGE);
        CHECK(block);
        for (unsigned long i = 0; i < n * PAGE; i += PAGE / 2)
            if (block[i])
                fail("calloc: byte %lu is %d", i, block[i]);
        memset(block, 1, n * PAGE);
        sched_yield();
        check_page(own, 1, "mapped", 0);
        CHECK(!munmap(own, n * PAGE));
        free(block);
    }
    return NULL;
}

static void check_all(const char *who, unsigned long step)
{
    for (unsigned long i = 0; i < pages; i += step) {
        check_page(still + i * PAGE, i + 1, who, i);
        check_page(moving + i * PAGE, numbers[i], who, i);
    }
}

static void wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
        fail("a child ended with status %x", status);
}

static int child(void *arg)
{
    unsigned long n = (uintptr_t)arg;
    check_all("child", 1 + n % 5);
    for (unsigned long i = n % 3; i < pages; i += 3)
        fill_page(still + i * PAGE, i + 1000000);
    /* After _Fork and clone the C library's locks are as they were. */
    if (n % 3 != 2)
        _exit(42);
    if (n % 2) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            for (unsigned long i = 0; i < pages; i += 2)
                check_page(still + i * PAGE, i % 3 == n % 3 ? i + 1000000 : i + 1, "grandchild", i);
            _exit(42);
        }
        wait_for(pid);
    }
    free(malloc(100000));
    for (unsigned long i = 0; i < pages; i++)
        check_page(still + i * PAGE, i % 3 == n % 3 ? i + 1000000 : i + 1, "child later", i);
    _exit(42);
}

static pid_t start(unsigned long n)
{
    for (int s = 0; s < STRIPES; s++)
        pthread_mutex_lock(&stripes[s]);
    pid_t pid;
    switch (n % 3) {
    case 0:
        pid = _Fork();
        break;
    case 1: {
        static char stack[64 * 1024];
        pid = clone(child, stack + sizeof stack, SIGCHLD, (void *)n);
        break;
    }
    default:
        pid = fork();
    }
    if (pid == 0)
        child((void *)n);
    CHECK(pid > 0);
    for (int s = 0; s < STRIPES; s++)
        pthread_mutex_unlock(&stripes[s]);
    return pid;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE / 2;
    unsigned long threads = argument(argc, argv, 2, 2);
    unsigned long forks = argument(argc, argv, 3, 10);
    still = map_anonymous(pages * PAGE);
    moving = map_anonymous(pages * PAGE);
    numbers = calloc(pages, sizeof *numbers);
    for (unsigned long i = 0; i < pages; i++) {
        fill_page(still + i * PAGE, i + 1);
        numbers[i] = i + 1;
        fill_page(moving + i * PAGE, i + 1);
    }
    for (int s = 0; s < STRIPES; s++)
        pthread_mutex_init(&stripes[s], NULL);
    pthread_t ids[2 * threads];
    for (unsigned long t = 0; t < threads; t++) {
        CHECK(!pthread_create(&ids[2 * t], NULL, change, (void *)(t + 1)));
        CHECK(!pthread_create(&ids[2 * t + 1], NULL, map, (void *)(t + 1)));
    }
    pid_t running[AT_ONCE] = {0};
    for (unsigned long n = 0; n < forks; n++) {
        pid_t *slot = &running[n % AT_ONCE];
        if (*slot)
            wait_for(*slot);
        *slot = start(n);
        if (n % 5 == 0) {
            pid_t other;
            char *words[] = {"sh", "-c", "exit 42", NULL};
            CHECK(!posix_spawnp(&other, "sh", NULL, NULL, words, environ));
            wait_for(other);
            CHECK(system("exit 0") == 0);
        }
    }
    for (int i = 0; i < AT_ONCE; i++)
        if (running[i])
            wait_for(running[i]);
    stop = 1;
    for (unsigned long t = 0; t < 2 * threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    check_all("end", 1);
    puts("right");
    return 0;
}
