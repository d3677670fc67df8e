/* ends MIB: however a program ends, nothing that served its memory stays behind, and its
 * parent is told what it would be told of any. */
#include "helpers.h"
#include <sys/resource.h>
#include <sys/wait.h>

static unsigned long pages;
static char *base;
static int started[2], go[2];

static void *end_later(void *first)
{
    pthread_join(*(pthread_t *)first, NULL);
    pthread_exit(NULL);
}

static void by_exit(void) { exit(3); }
static void by_exit_now(void) { _exit(3); }
static void by_call(void) { syscall(SYS_exit_group, 3); }
static void by_exec(void) { execl("/bin/sh", "sh", "-c", "exit 3", NULL); }
static void by_kill(void) { kill(getpid(), SIGKILL); }
static void by_signal(void) { kill(getpid(), SIGTERM); }
static void by_stop(void) { kill(getpid(), SIGSTOP); }

static void by_fault(void)
{
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    *(volatile int *)0 = 0;
}

static void by_threads(void)
{
    static pthread_t own, other;
    own = pthread_self();
    CHECK(!pthread_create(&other, NULL, end_later, &own));
    pthread_exit(NULL);
}

static const struct {
    const char *name;
    void (*end)(void);
    int status;
} WAYS[] = {
    { "exit", by_exit, 3 << 8 },
    { "_exit", by_exit_now, 3 << 8 },
    { "exit_group", by_call, 3 << 8 },
    { "execve", by_exec, 3 << 8 },
    { "SIGKILL", by_kill, SIGKILL },
    { "SIGTERM", by_signal, SIGTERM },
    { "killed while stopped", by_stop, SIGKILL },
    { "SIGSEGV", by_fault, SIGSEGV },
    { "the last thread", by_threads, 0 },
};

static void child(void (*end)(void))
{
    char byte;
    CHECK(write(started[1], "s", 1) == 1);
    full_read(go[0], &byte, 1);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "before the end", i);
    end();
    fail("still there");
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    CHECK(!pipe2(started, O_CLOEXEC) && !pipe2(go, O_CLOEXEC));
    base = map_filled(pages);
    until_elsewhere(base);
    for (unsigned long n = 0; n < sizeof WAYS / sizeof *WAYS; n++) {
        char byte;
        int status;
        struct helper helpers[HELPERS];
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (!pid)
            child(WAYS[n].end);
        full_read(started[0], &byte, 1);
        int found = helpers_of(pid, "tmem-", helpers);
        CHECK(write(go[1], "g", 1) == 1);
        if (WAYS[n].end == by_stop) {
            CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
            kill(pid, SIGKILL);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        if (status != WAYS[n].status)
            fail("%s: status %x", WAYS[n].name, status);
        until_gone(helpers, found, WAYS[n].name);
    }
    /* Nobody else turns up. */
    CHECK(waitpid(-1, NULL, 0x40000000 /* __WALL */) == -1 && errno == ECHILD);
    puts("right");
    return 0;
}
