/* syscalls MIB FOLDER: buffers that may be elsewhere are given to system
 * calls, which read and write them inside the kernel. */
#include "common.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

static unsigned long pages;
static char *base;

static char *page_at(unsigned long i)
{
    return base + i * PAGE;
}

/* Every page of memory holds what `number` + its index describes. */
static void expect(uint64_t number, const char *what)
{
    for (unsigned long i = 0; i < pages; i++)
        check_page(page_at(i), number + i, what, i);
}

static void full_write(int fd, const char *from, unsigned long bytes)
{
    while (bytes) {
        ssize_t n = write(fd, from, bytes);
        CHECK(n > 0);
        from += n;
        bytes -= n;
    }
}

/* A file takes all of memory; memory changes; the file gives it back. */
static void through_file(const char *folder, int flags, const char *what)
{
    char path[512];
    snprintf(path, sizeof path, "%s/syscalls.tmp", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | flags, 0600);
    if (fd < 0 && (flags & O_DIRECT) && errno == EINVAL)
        return; /* this file system has no direct input and output */
    CHECK(fd >= 0);
    full_write(fd, base, pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(page_at(i), 7);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    full_read(fd, base, pages * PAGE);
    expect(1000, what);
    for (unsigned long i = 0; i < pages; i += 97) {
        CHECK(pread(fd, page_at(pages - 1 - i), PAGE, i * PAGE) == (ssize_t)PAGE);
        check_page(page_at(pages - 1 - i), 1000 + i, "pread", i);
        fill_page(page_at(pages - 1 - i), 1000 + pages - 1 - i);
    }
    CHECK(!close(fd));
    CHECK(!unlink(path));
}

static void *pump(void *arg)
{
    full_write(*(int *)arg, base, pages / 2 * PAGE);
    return NULL;
}

/* One half of memory goes through a pipe or a socket into the other. */
static void through(int in, int out, const char *what)
{
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, pump, &in));
    full_read(out, page_at(pages / 2), pages / 2 * PAGE);
    CHECK(!pthread_join(thread, NULL));
    for (unsigned long i = 0; i < pages / 2; i++)
        check_page(page_at(pages / 2 + i), 1000 + i, what, i);
    for (unsigned long i = pages / 2; i < pages; i++)
        fill_page(page_at(i), 1000 + i);
}

/* Runs of single pages far from each other, in one call. */
static void scattered(void)
{
    int fd[2];
    CHECK(!pipe(fd));
    for (unsigned long start = 0; start + 16 < pages; start += 4096) {
        struct iovec from[8], to[8];
        for (int k = 0; k < 8; k++) {
            from[k] = (struct iovec){ page_at((start + k * 7919ul) % (pages / 2)), PAGE };
            to[k] = (struct iovec){ page_at(pages / 2 + (start + k * 104729ul) % (pages / 2)), PAGE };
        }
        CHECK(writev(fd[1], from, 8) == 8 * (ssize_t)PAGE);
        CHECK(readv(fd[0], to, 8) == 8 * (ssize_t)PAGE);
        for (int k = 0; k < 8; k++) {
            unsigned long i = ((char *)from[k].iov_base - base) / PAGE;
            check_page(to[k].iov_base, 1000 + i, "readv", i);
            unsigned long j = ((char *)to[k].iov_base - base) / PAGE;
            fill_page(to[k].iov_base, 1000 + j);
        }
    }
    close(fd[0]);
    close(fd[1]);
}

/* Strings and structures, not only buffers. */
static void small_things(const char *folder)
{
    for (unsigned long i = 0; i < pages; i += 509) {
        char *at = page_at(i) + PAGE - 600;
        struct stat *st = (struct stat *)page_at((i * 31) % pages);
        snprintf(at, 600, "%s", folder);
        CHECK(!stat(at, st));
        CHECK(S_ISDIR(st->st_mode));
        fill_page(page_at(i), 1000 + i);
        fill_page(page_at((i * 31) % pages), 1000 + (i * 31) % pages);
    }
}

static void from_another(void)
{
    struct iovec here, there;
    for (unsigned long i = 0; i + 1 < pages; i += 61) {
        char copy[PAGE];
        here = (struct iovec){ copy, PAGE };
        there = (struct iovec){ page_at(i), PAGE };
        CHECK(process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)PAGE);
        check_page(copy, 1000 + i, "process_vm_readv", i);
    }
}

int main(int argc, char **argv)
{
    const char *folder = argc > 2 ? argv[2] : "/tmp";
    int fd[2];
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(page_at(i), 1000 + i);
    through_file(folder, 0, "file");
    through_file(folder, O_DIRECT, "direct file");
    CHECK(!pipe(fd));
    through(fd[1], fd[0], "pipe");
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    through(fd[1], fd[0], "socket");
    scattered();
    small_things(folder);
    from_another();
    expect(1000, "end");
    puts("right");
    return 0;
}
