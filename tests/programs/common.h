/* What the test programs share: page contents that a number describes, a
 * small random generator, and failing with a message. */
#ifndef TMEM_COMMON_H
#define TMEM_COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define MIB (1ul << 20)

static inline void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* `condition` must hold; the message carries errno. */
#define CHECK(condition) \
    do { \
        if (!(condition)) \
            fail("%s:%d: %s: %s", __FILE__, __LINE__, #condition, strerror(errno)); \
    } while (0)

static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint64_t next_random(uint64_t *state)
{
    return mix((*state)++);
}

/* What word `at` of the page described by `number` holds. Number 0 is a page
 * of zeros. */
static inline uint64_t word_of(uint64_t number, unsigned long at)
{
    return number ? mix(number * WORDS + at) : 0;
}

static inline void fill_page(void *page, uint64_t number)
{
    uint64_t *words = page;
    for (unsigned long at = 0; at < WORDS; at++)
        words[at] = word_of(number, at);
}

/* Exits with a message unless `page` holds what `number` describes. */
static inline uint64_t check_page(const void *page, uint64_t number, const char *what, uint64_t id)
{
    const uint64_t *words = page;
    uint64_t sum = 0;
    for (unsigned long at = 0; at < WORDS; at++) {
        uint64_t got = words[at], want = word_of(number, at);
        if (got != want)
            fail("%s: page %lu (%p) word %lu: %016lx instead of %016lx (again: %016lx)", what,
                 (unsigned long)id, page, at, (unsigned long)got, (unsigned long)want,
                 (unsigned long)((const volatile uint64_t *)words)[at]);
        sum = sum * 31 + got;
    }
    return sum;
}

static inline void *map_anonymous(unsigned long bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        fail("mmap of %lu bytes: %s", bytes, strerror(errno));
    return at;
}

/* Pages of memory, each holding what its index + 1 describes. */
static inline char *map_filled(unsigned long pages)
{
    char *base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    return base;
}

static inline void full_read(int fd, char *to, unsigned long bytes)
{
    while (bytes) {
        ssize_t n = read(fd, to, bytes);
        CHECK(n > 0);
        to += n;
        bytes -= n;
    }
}

static inline unsigned long argument(int argc, char **argv, int at, unsigned long otherwise)
{
    return argc > at ? strtoul(argv[at], NULL, 0) : otherwise;
}

/* Whether a page is in memory, as the page map says: `mincore` tells what the
 * program is to believe. */
static inline int is_present(const void *page)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pread(fd, &entry, sizeof entry, (uintptr_t)page / PAGE * sizeof entry) == sizeof entry);
    close(fd);
    return entry >> 63 & 1;
}

/* Waits until a page has left, where all pages leave all the time. */
static inline void until_elsewhere(void *page)
{
    const char *when = getenv("TMEM_EVICT");
    while (when && !strcmp(when, "all") && is_present(page))
        usleep(500);
}

/* Says that a stage is reached and waits for a line, so that a test can do
 * something to the world in between. */
static inline void stage(const char *name)
{
    char line[64];
    printf("%s\n", name);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        fail("stage %s: standard input ended", name);
}
#endif
