/* confined_fork MIB WAY: a program whose memory is elsewhere gives up what it may do,
 * and forks. The child has the memory of its parent, and takes more; so has a child of
 * its own, where a second WAY "twice" asks for that. */
#include "common.h"
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static unsigned long pages;
static char *base;

/* Neither opens nor connects anything any more. */
static void refuse_some(void)
{
#define REFUSE(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSE(openat), REFUSE(open), REFUSE(socket), REFUSE(connect), REFUSE(userfaultfd),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* A call of these ends the process. */
static void forbid(const int *calls, unsigned count)
{
    struct sock_filter code[2 * 16 + 2];
    unsigned n = 0;
    CHECK(count <= 16);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < count; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, code};
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void read_no_files(void)
{
    struct landlock_ruleset_attr rules = {
        .handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE,
    };
    int fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    /* Not every kernel has it. */
    if (fd < 0)
        return;
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!syscall(SYS_landlock_restrict_self, fd, 0));
    CHECK(open("/etc/passwd", O_RDONLY) < 0);
}

/* Landlock's rules on networks, which not all headers have: no connections over TCP. */
static void connect_nowhere(void)
{
    const struct {
        uint64_t files, net;
    } rules = {0, 1ull << 1 /* LANDLOCK_ACCESS_NET_CONNECT_TCP */};
    int fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    /* Linux 6.7 and later have them, if they have Landlock. */
    if (fd < 0) {
        CHECK(errno == ENOSYS || errno == EOPNOTSUPP || errno == E2BIG || errno == EINVAL);
        return;
    }
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!syscall(SYS_landlock_restrict_self, fd, 0));
    CHECK(!close(fd));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons(1);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(s >= 0 && connect(s, (struct sockaddr *)&to, sizeof to) < 0 && errno == EACCES);
    CHECK(!close(s));
}

/* A user that nobody else is, and who may have as many tasks as this program natively has. */
static void take_few(rlim_t tasks)
{
    struct rlimit few = {tasks, tasks}, told;
    uid_t user = 1000000 + getpid();
    CHECK(!setgid(user) && !setuid(user));
    CHECK(!setrlimit(RLIMIT_NPROC, &few));
    CHECK(!getrlimit(RLIMIT_NPROC, &told));
    CHECK(told.rlim_cur == tasks && told.rlim_max == tasks);
}

static void give_up(const char *way)
{
    if (!strcmp(way, "setuid")) {
        CHECK(!setgid(65534) && !setuid(65534));
    } else if (!strcmp(way, "seteuid")) {
        CHECK(!seteuid(65534));
    } else if (!strcmp(way, "dumpable")) {
        CHECK(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    } else if (!strcmp(way, "all")) {
        CHECK(!chdir("/var/empty") || !chdir("/var/tmp"));
        CHECK(!chroot(".") && !setgid(65534) && !setuid(65534));
        CHECK(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    } else if (!strcmp(way, "chroot")) {
        CHECK(!chdir("/var/empty") || !chdir("/var/tmp"));
        CHECK(!chroot("."));
    } else if (!strcmp(way, "proc")) {
        CHECK(!unshare(CLONE_NEWNS));
        CHECK(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
        CHECK(!mount("none", "/proc", "tmpfs", 0, NULL));
    } else if (!strcmp(way, "network")) {
        CHECK(!unshare(CLONE_NEWNET));
    } else if (!strcmp(way, "files")) {
        read_no_files();
    } else if (!strcmp(way, "connections")) {
        connect_nowhere();
    } else if (!strcmp(way, "few")) {
        take_few(3);
    } else if (!strcmp(way, "alone")) {
        take_few(1);
    } else if (!strcmp(way, "calls")) {
        refuse_some();
    } else if (!strcmp(way, "killed")) {
        const int calls[] = {SYS_openat,  SYS_open,        SYS_socket,    SYS_connect,
                             SYS_prlimit64, SYS_getrlimit, SYS_setrlimit, SYS_close_range,
                             SYS_userfaultfd};
        forbid(calls, sizeof calls / sizeof *calls);
    } else if (!strcmp(way, "hopeless")) {
        const int calls[] = {SYS_epoll_pwait, SYS_epoll_wait, SYS_epoll_create1};
        forbid(calls, sizeof calls / sizeof *calls);
    }
}

static void look(const char *who)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, who, i);
}

/* Forks children so deep. */
static void fork_down(int depth)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        look("a child");
        if (depth > 1)
            fork_down(depth - 1);
        char *more = map_filled(pages);
        for (unsigned long i = 0; i < pages; i++)
            check_page(more + i * PAGE, i + 1, "a child's own", i);
        look("a child, again");
        _exit(7);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
        fail("a child ended with status %x", status);
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    int early = argc > 3 && !strcmp(argv[3], "early");
    /* Before there is so much memory that any is paged. */
    if (early)
        give_up(argv[2]);
    base = map_filled(pages);
    if (!early) {
        until_elsewhere(base);
        give_up(argc > 2 ? argv[2] : "nothing");
    }
    if (argc > 2 && !strcmp(argv[2], "alone"))
        CHECK(fork() == -1 && errno == EAGAIN);
    else
        fork_down(argc > 3 && !strcmp(argv[3], "twice") ? 2 : 1);
    look("the parent");
    /* Nobody else turns up. */
    CHECK(waitpid(-1, NULL, WNOHANG | 0x40000000 /* __WALL */) == -1 && errno == ECHILD);
    puts("right");
    return 0;
}
