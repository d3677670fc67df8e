/* supervisor MIB [COMMAND ...]: starts a program three times and takes note of all that end
 * below it and have no other parent: as the first process of a PID namespace, or having asked
 * for that. Nobody turns up that it does not know. The program is the command, or this one
 * as a worker, whose memory is elsewhere when it ends, in three ways. */
#include "common.h"
#include <sys/prctl.h>
#include <sys/wait.h>

/* Whoever comes late comes within so long. */
enum { TIMES = 3, QUIET_MS = 300 };

static int work(unsigned long pages, int way)
{
    char *base = map_filled(pages);
    until_elsewhere(base);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "a worker", i);
    switch (way) {
    case 0:
        exit(0);
    case 1:
        _exit(0);
    default:
        kill(getpid(), SIGKILL);
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "work"))
        return work(argument(argc, argv, 2, 16) * MIB / PAGE, atoi(argv[3]));
    pid_t own[TIMES];
    CHECK(getpid() == 1 || !prctl(PR_SET_CHILD_SUBREAPER, 1));
    for (int n = 0; n < TIMES; n++) {
        own[n] = fork();
        CHECK(own[n] >= 0);
        if (own[n])
            continue;
        char way[] = { '0' + n, 0 };
        if (argc > 2)
            execv(argv[2], argv + 2);
        else
            execl("/proc/self/exe", argv[0], "work", argc > 1 ? argv[1] : "16", way, NULL);
        _exit(9);
    }
    for (int left = TIMES, quiet = 0; left || quiet < QUIET_MS;) {
        int status, known = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG | 0x40000000 /* __WALL */);
        if (pid <= 0) {
            quiet = left ? 0 : quiet + 1;
            usleep(1000);
            continue;
        }
        for (int n = 0; n < TIMES; n++)
            known |= own[n] == pid;
        if (!known)
            fail("a process ended with status %x that is no child of this one's", status);
        if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && argc <= 2))
            fail("a child ended with status %x", status);
        left--;
    }
    puts("right");
    return 0;
}
