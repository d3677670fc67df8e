/* fill MIB MODE [THREADS] [PASSES]: fills memory, then checks it PASSES times.
 * MODE: seq | random (order of the checks) | fast (fills with memset, several
 * times over, before the real fill) | pause (waits for a line in between). */
#include "common.h"

struct part {
    char *base;
    unsigned long first, pages, passes;
    int random, fast;
    uint64_t sum;
};

static void *fill_part(void *arg)
{
    struct part *p = arg;
    if (p->fast)
        memset(p->base + p->first * PAGE, 0xa5, p->pages * PAGE);
    for (unsigned long i = p->first; i < p->first + p->pages; i++)
        fill_page(p->base + i * PAGE, i + 1);
    return NULL;
}

static void *check_part(void *arg)
{
    struct part *p = arg;
    uint64_t state = p->first + 17;
    for (unsigned long pass = 0; pass < p->passes; pass++)
        for (unsigned long n = 0; n < p->pages; n++) {
            unsigned long i = p->first + (p->random ? next_random(&state) % p->pages : n);
            p->sum += check_page(p->base + i * PAGE, i + 1, "fill", i);
        }
    return NULL;
}

static void in_threads(void *(*work)(void *), struct part *parts, unsigned long threads)
{
    pthread_t ids[64];
    for (unsigned long t = 1; t < threads; t++)
        CHECK(!pthread_create(&ids[t], NULL, work, &parts[t]));
    work(&parts[0]);
    for (unsigned long t = 1; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    const char *mode = argc > 2 ? argv[2] : "seq";
    unsigned long threads = argument(argc, argv, 3, 1);
    unsigned long passes = argument(argc, argv, 4, 2);
    struct part parts[64] = { 0 };
    uint64_t sum = 0;

    CHECK(threads >= 1 && threads <= 64);
    char *base = map_anonymous(pages * PAGE);
    for (unsigned long t = 0; t < threads; t++) {
        unsigned long first = pages * t / threads;
        parts[t] = (struct part){ .base = base, .first = first,
                                  .pages = pages * (t + 1) / threads - first, .passes = passes,
                                  .random = !strcmp(mode, "random"), .fast = !strcmp(mode, "fast") };
    }
    in_threads(fill_part, parts, threads);
    if (!strcmp(mode, "pause"))
        stage("filled");
    in_threads(check_part, parts, threads);
    for (unsigned long t = 0; t < threads; t++)
        sum += parts[t].sum;
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
