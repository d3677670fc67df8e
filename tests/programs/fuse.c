/* fuse MIB FOLDER: direct input and output of a file system in user space. Its answers are
 * late, and meanwhile the kernel refers to pages of the program. As root, and where there is
 * such a file system. */
#include "common.h"
#include <linux/fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { RUN = 16, LATE_US = 2000, FIRST = 1 << 20 };

static unsigned long pages;
static char message[RUN * PAGE + 8192];

static void answer(int fd, uint64_t unique, int error, const void *data, unsigned size)
{
    static char out[sizeof(struct fuse_out_header) + RUN * PAGE];
    struct fuse_out_header head = { sizeof head + size, error, unique };
    memcpy(out, &head, sizeof head);
    memcpy(out + sizeof head, data, size);
    /* Who asked may have gone. */
    CHECK(write(fd, out, head.len) == (ssize_t)head.len || errno == ENOENT);
}

static void answer_read(int fd, uint64_t unique, const struct fuse_read_in *in)
{
    static char data[RUN * PAGE];
    CHECK(in->size <= sizeof data && in->size % PAGE == 0 && in->offset % PAGE == 0);
    for (unsigned long at = 0; at < in->size; at += PAGE)
        fill_page(data + at, FIRST + (in->offset + at) / PAGE);
    usleep(LATE_US);
    answer(fd, unique, 0, data, in->size);
}

/* What is written is the file's page number and the page's number in the program. */
static void answer_write(int fd, uint64_t unique, const struct fuse_write_in *in)
{
    const char *data = (const char *)(in + 1);
    for (unsigned long at = 0; at < in->size; at += PAGE)
        check_page(data + at, (in->offset + at) / PAGE + 1, "written", in->offset / PAGE);
    struct fuse_write_out out = { .size = in->size };
    answer(fd, unique, 0, &out, sizeof out);
}

/* The file system: one file, of which pages have contents that follow from their numbers. */
static void serve(int fd)
{
    struct fuse_attr attr = { .ino = 1, .size = pages * PAGE, .mode = S_IFREG | 0600, .nlink = 1 };
    for (;;) {
        usleep(LATE_US);
        ssize_t n = read(fd, message, sizeof message);
        if (n < 0 && errno == ENODEV)
            return;
        if (n < 0 && (errno == EINTR || errno == ENOENT))
            continue;
        CHECK(n >= (ssize_t)sizeof(struct fuse_in_header));
        const struct fuse_in_header *in = (void *)message;
        const void *body = in + 1;
        if (in->opcode == FUSE_INIT) {
            struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = 31 };
            out.max_write = RUN * PAGE;
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_GETATTR) {
            struct fuse_attr_out out = { .attr = attr };
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_OPEN) {
            struct fuse_open_out out = { .open_flags = FOPEN_DIRECT_IO };
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_READ) {
            answer_read(fd, in->unique, body);
        } else if (in->opcode == FUSE_WRITE) {
            answer_write(fd, in->unique, body);
        } else if (in->opcode == FUSE_RELEASE) {
            answer(fd, in->unique, 0, NULL, 0);
        } else if (in->opcode != FUSE_FORGET && in->opcode != FUSE_INTERRUPT) {
            answer(fd, in->unique, -ENOSYS, NULL, 0);
        }
    }
}

/* Mounts the file. Returns 0 where that is not allowed. */
static int mount_at(const char *path, int fd)
{
    char options[128];
    struct stat there;
    if (fd < 0 || unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return 0;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && !fstat(file, &there) && !close(file));
    snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0", fd,
             (unsigned)there.st_mode);
    return !mount("tmem-test", path, "fuse", MS_NOSUID | MS_NODEV, options);
}

int main(int argc, char **argv)
{
    char path[512];
    pages = argument(argc, argv, 1, 16) * MIB / PAGE;
    snprintf(path, sizeof path, "%s/fuse.tmp", argc > 2 ? argv[2] : "/tmp");
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (!mount_at(path, fd)) {
        puts("right");
        return 0;
    }
    pid_t server = fork();
    CHECK(server >= 0);
    if (!server) {
        CHECK(!prctl(PR_SET_PDEATHSIG, SIGKILL));
        serve(fd);
        _exit(0);
    }
    CHECK(!close(fd));
    char *base = map_filled(pages);
    until_elsewhere(base);
    int file = open(path, O_RDWR | O_CLOEXEC);
    CHECK(file >= 0);
    for (unsigned long i = 0; i + 2 * RUN <= pages; i += 2 * RUN) {
        CHECK(pwrite(file, base + i * PAGE, RUN * PAGE, i * PAGE) == (ssize_t)(RUN * PAGE));
        unsigned long to = i + RUN;
        CHECK(pread(file, base + to * PAGE, RUN * PAGE, to * PAGE) == (ssize_t)(RUN * PAGE));
        for (unsigned long p = to; p < to + RUN; p++)
            check_page(base + p * PAGE, FIRST + p, "read", p);
    }
    for (unsigned long i = 0; i < pages / (2 * RUN) * 2 * RUN; i++)
        check_page(base + i * PAGE, i / RUN % 2 ? FIRST + i : i + 1, "end", i);
    CHECK(!close(file) && !umount2(path, MNT_DETACH));
    int status;
    CHECK(waitpid(server, &status, 0) == server && status == 0);
    CHECK(!unlink(path));
    puts("right");
    return 0;
}
