/* descriptors MIB: closes everything it did not open, lists what is open and
 * what a new descriptor gets, and uses memory all the while. */
#include "common.h"
#include <dirent.h>
#include <sys/resource.h>

static void list(const char *when)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    CHECK(dir);
    printf("%s:", when);
    int open_now[1024] = { 0 };
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) < 1024)
            open_now[atoi(entry->d_name)] = 1;
    for (int fd = 0; fd < 1024; fd++)
        if (open_now[fd] && fd != dirfd(dir))
            printf(" %d", fd);
    closedir(dir);
    int fresh = open("/dev/null", O_RDONLY);
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    printf("; the next is %d; limit %lu\n", fresh, (unsigned long)limit.rlim_cur);
    close(fresh);
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    list("at start");
    char *base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages / 2; i++)
        fill_page(base + i * PAGE, i + 1);
    list("half full");
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    list("all closed");
    for (unsigned long i = pages / 2; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "descriptors", i);
    closefrom(3);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "descriptors", i);
    list("at the end");
    return 0;
}
