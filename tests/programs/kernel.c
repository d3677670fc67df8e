/* kernel MIB FOLDER: calls that take pages of memory rather than copy bytes,
 * and that look into it from outside. */
#include "common.h"
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static unsigned long pages;
static char *base;

static char *page_at(unsigned long i)
{
    return base + i * PAGE;
}

/* Pages go into a pipe as they are. */
static void through_vmsplice(void)
{
    int ends[2];
    char copy[PAGE];
    CHECK(!pipe(ends));
    for (unsigned long i = 0; i < pages; i += 3) {
        struct iovec iov = { page_at(i), PAGE };
        CHECK(vmsplice(ends[1], &iov, 1, 0) == (ssize_t)PAGE);
        full_read(ends[0], copy, PAGE);
        check_page(copy, i + 1, "vmsplice", i);
    }
    close(ends[0]);
    close(ends[1]);
}

static void through_sendfile(const char *folder)
{
    char path[512], copy[4 * PAGE];
    int ends[2];
    snprintf(path, sizeof path, "%s/kernel.tmp", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && !socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    CHECK(write(fd, base, pages * PAGE) == (ssize_t)(pages * PAGE));
    off_t at = 0;
    while (at < (off_t)(pages * PAGE)) {
        unsigned long i = at / PAGE;
        ssize_t n = sendfile(ends[0], fd, &at, PAGE);
        CHECK(n == (ssize_t)PAGE);
        full_read(ends[1], copy, PAGE);
        check_page(copy, i + 1, "sendfile", i);
    }
    close(ends[0]);
    close(ends[1]);
    close(fd);
    CHECK(!unlink(path));
}

/* Another process reads this one's memory, and writes it. */
static void from_outside(void)
{
    unsigned long page = pages / 2;
    pid_t parent = getpid(), child = vfork();
    if (child == 0) {
        char number[32], address[32];
        snprintf(number, sizeof number, "%d", parent);
        snprintf(address, sizeof address, "%lu", (unsigned long)page_at(page));
        execl("/proc/self/exe", "kernel", "look", number, address, (char *)NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_page(page_at(page + 1), 4242, "written from outside", page + 1);
    fill_page(page_at(page + 1), page + 2);
}

static int look(pid_t parent, char *at)
{
    char copy[PAGE];
    struct iovec mine = { copy, PAGE }, theirs = { at, PAGE };
    CHECK(process_vm_readv(parent, &mine, 1, &theirs, 1, 0) == (ssize_t)PAGE);
    uint64_t number = 0;
    for (uint64_t n = 1; n < 1 << 20 && !number; n++)
        if (((uint64_t *)copy)[3] == word_of(n, 3))
            number = n;
    check_page(copy, number, "read from outside", 0);
    fill_page(copy, 4242);
    theirs.iov_base = at + PAGE;
    CHECK(process_vm_writev(parent, &mine, 1, &theirs, 1, 0) == (ssize_t)PAGE);
    return 0;
}

/* Datagrams with control data and many parts. */
static void in_messages(void)
{
    int ends[2];
    CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
    for (unsigned long i = 0; i + 16 < pages; i += 16) {
        struct iovec out[8], in[8];
        for (int p = 0; p < 8; p++) {
            out[p] = (struct iovec){ page_at(i + p), PAGE };
            in[p] = (struct iovec){ page_at(i + 8 + p), PAGE };
        }
        struct msghdr from = { .msg_iov = out, .msg_iovlen = 8 };
        struct msghdr to = { .msg_iov = in, .msg_iovlen = 8 };
        CHECK(sendmsg(ends[0], &from, 0) == (ssize_t)(8 * PAGE));
        CHECK(recvmsg(ends[1], &to, 0) == (ssize_t)(8 * PAGE));
        for (int p = 0; p < 8; p++) {
            check_page(page_at(i + 8 + p), i + p + 1, "recvmsg", i + p);
            fill_page(page_at(i + 8 + p), i + 8 + p + 1);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

/* What is given up comes back as zeros, each in its own way. */
static void given_up(void)
{
    static const int ways[] = { MADV_DONTNEED, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_MERGEABLE,
                                MADV_UNMERGEABLE, MADV_DONTDUMP, MADV_DODUMP, MADV_SEQUENTIAL,
                                MADV_RANDOM, MADV_NORMAL, MADV_WILLNEED };
    for (unsigned long w = 0; w < sizeof ways / sizeof *ways; w++) {
        unsigned long i = pages / 4 + w * 4;
        int refused = madvise(page_at(i), 2 * PAGE, ways[w]) ? errno : 0;
        check_page(page_at(i), ways[w] == MADV_DONTNEED ? 0 : i + 1, "advised", i);
        printf("advice %d: %s\n", ways[w], strerror(refused));
        fill_page(page_at(i), i + 1);
        fill_page(page_at(i + 1), i + 2);
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "look"))
        return look(atoi(argv[2]), (char *)strtoul(argv[3], NULL, 0));
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    const char *folder = argc > 2 ? argv[2] : "/tmp";
    base = map_filled(pages);
    through_vmsplice();
    through_sendfile(folder);
    from_outside();
    in_messages();
    given_up();
    for (unsigned long i = 0; i < pages; i++)
        check_page(page_at(i), i + 1, "end", i);
    puts("right");
    return 0;
}
