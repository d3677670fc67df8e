/* credentials MIB: a program whose memory is elsewhere changes its user and groups, for
 * a while and for good. No task of its process, and none that serves its memory, is another
 * than it is itself. */
#include "helpers.h"
#include <grp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static unsigned long pages;
static char *base;
/* What serves the memory, as it was found when this might look at everything. */
static struct helper helpers[HELPERS];
static int count;

/* The lines of a task's status that are about who it is. */
static void read_identity(const char *task, char *identity)
{
    char path[300], line[300];
    snprintf(path, sizeof path, "/proc/%s/status", task);
    FILE *file = fopen(path, "r");
    identity[0] = 0;
    /* It may have ended by now. */
    if (!file)
        return;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "Uid", 3) || !strncmp(line, "Gid", 3) || !strncmp(line, "Groups", 6)
            || !strncmp(line, "CapPrm", 6) || !strncmp(line, "CapEff", 6))
            strcat(identity, line);
    fclose(file);
}

static int differs(const char *own)
{
    char other[2000];
    int found = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks);
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.')
            continue;
        read_identity(task->d_name, other);
        found |= other[0] && strcmp(own, other);
    }
    closedir(tasks);
    for (int n = 0; n < count; n++) {
        char task[16];
        snprintf(task, sizeof task, "%d", helpers[n].pid);
        read_identity(task, other);
        found |= other[0] && strcmp(own, other);
    }
    return found;
}

static void check_tasks(const char *when)
{
    char own[2000], first[20];
    snprintf(first, sizeof first, "%d", (int)getpid());
    read_identity(first, own);
    CHECK(own[0]);
    if (differs(own))
        fail("%s: a task is not what the program is:\n%s", when, own);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, when, i);
    printf("%s\n", when);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    const gid_t groups[] = { 7, 65534 };
    if (argc > 2 && !strcmp(argv[2], "early"))
        CHECK(!setgroups(2, groups));
    base = map_filled(pages);
    until_elsewhere(base);
    count = helpers_of(getpid(), "tmem-", helpers);
    if (argc > 2 && !strcmp(argv[2], "raw")) {
        /* By system calls of its own it is noticed a moment later. */
        char own[2000], first[20];
        CHECK(!syscall(SYS_setgroups, 0, NULL) && !syscall(SYS_setresgid, 99, 99, 99));
        CHECK(!syscall(SYS_setresuid, 99, 99, 99));
        snprintf(first, sizeof first, "%d", (int)getpid());
        read_identity(first, own);
        while (differs(own))
            usleep(10000);
    }
    CHECK(geteuid() || !setgroups(2, groups));
    check_tasks("groups");
    if (!geteuid()) {
        CHECK(!setegid(65534) && !seteuid(65534));
        check_tasks("for a while");
        CHECK(!seteuid(0) && !setegid(0));
        check_tasks("back");
        CHECK(!setresuid(-1, 65534, 0) && !setreuid(-1, 0));
        check_tasks("and back");
        CHECK(!prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        CHECK(!setresgid(65533, 65533, 65533) && !setresuid(65533, 65533, 65533));
        check_tasks("for good, with capabilities");
    }
    return 0;
}
