/* calls MIB WHAT [FOLDER]: what functions that tmem interposes leave alone. error: the
 * pending error of dlopen; errno: errno, where they succeed; cancel: that a thread ends in
 * them; vfork: the limits of the parent. */
#include "common.h"
#include <dlfcn.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* So many that they are not over before the engine has begun. */
#define ROUNDS 64
#define BLOCK MIB

static unsigned long pages;
static char *base;

/* Checks one page of eight, others each time. */
static void check_memory(void)
{
    static unsigned long first;
    for (unsigned long i = first++ % 8; i < pages; i += 8)
        check_page(base + i * PAGE, i + 1, "memory", i);
}

/* Calls one of each kind; all succeed. `where` says after which errno was not `before`. */
static const char *call_all(int pipe_out, int pipe_in, int before)
{
    static char text[64];
    struct rlimit limit;
    struct iovec vector = {text, 1};
    pthread_mutexattr_t robust;
    pthread_mutex_t mutex;
    unsigned char resident[8];
    int waiting;
    char *p, *m;
#define LEAVES(call) \
    do { \
        errno = before; \
        if (!(call)) \
            return #call ": failed"; \
        if (errno != before) \
            return #call; \
    } while (0)
    LEAVES((p = malloc(BLOCK)));
    LEAVES((fill_page(p, 7), 1));
    LEAVES((p = realloc(p, 2 * BLOCK)));
    LEAVES((check_page(p, 7, "a block", 0), 1));
    LEAVES((free(p), 1));
    LEAVES((p = calloc(BLOCK, 1)));
    LEAVES((free(p), 1));
    LEAVES((m = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) !=
           MAP_FAILED);
    LEAVES((fill_page(m, 8), 1));
    LEAVES((m = mremap(m, BLOCK, 2 * BLOCK, MREMAP_MAYMOVE)) != MAP_FAILED);
    LEAVES((check_page(m, 8, "a mapping", 0), 1));
    LEAVES(!mincore(m, 8 * PAGE, resident));
    LEAVES(!madvise(m, BLOCK, MADV_DONTNEED));
    LEAVES(!*(volatile char *)m);
    LEAVES(!munmap(m, 2 * BLOCK));
    LEAVES(write(pipe_in, "abc", 3) == 3);
    LEAVES(!ioctl(pipe_out, FIONREAD, &waiting) && waiting == 3);
    LEAVES(read(pipe_out, text, 1) == 1);
    LEAVES(readv(pipe_out, &vector, 1) == 1);
    LEAVES(syscall(SYS_read, pipe_out, text, 1) == 1);
    LEAVES(!getrlimit(RLIMIT_AS, &limit));
    LEAVES(!setrlimit(RLIMIT_AS, &limit));
    LEAVES(!prlimit(0, RLIMIT_NOFILE, NULL, &limit));
    LEAVES(prctl(PR_GET_DUMPABLE) >= 0);
    LEAVES(!pthread_mutexattr_init(&robust));
    LEAVES(!pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST));
    LEAVES(!pthread_mutex_init(&mutex, &robust));
    LEAVES(!pthread_mutex_destroy(&mutex));
    return NULL;
}

static void errors(void)
{
    /* The text of the last error is the C library's to free, at the next call. */
    CHECK(!dlopen("libtmem-none.so.1", RTLD_NOW));
    CHECK(!dlopen("libtmem-none.so.2", RTLD_NOW));
    int ends[2];
    CHECK(!pipe(ends));
    for (int round = 0; round < ROUNDS; round++) {
        const char *where = call_all(ends[0], ends[1], 0);
        if (where)
            fail("errno after %s: %s", where, strerror(errno));
        check_memory();
    }
    const char *error = dlerror();
    if (!error || !strstr(error, "libtmem-none.so.2"))
        fail("the pending error is gone: %s", error ? error : "none");
    printf("%s\n", error);
}

static void numbers(void)
{
    int ends[2];
    CHECK(!pipe(ends));
    for (int round = 0; round < ROUNDS; round++) {
        const char *where = call_all(ends[0], ends[1], EXDEV);
        if (where)
            fail("errno after %s: %s", where, strerror(errno));
        check_memory();
    }
}

struct reader {
    int fd, kind;
    int cleaned;
};

static void clean(void *arg)
{
    ((struct reader *)arg)->cleaned = 1;
}

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    void *block;
    CHECK(!posix_memalign(&block, PAGE, 4 * PAGE));
    struct iovec vector = {block, 4 * PAGE};
    pthread_cleanup_push(clean, reader);
    pthread_cleanup_push(free, block);
    for (;;)
        switch (reader->kind) {
        case 0:
            read(reader->fd, block, 4 * PAGE);
            break;
        case 1:
            readv(reader->fd, &vector, 1);
            break;
        case 2:
            pread(reader->fd, block, 4 * PAGE, 0);
            break;
        default:
            preadv(reader->fd, &vector, 1, 0);
        }
    pthread_cleanup_pop(1);
    pthread_cleanup_pop(1);
    return NULL;
}

static void cancel(const char *folder)
{
    char path[4096];
    int ends[2];
    snprintf(path, sizeof path, "%s/direct", folder);
    CHECK(!pipe(ends));
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && !ftruncate(file, 16 * PAGE));
    /* Where the file system has no direct input, the file is read as any other. */
    int direct = open(path, O_RDONLY | O_DIRECT);
    if (direct < 0)
        direct = file;
    for (int round = 0; round < ROUNDS / 4; round++) {
        struct reader reader = {round % 3 ? direct : ends[0], 0, 0};
        reader.kind = round % 3 ? round % 4 : round % 2;
        pthread_t thread;
        void *result;
        CHECK(!pthread_create(&thread, NULL, read_on, &reader));
        for (unsigned long i = 0; i < pages; i += 7)
            check_page(base + i * PAGE, i + 1, "memory", i);
        CHECK(!pthread_cancel(thread) && !pthread_join(thread, &result));
        if (result != PTHREAD_CANCELED || !reader.cleaned)
            fail("round %d: not cancelled", round);
    }
}

static void limits(void)
{
    struct rlimit large = {1ul << 44, RLIM_INFINITY}, got;
    CHECK(!setrlimit(RLIMIT_DATA, &large));
    for (int round = 0; round < ROUNDS; round++) {
        pid_t child = vfork();
        if (!child) {
            static struct rlimit small;
            small.rlim_cur = 1ul << 40, small.rlim_max = 1ul << 41;
            _exit(setrlimit(RLIMIT_DATA, &small) != 0);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && !status);
        CHECK(!getrlimit(RLIMIT_DATA, &got));
        if (got.rlim_cur != large.rlim_cur || got.rlim_max != large.rlim_max)
            fail("limits %lx, %lx", got.rlim_cur, got.rlim_max);
        check_memory();
    }
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    pages = strtoul(argv[1], NULL, 10) * MIB / PAGE;
    base = malloc(pages * PAGE);
    CHECK(base);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    if (!strcmp(argv[2], "error"))
        errors();
    else if (!strcmp(argv[2], "errno"))
        numbers();
    else if (!strcmp(argv[2], "cancel"))
        cancel(argv[3]);
    else
        limits();
    check_memory();
    puts("right");
    return 0;
}
