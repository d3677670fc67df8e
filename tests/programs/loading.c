/* loading MIB FOLDER LIBRARY: opens many copies of a library that has memory of
 * its own for each thread, with threads that use them, and closes some. */
#include "common.h"
#include <dlfcn.h>

#define COPIES 24
#define THREADS 3

typedef uint64_t *function(uint64_t);

static unsigned long pages;
static char *base;
static function *functions[COPIES];

static void copy(const char *from, const char *to)
{
    static char bytes[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    ssize_t n;
    CHECK(in >= 0 && out >= 0);
    while ((n = read(in, bytes, sizeof bytes)) > 0)
        CHECK(write(out, bytes, n) == n);
    CHECK(n == 0 && !close(in) && !close(out));
}

static void *use(void *arg)
{
    uint64_t number = (uintptr_t)arg, state = number;
    for (int round = 0; round < 40; round++)
        for (int c = 0; c < COPIES; c++) {
            uint64_t *own = functions[c](number);
            if (*own != number + round + 1)
                fail("thread %lu: %lu in round %d", number, *own, round);
            unsigned long i = next_random(&state) % pages;
            check_page(base + i * PAGE, i + 1, "memory", i);
        }
    return NULL;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    const char *folder = argc > 2 ? argv[2] : "/tmp";
    CHECK(argc > 3);
    base = map_filled(pages);
    until_elsewhere(base);
    void *handles[COPIES];
    for (int c = 0; c < COPIES; c++) {
        char path[512];
        snprintf(path, sizeof path, "%s/loading-%d.so", folder, c);
        copy(argv[3], path);
        handles[c] = dlopen(path, c % 2 ? RTLD_NOW : RTLD_LAZY);
        if (!handles[c])
            fail("%s", dlerror());
        functions[c] = (function *)dlsym(handles[c], "count");
        CHECK(functions[c] && !unlink(path));
        check_page(base + c * PAGE, c + 1, "while libraries are loaded", c);
    }
    pthread_t ids[THREADS];
    for (uintptr_t t = 0; t < THREADS; t++)
        CHECK(!pthread_create(&ids[t], NULL, use, (void *)(t * 1000)));
    for (int t = 0; t < THREADS; t++)
        CHECK(!pthread_join(ids[t], NULL));
    for (int c = 0; c < COPIES; c += 3)
        CHECK(!dlclose(handles[c]));
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "end", i);
    puts("right");
    return 0;
}
