/* outside MIB: what serves a program's memory is not seen by the program: neither as a thread
 * nor as a child, in no group and by no signal, and a tracer that stops all of the program's
 * threads can read its memory. */
#include "common.h"
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static unsigned long pages;
static char *base;
static volatile sig_atomic_t signals;

static void count(int signal)
{
    (void)signal;
    signals++;
}

static void look(const char *who)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, who, i);
}

static int threads(void)
{
    int found = 0;
    DIR *folder = opendir("/proc/self/task");
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        found += entry->d_name[0] != '.';
    closedir(folder);
    return found;
}

/* No child turns up, whatever is asked for. */
static void no_children(void)
{
    siginfo_t info;
    struct rusage usage;
    int ways[] = { 0, WNOHANG, 0x40000000 /* __WALL */, (int)0x80000000 /* __WCLONE */ };
    for (unsigned long n = 0; n < sizeof ways / sizeof *ways; n++)
        CHECK(waitpid(-1, NULL, ways[n]) == -1 && errno == ECHILD);
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOHANG) == -1 && errno == ECHILD);
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | 0x40000000) == -1 && errno == ECHILD);
    CHECK(!getrusage(RUSAGE_CHILDREN, &usage));
    CHECK(!usage.ru_maxrss && !usage.ru_utime.tv_sec && !usage.ru_utime.tv_usec);
}

/* Stops every thread of a process, and reads its memory. */
static void trace(pid_t pid)
{
    char path[64];
    int status;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        pid_t tid = atoi(entry->d_name);
        if (!tid)
            continue;
        CHECK(!ptrace(PTRACE_SEIZE, tid, 0, 0) && !ptrace(PTRACE_INTERRUPT, tid, 0, 0));
        CHECK(waitpid(tid, &status, 0x40000000) == tid);
    }
    closedir(folder);
    char *page = malloc(PAGE);
    for (unsigned long i = 0; i < pages; i += 5) {
        struct iovec to = { page, PAGE }, from = { base + i * PAGE, PAGE };
        CHECK(process_vm_readv(pid, &to, 1, &from, 1, 0) == PAGE);
        check_page(page, i + 1, "a tracer", i);
    }
}

static void *other(void *unused)
{
    pause();
    return unused;
}

/* Runs `what` in a child that has memory elsewhere. */
static void in_child(void (*what)(void), const char *name)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        look(name);
        what();
        look(name);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status)
        fail("%s: status %x", name, status);
}

/* A namespace of users is for processes of one thread. */
static void namespace(void)
{
    CHECK(!unshare(CLONE_NEWUSER));
}

/* A filter for all threads. */
static void filter(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog all = { 1, &allow };
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, other, NULL));
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &all));
}

/* Signals to a group of its own, and to all that it may signal of that. */
static void group(void)
{
    CHECK(!setpgid(0, 0));
    struct sigaction action = { .sa_handler = count };
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    CHECK(!kill(0, SIGUSR1) && signals == 1);
    CHECK(!kill(-getpid(), SIGUSR1) && signals == 2);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    base = map_filled(pages);
    until_elsewhere(base);
    struct stat task;
    CHECK(threads() == 1 && !stat("/proc/self/task", &task) && task.st_nlink == 3);
    no_children();
    in_child(no_children, "a child");
    in_child(group, "a group");
    in_child(namespace, "a namespace of users");
    in_child(filter, "a filter");
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, other, NULL) && threads() == 2);
    prctl(PR_SET_PTRACER, -1, 0, 0, 0);
    pid_t pid = fork(), parent = getppid();
    int status;
    CHECK(pid >= 0);
    if (!pid) {
        parent = getppid();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        trace(parent);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && !status && parent);
    look("traced");
    puts("right");
    return 0;
}
