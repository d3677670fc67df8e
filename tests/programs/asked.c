/* asked MIB MARK: fills MIB mebibytes and says `ready`; then does what each line of its input
 * says. `look` has it look at all of them and say `right`, `thrash` has it look at random ones
 * until the next line comes, `descriptors` has it count what it
 * has open, `end` has it end. MARK only tells it from others. */
#include "common.h"
#include <dirent.h>
#include <poll.h>

static int descriptors(void)
{
    DIR *open_ones = opendir("/proc/self/fd");
    CHECK(open_ones);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(open_ones));)
        count += entry->d_name[0] != '.';
    closedir(open_ones);
    /* Not the folder itself. */
    return count - 1;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 256) * MIB / PAGE;
    char *memory = map_filled(pages);
    puts("ready");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "end\n"))
            return 0;
        if (!strcmp(line, "descriptors\n")) {
            printf("%d descriptors\n", descriptors());
        } else if (!strcmp(line, "thrash\n")) {
            struct pollfd input = {.fd = 0, .events = POLLIN};
            uint64_t state = 1;
            while (poll(&input, 1, 0) == 0)
                for (int i = 0; i < 100; i++) {
                    unsigned long page = next_random(&state) % pages;
                    check_page(memory + page * PAGE, page + 1, "asked", page);
                }
            puts("thrashed");
        } else {
            for (unsigned long page = 0; page < pages; page++)
                check_page(memory + page * PAGE, page + 1, "asked", page);
            puts("right");
        }
        fflush(stdout);
    }
    return 0;
}
