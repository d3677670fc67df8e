/* confined MIB WAY: a program whose memory is elsewhere gives up what it may do.
 * Its memory, and what it takes later, is as it should be. */
#include "common.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static unsigned long pages;

static void look(const char *base, const char *when)
{
    uint64_t sum = 0;
    for (unsigned long i = 0; i < pages; i++)
        sum = sum * 31 + check_page(base + i * PAGE, i + 1, when, i);
    printf("%s: %016lx\n", when, (unsigned long)sum);
    fflush(stdout);
}

static void limit(int what, unsigned long value)
{
    struct rlimit l = { value, value };
    CHECK(!setrlimit(what, &l));
}

/* Any other call than these ends the process, in all of its threads. */
static void allow_little(unsigned flags)
{
#define ALLOW(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(write), ALLOW(mmap), ALLOW(munmap), ALLOW(brk), ALLOW(exit_group),
        ALLOW(newfstatat), ALLOW(fstat), ALLOW(getrandom),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    const char *way = argc > 2 ? argv[2] : "nothing";
    /* Before there is so much memory that any is paged. */
    if (!strcmp(way, "limits-early"))
        limit(RLIMIT_NOFILE, 8);
    char *base = map_filled(pages);
    until_elsewhere(base);
    if (!strcmp(way, "chroot")) {
        CHECK(!chdir("/var/empty") || !chdir("/var/tmp"));
        CHECK(!chroot("."));
    } else if (!strcmp(way, "setuid")) {
        CHECK(!setgid(65534) && !setuid(65534));
        CHECK(setuid(0) == -1);
    } else if (!strcmp(way, "dumpable")) {
        CHECK(!setgid(65534) && !setuid(65534));
        CHECK(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    } else if (!strcmp(way, "private")) {
        CHECK(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    } else if (!strcmp(way, "unshare")) {
        CHECK(!unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_FILES));
    } else if (!strcmp(way, "limits")) {
        limit(RLIMIT_NOFILE, 8);
        limit(RLIMIT_NPROC, 1);
        limit(RLIMIT_CORE, 0);
        limit(RLIMIT_STACK, 1 << 20);
    } else if (!strcmp(way, "space")) {
        limit(RLIMIT_AS, 1ul << 30);
        limit(RLIMIT_DATA, 1ul << 30);
        for (int what = RLIMIT_DATA; what <= RLIMIT_AS; what += RLIMIT_AS - RLIMIT_DATA) {
            struct rlimit l;
            CHECK(!getrlimit(what, &l) && l.rlim_cur == 1ul << 30 && l.rlim_max == 1ul << 30);
        }
        char *most = mmap(NULL, 512 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(most != MAP_FAILED);
        CHECK(mmap(NULL, 1100 * MIB, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        CHECK(errno == ENOMEM && !malloc(600 * MIB));
        most[300 * MIB] = 1;
    } else if (!strcmp(way, "closed")) {
        CHECK(!syscall(SYS_close_range, 3, ~0u, 0));
        for (int fd = 3; fd < 4096; fd++)
            close(fd);
        CHECK(open("/dev/null", O_RDONLY) == 3);
    } else if (!strcmp(way, "seccomp")) {
        allow_little(0);
    } else if (!strcmp(way, "seccomp-busy")) {
        /* What it may do, over and over, while others are at it, too. */
        allow_little(0);
        for (unsigned long i = 0; i < 3000; i++) {
            char *block = map_filled(40);
            check_page(block + i % 40 * PAGE, i % 40 + 1, "busy", i % 40);
            CHECK(!munmap(block, 40 * PAGE));
        }
    } else if (!strcmp(way, "seccomp-all")) {
        allow_little(SECCOMP_FILTER_FLAG_TSYNC);
    } else if (!strcmp(way, "strict")) {
        look(base, "freely");
        CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        look(base, "strictly");
        syscall(SYS_exit, 6);
    } else if (!strcmp(way, "strict-end")) {
        /* Any other call ends the thread, which is the only one. */
        CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        getppid();
    } else if (!strcmp(way, "file-size")) {
        limit(RLIMIT_FSIZE, 1 << 20);
        limit(RLIMIT_MEMLOCK, 0);
        limit(RLIMIT_SIGPENDING, 0);
    } else if (!strcmp(way, "signals")) {
        sigset_t all;
        sigfillset(&all);
        CHECK(!sigprocmask(SIG_BLOCK, &all, NULL));
    } else if (!strcmp(way, "session")) {
        CHECK(!daemon(1, 1));
        setsid();
        umask(0);
    }
    look(base, "before");
    char *more = map_filled(pages);
    look(base, "again");
    look(more, "more");
    CHECK(!munmap(base, pages * PAGE));
    look(more, "more again");
    _exit(5);
}
