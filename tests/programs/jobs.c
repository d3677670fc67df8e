/* jobs MIB: a shell's work on a terminal of its own: children in process groups
 * in the foreground and behind, stopped by a key, continued, and hung up. All of
 * them see their memory. */
#include "common.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

static unsigned long pages;
static char *base;

static void look(const char *who)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, who, i);
}

/* Reads what the terminal shows until `text` is there. What came with it and follows is
 * for the next time. */
static void until_shown(int terminal, const char *text)
{
    static char shown[1 << 16];
    static size_t len;
    char *found;
    while (!(found = memmem(shown, len, text, strlen(text)))) {
        ssize_t n = read(terminal, shown + len, sizeof shown - len);
        CHECK(n > 0);
        len += n;
    }
    found += strlen(text);
    len -= found - shown;
    memmove(shown, found, len);
}

static void say(const char *text)
{
    CHECK(write(1, text, strlen(text)) == (ssize_t)strlen(text));
}

static void job(void)
{
    char line[64];
    CHECK(!setpgid(0, 0));
    while (tcgetpgrp(0) != getpgrp())
        usleep(1000);
    look("a job");
    /* So that all of it is elsewhere when it is stopped. */
    for (unsigned long i = 0; i < pages; i++)
        until_elsewhere(base + i * PAGE);
    say("job ready\n");
    CHECK(fgets(line, sizeof line, stdin) && !strcmp(line, "go on\n"));
    look("a job that was continued");
    fill_page(base, 77);
    check_page(base, 77, "a job's own", 0);
    say("job done\n");
    _exit(3);
}

/* Has the terminal, and a job on it. */
static void shell(void)
{
    int status;
    struct termios settings;
    CHECK(signal(SIGTTOU, SIG_IGN) != SIG_ERR);
    /* A key that stops a job flushes the terminal after its signal was sent: what the
     * shell says of the stopped job could be lost, and nobody would go on. */
    CHECK(!tcgetattr(0, &settings));
    settings.c_lflag |= NOFLSH;
    CHECK(!tcsetattr(0, TCSANOW, &settings));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(signal(SIGTTOU, SIG_DFL) != SIG_ERR);
        job();
    }
    setpgid(pid, pid);
    CHECK(!tcsetpgrp(0, pid));
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
    CHECK(!tcsetpgrp(0, getpgrp()));
    look("the shell");
    say("job stopped\n");
    CHECK(!tcsetpgrp(0, pid) && !kill(-pid, SIGCONT));
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    CHECK(!tcsetpgrp(0, getpgrp()));
    look("the shell again");
    say("shell waits\n");
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 24) * MIB / PAGE;
    base = map_filled(pages);
    until_elsewhere(base);
    int terminal, status;
    /* Whoever started this may have some of these ignored. */
    int needed[] = { SIGHUP, SIGTSTP, SIGTTIN, SIGCHLD, SIGCONT };
    for (unsigned i = 0; i < sizeof needed / sizeof *needed; i++)
        CHECK(signal(needed[i], SIG_DFL) != SIG_ERR);
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    CHECK(pid >= 0);
    if (pid == 0)
        shell();
    until_shown(terminal, "job ready");
    CHECK(write(terminal, "\032", 1) == 1);
    until_shown(terminal, "job stopped");
    CHECK(write(terminal, "go on\n", 6) == 6);
    until_shown(terminal, "job done");
    until_shown(terminal, "shell waits");
    CHECK(!close(terminal));
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP);
    look("the terminal's owner");
    puts("right");
    return 0;
}
