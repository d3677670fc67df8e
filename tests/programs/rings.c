/* rings MIB FOLDER: input and output by io_uring into and out of buffers that are
 * registered, and so known to the kernel by their pages, while memory leaves. */
#include "common.h"
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { ENTRIES = 8, AT_ONCE = 4, BUFFER = 64 }; /* pages of a buffer */

static int ring;
static unsigned *tail, *mask, *array, *head_done, *tail_done, *mask_done;
static struct io_uring_sqe *asked;
static struct io_uring_cqe *done;

static void *part(unsigned long len, unsigned long offset)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    CHECK(at != MAP_FAILED);
    return at;
}

static void set_up(void)
{
    struct io_uring_params p = {0};
    ring = syscall(SYS_io_uring_setup, ENTRIES, &p);
    CHECK(ring >= 0);
    char *sq = part(p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *cq = part(p.cq_off.cqes + p.cq_entries * sizeof *done, IORING_OFF_CQ_RING);
    asked = part(p.sq_entries * sizeof *asked, IORING_OFF_SQES);
    tail = (unsigned *)(sq + p.sq_off.tail);
    mask = (unsigned *)(sq + p.sq_off.ring_mask);
    array = (unsigned *)(sq + p.sq_off.array);
    head_done = (unsigned *)(cq + p.cq_off.head);
    tail_done = (unsigned *)(cq + p.cq_off.tail);
    mask_done = (unsigned *)(cq + p.cq_off.ring_mask);
    done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

/* Reads or writes AT_ONCE buffers at a time, and waits for all of them. */
static void carry_out(int how, int fd, struct iovec *buffers, unsigned first)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        unsigned at = *tail & *mask;
        asked[at] = (struct io_uring_sqe){
            .opcode = how,
            .fd = fd,
            .addr = (uintptr_t)buffers[first + i].iov_base,
            .len = buffers[first + i].iov_len,
            .off = (first + i) * BUFFER * PAGE,
            .buf_index = first + i,
        };
        array[at] = at;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    }
    long n = syscall(SYS_io_uring_enter, ring, AT_ONCE, AT_ONCE, IORING_ENTER_GETEVENTS, NULL, 0);
    CHECK(n == AT_ONCE);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        CHECK(__atomic_load_n(tail_done, __ATOMIC_ACQUIRE) != *head_done);
        struct io_uring_cqe *one = &done[*head_done & *mask_done];
        if (one->res != (int)(BUFFER * PAGE))
            fail("%s: %d", how == IORING_OP_READ_FIXED ? "read" : "write", one->res);
        __atomic_store_n(head_done, *head_done + 1, __ATOMIC_RELEASE);
    }
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 16) * MIB / PAGE, used = pages / 4;
    unsigned count = used / BUFFER / AT_ONCE * AT_ONCE;
    char path[4096];
    snprintf(path, sizeof path, "%s/rings", argc > 2 ? argv[2] : "/tmp");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    char *base = map_filled(pages);
    until_elsewhere(base + (pages - 1) * PAGE);
    set_up();
    struct iovec buffers[1024];
    CHECK(count > 0 && count <= 1024);
    for (unsigned i = 0; i < count; i++)
        buffers[i] = (struct iovec){base + (unsigned long)i * BUFFER * PAGE, BUFFER * PAGE};
    CHECK(!syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, buffers, count));
    for (unsigned long round = 0; round < 3; round++) {
        for (unsigned i = 0; i < count; i += AT_ONCE)
            carry_out(IORING_OP_WRITE_FIXED, fd, buffers, i);
        /* Everything else is used meanwhile. */
        for (unsigned long i = used; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "beside the buffers", i);
        for (unsigned long i = 0; i < count * BUFFER; i++)
            fill_page(base + i * PAGE, 0x1000000 + i);
        for (unsigned i = 0; i < count; i += AT_ONCE)
            carry_out(IORING_OP_READ_FIXED, fd, buffers, i);
        for (unsigned long i = 0; i < count * BUFFER; i++)
            check_page(base + i * PAGE, i + 1 + round, "a buffer", i);
        for (unsigned long i = 0; i < count * BUFFER; i++)
            fill_page(base + i * PAGE, i + 2 + round);
    }
    CHECK(!syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0));
    for (unsigned long i = 0; i < count * BUFFER; i++)
        check_page(base + i * PAGE, i + 4, "what was a buffer", i);
    CHECK(!close(ring) && !unlink(path));
    puts("right");
    return 0;
}
