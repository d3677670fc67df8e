/* fork_ways MIB WAY [FILE]: one fork in an unusual way.
 *   orphan: the parent ends at once; the child checks its memory and writes
 *           "right" to FILE.
 *   syscall: by syscall(SYS_fork).
 *   raw: by an instruction of its own. Where memory is elsewhere the child may
 *        be ended, but must not see anything else than what was there. Prints
 *        "right" or "ended".
 *   advised: after advice about what a child is to have.
 *   advised-often: the same, after more advice than could ever be kept.
 *   advised-early: after advice given, and memory moved, before there was so much
 *        of it that any is paged.
 *   advised-raw, advised-early-raw: by an instruction of its own.
 *   advised-handle: by the C library's function, looked up by a handle of it.
 *   advised-other: by another C library beside the program's.
 *   exec: the child executes another program, by fork, vfork and posix_spawn. */
#include "common.h"
#include <dlfcn.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static unsigned long pages;
static char *base;
static pid_t first;

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

static int raw_madvise(void *at, size_t len, int advice)
{
    long result = SYS_madvise;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(at), "S"(len), "d"((long)advice)
                     : "rcx", "r11", "memory");
    return (int)result;
}

/* How advice is given, and whether that is past the C library's functions. */
static int (*advise)(void *, size_t, int) = madvise;
static int is_unseen;

static void choose(const char *way)
{
    if (strstr(way, "-raw")) {
        advise = raw_madvise;
        is_unseen = 1;
    } else if (strstr(way, "-handle")) {
        void *libc = dlopen("libc.so.6", RTLD_NOW);
        CHECK(libc && (advise = (int (*)(void *, size_t, int))dlsym(libc, "madvise")));
    } else if (strstr(way, "-other")) {
        void *libc = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
        CHECK(libc && (advise = (int (*)(void *, size_t, int))dlsym(libc, "madvise")));
        is_unseen = 1;
    }
}

/* Of five parts a child finds two empty (one of them moved since), one as it
 * is, has one not at all, and the last has been mapped anew. */
static void advised(void)
{
    unsigned long part = pages / 8;
    char *empty = base, *kept = base + part * PAGE, *not_there = base + 2 * part * PAGE;
    char *moved = base + 3 * part * PAGE, *anew = base + 4 * part * PAGE;
    unsigned char there[1];

    CHECK(!advise(empty, part * PAGE, MADV_WIPEONFORK));
    CHECK(!advise(kept, part * PAGE, MADV_WIPEONFORK));
    CHECK(!advise(kept, part * PAGE, MADV_KEEPONFORK));
    /* That is seen of memory only that is not paged yet, where it is given unseen. */
    if (!is_unseen)
        CHECK(!advise(not_there, part * PAGE, MADV_DONTFORK));
    CHECK(!advise(moved, part * PAGE, MADV_WIPEONFORK));
    CHECK(!advise(anew, part * PAGE, MADV_WIPEONFORK));
    char *to = map_anonymous(part * PAGE);
    CHECK(mremap(moved, part * PAGE, part * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    CHECK(mmap(anew, part * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == anew);
    for (unsigned long i = 0; i < part; i++)
        fill_page(anew + i * PAGE, i + 7);
    for (unsigned long i = 5 * part; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "the rest", i);
    for (int generation = 0; generation < 2; generation++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid) {
            CHECK(ended_right(pid));
            break;
        }
        for (unsigned long i = 0; i < part; i++) {
            check_page(empty + i * PAGE, 0, "wiped", i);
            check_page(to + i * PAGE, 0, "wiped and moved", i);
            check_page(kept + i * PAGE, part + i + 1, "kept", i);
            check_page(anew + i * PAGE, i + 7, "mapped anew", i);
        }
        CHECK(is_unseen || (mincore(not_there, PAGE, there) == -1 && errno == ENOMEM));
        for (unsigned long i = 0; i < part; i++) {
            fill_page(empty + i * PAGE, i + 9);
            fill_page(to + i * PAGE, i + 9);
        }
        if (generation)
            _exit(42);
    }
    if (getpid() != first)
        _exit(42);
    for (unsigned long i = 0; i < part; i++) {
        check_page(empty + i * PAGE, i + 1, "the parent's", i);
        check_page(to + i * PAGE, 3 * part + i + 1, "the parent's, moved", i);
        check_page(not_there + i * PAGE, 2 * part + i + 1, "the parent's alone", i);
        fill_page(anew + i * PAGE, 4 * part + i + 1);
    }
    /* As the last look expects it. */
    CHECK(mremap(to, part * PAGE, part * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
    puts("right");
}

/* Two pieces of advice each, by turns about two ranges, and taken back in the end. */
#define OFTEN 540000ul

static void advise_often(void)
{
    for (unsigned long i = 0; i < OFTEN; i++) {
        char *at = base + (i % 2 ? pages / 2 : 0) * PAGE;
        CHECK(!madvise(at, 16 * PAGE, MADV_DONTFORK));
        CHECK(!madvise(at, 16 * PAGE, MADV_DOFORK));
    }
}

#define EARLY 256ul
static char *early[4];

/* Memory of which a child has nothing, or nothing in it; the advice that was given
 * for the other two places went with what was mapped there. */
static void advise_early(void)
{
    for (int i = 0; i < 4; i++) {
        char *at = map_anonymous(EARLY * PAGE), *to = map_anonymous(EARLY * PAGE);
        CHECK(!advise(at, EARLY * PAGE, i % 2 ? MADV_DONTFORK : MADV_WIPEONFORK));
        if (i < 2) {
            int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
            CHECK(mremap(at, EARLY * PAGE, EARLY * PAGE, flags, to) == to);
            at = to;
        } else {
            CHECK(mmap(at, EARLY * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
        }
        for (unsigned long j = 0; j < EARLY; j++)
            fill_page(at + j * PAGE, j + 3);
        early[i] = at;
    }
}

static void check_early(int is_child)
{
    unsigned char there[1];
    for (int i = 0; i < 4; i++) {
        if (is_child && i == 1) {
            CHECK(mincore(early[i], PAGE, there) == -1 && errno == ENOMEM);
            continue;
        }
        for (unsigned long j = 0; j < EARLY; j++)
            check_page(early[i] + j * PAGE, is_child && i == 0 ? 0 : j + 3, "early", i);
    }
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    const char *way = argc > 2 ? argv[2] : "raw";
    choose(way);
    int is_early = !strncmp(way, "advised-early", 13);
    if (is_early)
        advise_early();
    base = map_filled(pages);
    fflush(stdout);
    first = getpid();
    if (!strcmp(way, "orphan")) {
        orphan(argv[3]);
    } else if (is_early) {
        check_all("before the fork");
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            check_early(1);
            check_all("child");
            _exit(42);
        }
        CHECK(ended_right(pid));
        check_early(0);
        puts("right");
    } else if (!strncmp(way, "advised", 7)) {
        if (!strcmp(way, "advised-often"))
            advise_often();
        advised();
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
