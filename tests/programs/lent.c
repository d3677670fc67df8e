/* lent MIB WAY: lends pages to a pipe or a socket, makes much else leave and come back, and
 * then reads the pipe or socket. WAY is pipe, gift, changed, tcp or ring; `changed` lends to a
 * pipe and then writes to the pages, which the pipe shows. `lent_raw` makes the calls that
 * lend by an instruction of its own. */
#include "common.h"
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Pages that are lent at a time, and at most in a round: more than a peer's window takes,
 * since what has arrived on this machine is copied. */
enum { ROUNDS = 12, AT_ONCE = 16, MOST = 128 };

/* Which of Linux's headers has it differs. */
#ifndef IORING_CQE_F_NOTIF
#define IORING_CQE_F_NOTIF 8
#endif
enum { SEND_ZC = 47 };

static char *memory;
static unsigned long pages;

#ifdef RAW
/* The number is a constant wherever this is used, as in a library for one call. */
static inline __attribute__((always_inline)) long make(const long number, const long *args)
{
    register long r10 __asm__("r10") = args[3], r8 __asm__("r8") = args[4], r9 __asm__("r9") = args[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (result < 0 && result > -4096) {
        errno = -result;
        return -1;
    }
    return result;
}
#define instruction(number, ...) make(number, (long[6]){__VA_ARGS__})
#define vmsplice(a, b, c, d) instruction(SYS_vmsplice, a, (long)(b), c, d)
#define setsockopt(a, b, c, d, e) instruction(SYS_setsockopt, a, b, c, (long)(d), e)
#define io_uring_setup(a, b) instruction(SYS_io_uring_setup, a, (long)(b))
#else
#define io_uring_setup(a, b) syscall(SYS_io_uring_setup, a, b)
#endif

/* Makes all pages leave that do so in the order of their use. */
static void use_much(void)
{
    for (unsigned long i = 0; i < pages; i++) {
        uint64_t *page = (uint64_t *)(memory + i * PAGE);
        CHECK(page[7] == word_of(i + 1, 7));
        page[7] = word_of(i + 1, 7);
    }
}

static void take(int fd, char *to, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, to, len);
        CHECK(n > 0);
        to += n;
        len -= n;
    }
}

/* Each way lends memory from `what` on and has much else leave. It reads into `out` what
 * was lent, and returns how many bytes. */
static size_t by_pipe(char *what, unsigned flags, int changes, char *out)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct iovec part = {what, AT_ONCE * PAGE};
    CHECK(vmsplice(ends[1], &part, 1, flags) == AT_ONCE * PAGE);
    use_much();
    if (changes) {
        for (size_t i = 0; i < AT_ONCE; i++)
            fill_page(what + i * PAGE, i + 900000);
        take(ends[0], out, part.iov_len);
        for (size_t i = 0; i < AT_ONCE; i++) {
            check_page(out + i * PAGE, i + 900000, "changed", i);
            fill_page(what + i * PAGE, (what - memory) / PAGE + i + 1);
        }
        part.iov_len = 0;
    } else {
        take(ends[0], out, part.iov_len);
    }
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
    return part.iov_len;
}

/* Two sockets that are connected to each other, the second of which takes little. */
static void connect_two(int *from, int *to)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM, 0), small = 16 << 10, large = 4 << 20;
    CHECK(setsockopt(listening, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    CHECK(bind(listening, (struct sockaddr *)&at, sizeof at) == 0 && listen(listening, 1) == 0);
    CHECK(getsockname(listening, (struct sockaddr *)&at, &len) == 0);
    *from = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(*from, SOL_SOCKET, SO_SNDBUF, &large, sizeof large) == 0);
    CHECK(connect(*from, (struct sockaddr *)&at, sizeof at) == 0);
    *to = accept(listening, NULL, NULL);
    CHECK(*to >= 0 && close(listening) == 0);
}

