/* watched MIB: how the tasks are scheduled that share this program's memory and that it did
 * not start, when `main` begins. Fails where none of them is a real-time thread although one may be.
 * Fills MIB mebibytes, and ends when none is one any more. */
#include "helpers.h"
#include <sched.h>

/* How many other tasks there are, and how many of them are real-time ones. */
static void look(int *others, int *real_time)
{
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks);
    *others = *real_time = 0;
    struct helper helpers[HELPERS];
    for (int n = helpers_of(getpid(), "tmem-", helpers); n--;) {
        int policy = sched_getscheduler(helpers[n].pid);
        *others += policy >= 0;
        *real_time += policy >= 0 && (policy & ~SCHED_RESET_ON_FORK) == SCHED_RR;
        close(helpers[n].fd);
    }
    for (struct dirent *task; (task = readdir(tasks));) {
        int tid = atoi(task->d_name);
        if (tid == 0 || tid == getpid())
            continue;
        int policy = sched_getscheduler(tid);
        *others += policy >= 0;
        *real_time += policy >= 0 && (policy & ~SCHED_RESET_ON_FORK) == SCHED_RR;
    }
    closedir(tasks);
}

/* Whether this user may have a real-time thread. */
static void *ask(void *allowed)
{
    struct sched_param least = {.sched_priority = 1};
    *(int *)allowed = !sched_setscheduler(0, SCHED_RR, &least);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    int others, real_time, allowed;
    look(&others, &real_time);
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, ask, &allowed) && !pthread_join(thread, NULL));
    if (real_time != allowed)
        fail("%d of %d tasks are real-time ones; %d may be", real_time, others, allowed);
    map_filled(pages);
    do {
        usleep(500);
        look(&others, &real_time);
    } while (real_time);
    puts("watched");
    return 0;
}
