/* sparse GIB TOUCHES: one allocation larger than the machine's memory, touched
 * here and there. */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long bytes = argument(argc, argv, 1, 64) << 30;
    unsigned long touches = argument(argc, argv, 2, 20000);
    char *base = malloc(bytes);
    uint64_t sum = 0;
    if (!base)
        fail("malloc of %lu bytes: %s", bytes, strerror(errno));
    unsigned long stride = bytes / touches & ~7ul;
    for (unsigned long n = 0; n < touches; n++)
        *(uint64_t *)(base + n * stride) = mix(n);
    for (unsigned long n = 0; n < touches; n++) {
        uint64_t got = *(uint64_t *)(base + n * stride);
        if (got != mix(n))
            fail("touch %lu: %016lx instead of %016lx", n, (unsigned long)got,
                 (unsigned long)mix(n));
        sum += got;
    }
    free(base);
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