static size_t by_tcp(char *what, char *out)
{
    int from, to, one = 1;
    connect_two(&from, &to);
    CHECK(setsockopt(from, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one) == 0);
    size_t sent = 0;
    while (sent < MOST * PAGE) {
        ssize_t n = send(from, what + sent, AT_ONCE * PAGE, MSG_ZEROCOPY | MSG_DONTWAIT);
        CHECK(n > 0 || errno == EAGAIN);
        if (n < 0)
            break;
        sent += n;
    }
    use_much();
    take(to, out, sent);
    CHECK(close(from) == 0 && close(to) == 0);
    return sent;
}

static void *ring_part(int ring, unsigned long len, unsigned long offset)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    CHECK(at != MAP_FAILED);
    return at;
}

static size_t by_ring(char *what, char *out)
{
    enum { SENDS = MOST / AT_ONCE };
    struct io_uring_params p = {0};
    int ring = io_uring_setup(SENDS, &p);
    CHECK(ring >= 0);
    unsigned long sq_len = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    unsigned long cq_len = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    unsigned long sqe_len = p.sq_entries * sizeof(struct io_uring_sqe);
    char *sq = ring_part(ring, sq_len, IORING_OFF_SQ_RING);
    char *cq = ring_part(ring, cq_len, IORING_OFF_CQ_RING);
    struct io_uring_sqe *asked = ring_part(ring, sqe_len, IORING_OFF_SQES);
    int from, to;
    connect_two(&from, &to);
    for (unsigned i = 0; i < SENDS; i++) {
        asked[i] = (struct io_uring_sqe){
            .opcode = SEND_ZC,
            /* One after the other. */
            .flags = IOSQE_IO_LINK,
            .fd = from,
            .addr = (uintptr_t)what + i * AT_ONCE * PAGE,
            .len = AT_ONCE * PAGE,
            .msg_flags = MSG_DONTWAIT,
            .user_data = i + 1,
        };
        ((unsigned *)(sq + p.sq_off.array))[i] = i;
    }
    __atomic_store_n((unsigned *)(sq + p.sq_off.tail), SENDS, __ATOMIC_RELEASE);
    CHECK(syscall(SYS_io_uring_enter, ring, SENDS, SENDS, IORING_ENTER_GETEVENTS, NULL, 0) > 0);
    /* A part of a request, or none of it, may have been sent where the queue was full;
     * what is sent after it is cancelled. */
    size_t sent = 0;
    unsigned done = __atomic_load_n((unsigned *)(cq + p.cq_off.tail), __ATOMIC_ACQUIRE);
    struct io_uring_cqe *cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    for (unsigned i = 0; i < done; i++)
        if (cqes[i].user_data != 0 && !(cqes[i].flags & IORING_CQE_F_NOTIF) && cqes[i].res > 0)
            sent += cqes[i].res;
    CHECK(sent > 0);
    use_much();
    take(to, out, sent);
    CHECK(close(from) == 0 && close(to) == 0);
    CHECK(munmap(sq, sq_len) == 0 && munmap(cq, cq_len) == 0 && munmap(asked, sqe_len) == 0);
    CHECK(close(ring) == 0);
    return sent;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    pages = atol(argv[1]) * MIB / PAGE;
    const char *way = argv[2];
    memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(memory + i * PAGE, i + 1);
    static char out[MOST * PAGE];
    for (unsigned long round = 0; round < ROUNDS; round++) {
        unsigned long first = (round * 331 + 50) % (pages - MOST);
        char *what = memory + first * PAGE;
        size_t len = 0;
        if (strcmp(way, "pipe") == 0)
            len = by_pipe(what, 0, 0, out);
        else if (strcmp(way, "changed") == 0)
            len = by_pipe(what, 0, 1, out);
        else if (strcmp(way, "gift") == 0)
            len = by_pipe(what, SPLICE_F_GIFT, 0, out);
        else if (strcmp(way, "tcp") == 0)
            len = by_tcp(what, out);
        else if (strcmp(way, "ring") == 0)
            len = by_ring(what, out);
        else
            fail("no such way: %s", way);
        for (unsigned long i = 0; i < len / PAGE; i++)
            check_page(out + i * PAGE, first + i + 1, "lent", i);
    }
    for (unsigned long i = 0; i < pages; i++)
        check_page(memory + i * PAGE, i + 1, "own", i);
    puts("right");
    return 0;
}
