/* fork_ways MIB WAY [FILE]: one fork in an unusual way.
 *   orphan: the parent ends at once; the child checks its memory and writes
 *           "right" to FILE.
 *   syscall: by syscall(SYS_fork).
 *   raw: by an instruction of its own. Where memory is elsewhere the child may
 *        be ended, but must not see anything else than what was there. Prints
 *        "right" or "ended".
 *   exec: the child executes another program, by fork, vfork and posix_spawn. */
#include "common.h"
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static unsigned long pages;
static char *base;

static void check_all(const char *who)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, who, i);
}

static int ended_right(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status))
        return 0;
    if (WEXITSTATUS(status) != 42)
        fail("the child ended with status %x", status);
    return 1;
}

static void orphan(const char *path)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid)
        _exit(0);
    setsid();
    check_all("orphan");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, "right\n", 6) == 6 && close(fd) == 0);
    _exit(0);
}

static pid_t raw_fork(void)
{
    long pid = SYS_fork;
    __asm__ volatile("syscall" : "+a"(pid) : : "rcx", "r11", "memory");
    return (pid_t)pid;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    const char *way = argc > 2 ? argv[2] : "raw";
    base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    fflush(stdout);
    if (!strcmp(way, "orphan")) {
        orphan(argv[3]);
    } else if (!strcmp(way, "exec")) {
        char *words[] = {"sh", "-c", "exit 42", NULL};
        pid_t pid = fork();
        if (pid == 0)
            execv("/bin/sh", words);
        CHECK(ended_right(pid));
        pid = vfork();
        if (pid == 0) {
            execv("/bin/sh", words);
            _exit(1);
        }
        CHECK(ended_right(pid));
        CHECK(!posix_spawn(&pid, "/bin/sh", NULL, NULL, words, environ));
        CHECK(ended_right(pid));
        CHECK(WEXITSTATUS(system("exit 7")) == 7);
        puts("right");
    } else {
        pid_t pid = strcmp(way, "syscall") ? raw_fork() : (pid_t)syscall(SYS_fork);
        CHECK(pid >= 0);
        if (pid == 0) {
            check_all("child");
            _exit(42);
        }
        puts(ended_right(pid) ? "right" : "ended");
    }
    check_all("parent");
    return 0;
}
