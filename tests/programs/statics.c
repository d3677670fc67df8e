/* statics: the program's own large arrays, the break, and threads with large
 * stacks, all larger than the budget. */
#include "common.h"

#define ARRAY_PAGES (48ul * MIB / PAGE)
#define STACK_BYTES (24ul * MIB)

static char array[ARRAY_PAGES * PAGE] __attribute__((aligned(4096)));

static unsigned long recurse(unsigned long depth)
{
    volatile unsigned long frame[256];
    for (int i = 0; i < 256; i++)
        frame[i] = depth * 256 + i;
    unsigned long below = depth ? recurse(depth - 1) : 0;
    for (int i = 0; i < 256; i++)
        if (frame[i] != depth * 256 + i)
            fail("depth %lu: the stack changed", depth);
    return below + frame[depth % 256];
}

static void *deep(void *arg)
{
    *(unsigned long *)arg = recurse(STACK_BYTES / 2 / (256 * 8) * 3 / 2);
    return NULL;
}

int main(void)
{
    pthread_attr_t attr;
    pthread_t ids[2];
    unsigned long results[2];
    /* malloc gets its piece of the break first, and does with it. */
    CHECK(malloc(1));
    char *heap = sbrk(ARRAY_PAGES * PAGE + PAGE);
    CHECK(heap != (void *)-1);
    heap = (char *)(((uintptr_t)heap + PAGE - 1) & ~(PAGE - 1));
    for (unsigned long i = 0; i < ARRAY_PAGES; i++) {
        fill_page(array + i * PAGE, i + 1);
        fill_page(heap + i * PAGE, i + 77777777);
    }
    CHECK(!pthread_attr_init(&attr));
    CHECK(!pthread_attr_setstacksize(&attr, STACK_BYTES));
    for (int t = 0; t < 2; t++)
        CHECK(!pthread_create(&ids[t], &attr, deep, &results[t]));
    for (int pass = 0; pass < 2; pass++)
        for (unsigned long i = 0; i < ARRAY_PAGES; i++) {
            check_page(array + i * PAGE, i + 1, "array", i);
            check_page(heap + i * PAGE, i + 77777777, "break", i);
        }
    for (int t = 0; t < 2; t++)
        CHECK(!pthread_join(ids[t], NULL));
    /* The break goes back half way and forth again: zeros there. */
    CHECK(!brk(heap + ARRAY_PAGES / 2 * PAGE));
    CHECK(!brk(heap + ARRAY_PAGES * PAGE));
    for (unsigned long i = 0; i < ARRAY_PAGES; i++)
        check_page(heap + i * PAGE, i < ARRAY_PAGES / 2 ? i + 77777777 : 0, "new break", i);
    printf("%lu %lu\n", results[0], results[1]);
    return 0;
}
