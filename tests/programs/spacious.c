/* spacious MIB LEAST: fills memory, and finds at least so many MiB of address space
 * beside it. */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long least = argument(argc, argv, 2, 1024), found = 0;
    char *base = map_filled(pages);
    while (mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED)
        found += 16;
    if (found < least)
        fail("%lu MiB of address space", found);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "filled", i);
    puts("right");
    return 0;
}
