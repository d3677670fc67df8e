/* heap MIB: small blocks of malloc, which lie in a heap that the C library extends
 * bit by bit and that nobody hears of, are filled as fast as they come; then each is
 * looked at. */
#include "common.h"

#define SIZE 984ul

int main(int argc, char **argv)
{
    unsigned long count = argument(argc, argv, 1, 64) * MIB / (SIZE + 16);
    char **blocks = malloc(count * sizeof *blocks);

    CHECK(blocks);
    for (unsigned long i = 0; i < count; i++) {
        CHECK((blocks[i] = malloc(SIZE)));
        memset(blocks[i], (int)(mix(i) & 0x7f), SIZE);
    }
    for (unsigned long i = 0; i < count; i++)
        for (unsigned long at = 0; at < SIZE; at += 41)
            if (blocks[i][at] != (char)(mix(i) & 0x7f))
                fail("block %lu changed", i);
    puts("right");
    return 0;
}
