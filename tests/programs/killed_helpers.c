/* killed_helpers MIB ROUNDS SEED [all]: whichever of the processes that serve a program's
 * memory is killed, in whatever order, the program never finds zeros: it is killed as well,
 * and nothing stays behind. With "all" they are killed all at once, and the program may wait
 * for memory until it is killed. */
#include "helpers.h"
#include <sys/wait.h>

/* How long a program is looked at that may wait for ever. */
enum { LOOK_MS = 200 };

static unsigned long pages;
static char *base;

/* Looks at its memory until it is killed. */
static void child(int started)
{
    CHECK(write(started, "s", 1) == 1);
    for (uint64_t turn = getpid();;) {
        unsigned long at = next_random(&turn) % pages;
        check_page(base + at * PAGE, at + 1, "while others are killed", at);
    }
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 8);
    uint64_t random = argument(argc, argv, 3, 1);
    int all_at_once = argc > 4 && !strcmp(argv[4], "all");
    /* The kernel keeps a userfaultfd open with the memory only where it has io_uring. */
    if (all_at_once && syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno != EFAULT)
        rounds = 0;
    base = map_filled(pages);
    until_elsewhere(base);
    for (unsigned long round = 0; round < rounds; round++) {
        char byte;
        int started[2], status;
        struct helper all[2 * HELPERS];
        CHECK(!pipe2(started, O_CLOEXEC));
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (!pid)
            child(started[1]);
        full_read(started[0], &byte, 1);
        int others = helpers_of(pid, "tmem-guard", all);
        int found = others + helpers_of(pid, "tmem-engine", all + others);
        /* One or two of three. */
        int kills = found ? 1 + next_random(&random) % 2 : 0;
        if (all_at_once)
            kills = found;
        for (int first = next_random(&random) % 16, n = 0; n < kills; n++) {
            syscall(SYS_pidfd_send_signal, all[(first + n) % found].fd, SIGKILL, NULL, 0);
            for (uint64_t wait = next_random(&random) % 4000; wait && !all_at_once; wait--)
                __asm__ volatile("pause");
        }
        for (int n = 0; all_at_once && n < LOOK_MS; n++) {
            siginfo_t info = { .si_pid = 0 };
            if (!waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid)
                break;
            usleep(1000);
        }
        if (!found || all_at_once)
            kill(pid, SIGKILL);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail("round %lu: status %x", round, status);
        until_gone(all, found, "after one was killed");
        close(started[0]), close(started[1]);
    }
    puts("right");
    return 0;
}
