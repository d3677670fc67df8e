/* rewrite MIB OPERATIONS [THREADS]: reads pages at random and writes most of
 * them anew, so that pages leave and come back while they are being written to
 * servers. A page that comes back as it was before its last change is found by
 * its version. */
#include "common.h"

struct part {
    char *base;
    uint32_t *versions;
    unsigned long pages, operations, first;
    uint64_t sum;
};

static void *work(void *arg)
{
    struct part *p = arg;
    uint64_t state = p->first + 1;
    for (unsigned long n = 0; n < p->operations; n++) {
        uint64_t r = next_random(&state);
        /* Half of the time among a few pages, which thus change often. */
        unsigned long i = (r & 1 ? (r >> 8) % p->pages : (r >> 8) % (p->pages / 16 + 1));
        uint64_t id = (p->first + i) << 24;
        uint64_t *words = (uint64_t *)(p->base + i * PAGE);
        uint64_t want = p->versions[i] ? mix(id + p->versions[i]) : 0;
        for (unsigned long at = 0; at < WORDS; at += 37)
            if (words[at] != want)
                fail("rewrite: page %lu word %lu, version %u: %016lx instead of %016lx", i, at,
                     p->versions[i], (unsigned long)words[at], (unsigned long)want);
        p->sum = p->sum * 31 + want;
        if (r & 6) {
            want = mix(id + ++p->versions[i]);
            for (unsigned long at = 0; at < WORDS; at++)
                words[at] = want;
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long operations = argument(argc, argv, 2, 200000);
    unsigned long threads = argument(argc, argv, 3, 1);
    struct part parts[64] = { 0 };
    pthread_t ids[64];
    uint64_t sum = 0;
    CHECK(threads >= 1 && threads <= 64);
    char *base = map_anonymous(pages * PAGE);
    uint32_t *versions = map_anonymous(pages * sizeof *versions);
    for (unsigned long t = 0; t < threads; t++) {
        unsigned long first = pages * t / threads;
        parts[t] = (struct part){ .base = base + first * PAGE, .versions = versions + first,
                                  .pages = pages * (t + 1) / threads - first,
                                  .operations = operations / threads, .first = first };
        CHECK(!pthread_create(&ids[t], NULL, work, &parts[t]));
    }
    for (unsigned long t = 0; t < threads; t++) {
        CHECK(!pthread_join(ids[t], NULL));
        sum += parts[t].sum;
    }
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
