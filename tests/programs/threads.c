/* threads MIB THREADS STEPS: threads walk at random over shared memory, every
 * page under the mutex of its stripe; a pair of them hands pages to each other
 * over a condition variable. Prints a checksum that depends on the arguments
 * alone. */
#include "common.h"

#define STRIPES 64

static unsigned long pages, steps;
static uint64_t *counts; /* one page each: word 0 counts, the rest follows it */
static pthread_mutex_t stripes[STRIPES];

static void *walk(void *arg)
{
    uint64_t state = (uintptr_t)arg * 1000003;
    for (unsigned long n = 0; n < steps; n++) {
        unsigned long i = next_random(&state) % pages;
        uint64_t *page = counts + i * WORDS;
        pthread_mutex_lock(&stripes[i % STRIPES]);
        uint64_t count = page[0];
        unsigned long probe = 1 + (n % (WORDS - 1));
        if (page[probe] != (count ? mix(count * WORDS + probe) : 0))
            fail("thread %lu step %lu: page %lu word %lu does not follow count %lu",
                 (unsigned long)(uintptr_t)arg, n, i, probe, (unsigned long)count);
        page[0] = ++count;
        for (unsigned long at = 1; at < WORDS; at++)
            page[at] = mix(count * WORDS + at);
        pthread_mutex_unlock(&stripes[i % STRIPES]);
    }
    return NULL;
}

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    char *page;
    uint64_t number;
    int full, over;
} hand = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0, 0 };

static void *taker(void *arg)
{
    uint64_t *sum = arg;
    pthread_mutex_lock(&hand.mutex);
    for (;;) {
        while (!hand.full && !hand.over)
            pthread_cond_wait(&hand.changed, &hand.mutex);
        if (!hand.full)
            break;
        *sum += check_page(hand.page, hand.number, "handed over", hand.number);
        hand.full = 0;
        pthread_cond_broadcast(&hand.changed);
    }
    pthread_mutex_unlock(&hand.mutex);
    return NULL;
}

static void hand_over(char *ring, unsigned long ring_pages)
{
    for (unsigned long n = 0; n < ring_pages * 2; n++) {
        char *page = ring + n % ring_pages * PAGE;
        fill_page(page, n + 1);
        pthread_mutex_lock(&hand.mutex);
        while (hand.full)
            pthread_cond_wait(&hand.changed, &hand.mutex);
        hand.page = page;
        hand.number = n + 1;
        hand.full = 1;
        pthread_cond_broadcast(&hand.changed);
        pthread_mutex_unlock(&hand.mutex);
    }
    pthread_mutex_lock(&hand.mutex);
    hand.over = 1;
    pthread_cond_broadcast(&hand.changed);
    pthread_mutex_unlock(&hand.mutex);
}

int main(int argc, char **argv)
{
    unsigned long threads = argument(argc, argv, 2, 4);
    pthread_t ids[64], taking;
    uint64_t sum = 0, taken = 0;

    CHECK(threads >= 1 && threads <= 64);
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    steps = argument(argc, argv, 3, 20000);
    unsigned long ring_pages = pages / 8;
    counts = map_anonymous(pages * PAGE);
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_init(&stripes[i], NULL);
    for (unsigned long t = 0; t < threads; t++)
        CHECK(!pthread_create(&ids[t], NULL, walk, (void *)(t + 1)));
    CHECK(!pthread_create(&taking, NULL, taker, &taken));
    hand_over(map_anonymous(ring_pages * PAGE), ring_pages);
    for (unsigned long t = 0; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    CHECK(!pthread_join(taking, NULL));
    for (unsigned long i = 0; i < pages; i++)
        sum = sum * 31 + counts[i * WORDS] * 3 + counts[i * WORDS + 5];
    printf("%016lx %016lx\n", (unsigned long)sum, (unsigned long)taken);
    return 0;
}
