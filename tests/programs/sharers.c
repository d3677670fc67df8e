/* sharers MIB: processes that share a program's memory and live longer than it find
 * everything there: made by `clone` or `vfork`, and the program killed, ended by `_exit`, or
 * gone to execute another. */
#include "common.h"
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { KILLED, EXIT, EXECUTES, WAYS };

static unsigned long pages;
static char *base;
/* The program waits to be told to end; whoever looks waits for its end. */
static int gate[2], end[2], answer[2];

static void look(const char *who)
{
    for (unsigned long i = 0; i < pages; i += 3)
        check_page(base + i * PAGE, i + 1, who, i);
}

/* Waits until the other end is closed everywhere. */
static void until_closed(int fd)
{
    char byte;
    while (read(fd, &byte, 1) > 0)
        ;
}

static int sharer(void *unused)
{
    (void)unused;
    close(end[1]);
    CHECK(write(answer[1], "b", 1) == 1);
    until_closed(end[0]);
    /* What served the program notices its end. */
    usleep(50000);
    look("a process that shares memory");
    CHECK(write(answer[1], "g", 1) == 1);
    _exit(0);
}

/* A program one process of which outlives it. */
static void program(int way)
{
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    until_elsewhere(base);
    char *stack = map_anonymous(1 << 20);
    CHECK(clone(sharer, stack + (1 << 20), CLONE_VM | SIGCHLD, NULL) > 0);
    char byte;
    CHECK(read(gate[0], &byte, 1) == 1);
    switch (way) {
    case KILLED:
        kill(getpid(), SIGKILL);
        break;
    case EXIT:
        _exit(0);
    case EXECUTES:
        execl("/bin/true", "true", NULL);
        break;
    }
    fail("still there");
}

/* A program that is killed while its child of `vfork` is about to execute another one, whose
 * argument is elsewhere. */
static void program_with_vfork(void)
{
    static char *argv[3] = { "echo" };
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    argv[1] = strcpy(base + 5 * PAGE, "an-argument");
    until_elsewhere(base);
    if (!vfork()) {
        close(end[1]);
        dup2(answer[1], 1);
        syscall(SYS_write, answer[1], "b", 1);
        char byte;
        while (read(end[0], &byte, 1) > 0)
            ;
        execv("/bin/echo", argv);
        _exit(9);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    for (int way = 0; way <= WAYS; way++) {
        char text[64] = "";
        CHECK(!pipe2(gate, O_CLOEXEC) && !pipe2(end, O_CLOEXEC) && !pipe2(answer, 0));
        base = map_anonymous(pages * PAGE);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (!pid) {
            if (way < WAYS)
                program(way);
            program_with_vfork();
        }
        close(end[1]);
        close(answer[1]);
        full_read(answer[0], text, 1);
        if (way == WAYS)
            kill(pid, SIGKILL);
        else
            CHECK(write(gate[1], "e", 1) == 1);
        CHECK(waitpid(pid, NULL, 0) == pid);
        for (ssize_t n, len = 0; (n = read(answer[0], text + len, sizeof text - 1 - len)) > 0;)
            len += n;
        if (strcmp(text, way < WAYS ? "g" : "an-argument\n"))
            fail("way %d: \"%s\"", way, text);
        close(gate[0]), close(gate[1]), close(end[0]), close(answer[0]);
        munmap(base, pages * PAGE);
    }
    puts("right");
    return 0;
}
