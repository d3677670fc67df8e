/* cores MIB: what a core file, or a debugger's, would hold is the program's memory and
 * not much more: mappings that are not left out (VmFlags: dd). */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    unsigned long start, end, size = 0, all = 0;
    char line[512];
    char *base = map_filled(pages);
    until_elsewhere(base);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "memory", i);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    CHECK(smaps);
    while (fgets(line, sizeof line, smaps)) {
        if (sscanf(line, "%lx-%lx %*[rwxps-] ", &start, &end) == 2)
            size = end - start;
        else if (!strncmp(line, "VmFlags:", 8) && !strstr(line, " dd"))
            all += size;
    }
    CHECK(all >= pages * PAGE);
    if (all > pages * PAGE + 64 * MIB)
        fail("a core file of %lu MiB", all / MIB);
    puts("right");
    return 0;
}
