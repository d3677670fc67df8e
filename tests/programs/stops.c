/* stops MIB COUNT: a child goes over its memory again and again while its parent
 * stops and continues it at any moment. The parent is told of each stop, and of each
 * time that the child goes on. Then the child says whether its memory was right. */
#include "common.h"
#include <sys/wait.h>

static volatile sig_atomic_t done;

static void end(int signal)
{
    (void)signal;
    done = 1;
}

static void work(unsigned long pages)
{
    char *base = map_filled(pages);
    unsigned long rounds = 0;
    CHECK(signal(SIGTERM, end) != SIG_ERR);
    CHECK(write(1, "works\n", 6) == 6);
    for (; !done; rounds++)
        for (unsigned long i = 0; i < pages && !done; i++) {
            check_page(base + i * PAGE, i + 1, "who is stopped", i);
            fill_page(base + i * PAGE, i + 1);
        }
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "who was stopped", i);
    _exit(7);
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    unsigned long count = argument(argc, argv, 2, 100);
    int ready[2], status;
    char text[6];
    CHECK(!pipe(ready));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        /* SIGTSTP does not stop a process group that nobody outside looks after, as
         * this one may be. */
        CHECK(!setpgid(0, 0));
        CHECK(dup2(ready[1], 1) == 1);
        work(pages);
    }
    CHECK(read(ready[0], text, 6) == 6);
    for (unsigned long i = 0; i < count; i++) {
        /* Another moment each time. */
        usleep(i * 7919 % 3000);
        CHECK(!kill(pid, i % 2 ? SIGSTOP : SIGTSTP));
        CHECK(waitpid(pid, &status, WUNTRACED) == pid);
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == (i % 2 ? SIGSTOP : SIGTSTP));
        CHECK(!kill(pid, SIGCONT));
        CHECK(waitpid(pid, &status, WCONTINUED) == pid);
        CHECK(WIFCONTINUED(status));
    }
    CHECK(!kill(pid, SIGTERM));
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    puts("right");
    return 0;
}
