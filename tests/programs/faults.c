/* faults MIB: a program with a userfaultfd of its own. It registers memory of which
 * some was written before, and is elsewhere, and serves the faults in the rest; then
 * it moves pages into memory that it serves, where the kernel can. */
#include "common.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

enum { USER_MODE_ONLY = 1 };
#ifndef UFFDIO_MOVE
struct uffdio_move {
    uint64_t dst, src, len, mode;
    int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

static int uffd;
static char *base;
static char *from;
static unsigned long served;
static unsigned long moved;

/* Brings pages as long as there are faults: those of every fourth are moved. */
static void *serve(void *unused)
{
    static char page[PAGE] __attribute__((aligned(4096)));
    struct uffd_msg message;
    (void)unused;
    while (read(uffd, &message, sizeof message) == (ssize_t)sizeof message) {
        CHECK(message.event == UFFD_EVENT_PAGEFAULT);
        unsigned long at = message.arg.pagefault.address & -PAGE;
        unsigned long number = (at - (unsigned long)base) / PAGE;
        struct uffdio_move move = {.dst = at, .src = (unsigned long)from + number * PAGE, .len = PAGE};
        /* Before the thread that waits goes on. */
        served++;
        if (number % 4 == 0 && !ioctl(uffd, UFFDIO_MOVE, &move)) {
            moved++;
        } else {
            fill_page(page, number + 1);
            struct uffdio_copy copy = {.dst = at, .src = (unsigned long)page, .len = PAGE};
            CHECK(!ioctl(uffd, UFFDIO_COPY, &copy));
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 16) * MIB / PAGE, before = pages / 4;
    struct uffdio_api api = {.api = UFFD_API};
    pthread_t server;
    uffd = syscall(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY);
    CHECK(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api));
    from = map_filled(pages);
    base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    /* Or else there are zeros beside what was written. */
    (void)madvise(base, pages * PAGE, MADV_NOHUGEPAGE);
    for (unsigned long i = 0; i < before; i++)
        fill_page(base + i * PAGE, i + 1);
    until_elsewhere(base);
    until_elsewhere(from);
    struct uffdio_register own = {
        .range = {.start = (unsigned long)base, .len = pages * PAGE},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    CHECK(!ioctl(uffd, UFFDIO_REGISTER, &own));
    CHECK(!pthread_create(&server, NULL, serve, NULL));
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 1, "memory that is served", i);
    printf("served %lu of %lu, moved %lu\n", served, pages, moved);
    CHECK(!ioctl(uffd, UFFDIO_UNREGISTER, &own.range));
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 2);
    /* Beside the stack of the thread a page or two may stay. */
    until_elsewhere(base + pages / 2 * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        check_page(base + i * PAGE, i + 2, "memory that was served", i);
    for (unsigned long i = 0; i < before; i++)
        check_page(from + i * PAGE, i + 1, "memory of which some was moved", i);
    puts("right");
    return 0;
}
