/* own_memory MIB: exports memory functions of its own, which look at memory of the program,
 * as those of a sanitizer look at what they know of each address. Nobody but the program and
 * its libraries may call them. */
#include "common.h"

#define KNOWN (16 * MIB)

static volatile unsigned char *known;

static void look(const void *at, size_t len)
{
    if (known && len) {
        (void)known[((uintptr_t)at >> 3) % KNOWN];
        (void)known[(((uintptr_t)at + len - 1) >> 3) % KNOWN];
    }
}

void *memcpy(void *to, const void *from, size_t len)
{
    look(to, len);
    look(from, len);
    volatile char *a = to;
    const char *b = from;
    while (len--)
        *a++ = *b++;
    return to;
}

void *memmove(void *to, const void *from, size_t len)
{
    if ((uintptr_t)to - (uintptr_t)from >= len)
        return memcpy(to, from, len);
    volatile char *a = to;
    const char *b = from;
    while (len--)
        a[len] = b[len];
    return to;
}

void *memset(void *to, int value, size_t len)
{
    look(to, len);
    volatile char *a = to;
    while (len--)
        *a++ = value;
    return to;
}

int memcmp(const void *one, const void *other, size_t len)
{
    const volatile unsigned char *a = one, *b = other;
    look(one, len);
    for (; len--; a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

size_t strlen(const char *text)
{
    const volatile char *end = text;
    while (*end)
        end++;
    look(text, end - text);
    return end - text;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    unsigned long pages = strtoul(argv[1], NULL, 10) * MIB / PAGE;
    known = mmap(NULL, KNOWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(known != MAP_FAILED);
    for (unsigned long i = 0; i < KNOWN; i += PAGE)
        known[i] = 1;
    char *base = malloc(pages * PAGE);
    CHECK(base);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (int round = 0; round < 3; round++)
        for (unsigned long i = 0; i < pages; i++) {
            char copy[PAGE];
            memcpy(copy, base + i * PAGE, PAGE);
            check_page(copy, i + 1, "a copy", i);
        }
    puts("right");
    return 0;
}
