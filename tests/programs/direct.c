/* direct MIB FOLDER ROUNDS: a device writes into memory asynchronously, while
 * memory around leaves, and now and then at once, which is as quick as ever. Prints
 * "right", or "none" where the file system has no direct input. */
#include "common.h"
#include <linux/aio_abi.h>
#include <sys/syscall.h>

#define AT_ONCE 8
#define PIECE (16 * PAGE)

int main(int argc, char **argv)
{
    unsigned long pieces = argument(argc, argv, 1, 16) * MIB / PIECE;
    unsigned long rounds = argument(argc, argv, 3, 20);
    char path[512];
    aio_context_t context = 0;
    struct iocb calls[AT_ONCE], *pointers[AT_ONCE];
    struct io_event events[AT_ONCE];
    uint64_t random = 3;

    snprintf(path, sizeof path, "%s/direct.tmp", argc > 2 ? argv[2] : "/tmp");
    char *base = map_filled(pieces * PIECE / PAGE);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, base, pieces * PIECE) == (ssize_t)(pieces * PIECE));
    CHECK(!fsync(fd) && !close(fd));
    fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0 && errno == EINVAL) {
        puts("none");
        return unlink(path);
    }
    CHECK(fd >= 0 && !syscall(SYS_io_setup, AT_ONCE, &context));
    /* More than there may be, where it cannot leave any more. */
    char *more = map_filled(pieces * PIECE / PAGE);
    for (unsigned long round = 0; round < rounds; round++) {
        unsigned long first = next_random(&random) % (pieces - AT_ONCE);
        for (unsigned long i = 0; i < AT_ONCE; i++) {
            memset(base + (first + i) * PIECE, (int)round, PIECE);
            calls[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD,
                                      .aio_fildes = (uint32_t)fd,
                                      .aio_buf = (uintptr_t)(base + (first + i) * PIECE),
                                      .aio_nbytes = PIECE,
                                      .aio_offset = (int64_t)((first + i) * PIECE) };
            pointers[i] = &calls[i];
        }
        CHECK(syscall(SYS_io_submit, context, AT_ONCE, pointers) == AT_ONCE);
        unsigned long other = next_random(&random) % (pieces * PIECE / PAGE);
        if (other / 16 < first || other / 16 >= first + AT_ONCE)
            check_page(base + other * PAGE, other + 1, "memory", other);
        CHECK(syscall(SYS_io_getevents, context, AT_ONCE, AT_ONCE, events, NULL) == AT_ONCE);
        for (unsigned long i = 0; i < AT_ONCE; i++)
            if (events[i].res != (int64_t)PIECE)
                fail("a read ended with %ld", (long)events[i].res);
        for (unsigned long i = 0; i < AT_ONCE; i++) {
            off_t at = (off_t)((first + i) * PIECE);
            CHECK(pread(fd, base + at, PIECE, at) == (ssize_t)PIECE);
        }
        for (unsigned long i = first * 16; i < (first + AT_ONCE) * 16; i++)
            check_page(base + i * PAGE, i + 1, "what was read", i);
    }
    for (unsigned long i = 0; i < pieces * PIECE / PAGE; i++)
        check_page(more + i * PAGE, i + 1, "more memory", i);
    CHECK(!syscall(SYS_io_destroy, context) && !unlink(path));
    puts("right");
    return 0;
}
