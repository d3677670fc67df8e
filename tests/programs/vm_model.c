/* vm_model SEED OPERATIONS MIB [THREADS [spoil]]: maps, remaps, protects, advises and
 * unmaps memory at random, fills it, and compares it with a model. Each thread
 * has regions of its own; the first one also moves the program break. Prints
 * a checksum that depends on the arguments alone. With "spoil" one byte changes
 * behind the model's back, which it must find. */
#include "common.h"
#include <sys/uio.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define REGIONS 24

/* What a page should hold: the page that `number` describes, but for its first
 * and last word, which are `stamp` if that is not 0. */
struct page {
    uint32_t number, stamp;
    uint8_t readable, writable;
    uint8_t maybe_zero; /* after MADV_FREE, until it is written again */
};

struct region {
    char *at;
    unsigned long pages;
    struct page *model; /* mapped beside, `most` entries */
    int simple;         /* one mapping as far as the kernel is concerned */
    int is_break;
};

struct walker {
    uint64_t random, sum;
    unsigned long operations, most; /* pages a region may have */
    unsigned long seed;
    struct region regions[REGIONS];
    uint32_t numbers;
    int moves_break, spoil, pipe[2];
    unsigned long done;
    const char *doing;
};

static unsigned long below(struct walker *w, unsigned long limit)
{
    return limit ? next_random(&w->random) % limit : 0;
}

static void mismatch(struct walker *w, struct region *r, unsigned long i, unsigned long word,
                     uint64_t got, uint64_t want)
{
    fail("seed %lu operation %lu (%s): %s page %lu of %lu (%p) word %lu: %016lx instead of "
         "%016lx (number %u stamp %u)",
         w->seed, w->done, w->doing, r->is_break ? "break" : "region", i, r->pages,
         r->at + i * PAGE, word, (unsigned long)got, (unsigned long)want, r->model[i].number,
         r->model[i].stamp);
}

static uint64_t wanted(const struct page *p, unsigned long word)
{
    if (p->stamp && (word == 0 || word == WORDS - 1))
        return p->stamp;
    /* Some pages are all zeros though they were written. */
    return p->number % 8 == 0 ? 0 : word_of(p->number, word);
}

static int all_zero(const uint64_t *words)
{
    for (unsigned long at = 0; at < WORDS; at++)
        if (words[at])
            return 0;
    return 1;
}

static void verify_page(struct walker *w, struct region *r, unsigned long i, const uint64_t *words)
{
    struct page *p = &r->model[i];
    if (p->maybe_zero && all_zero(words)) {
        p->number = p->stamp = 0;
        return;
    }
    for (unsigned long at = 0; at < WORDS; at++)
        if (words[at] != wanted(p, at))
            mismatch(w, r, i, at, words[at], wanted(p, at));
    if (!p->maybe_zero)
        w->sum = w->sum * 31 + words[0] + words[WORDS / 2];
}

static void write_page(struct walker *w, struct region *r, unsigned long i)
{
    struct page *p = &r->model[i];
    uint64_t *words = (uint64_t *)(r->at + i * PAGE);
    if (below(w, 4) == 0 && !p->maybe_zero) {
        p->stamp = (uint32_t)below(w, UINT32_MAX) | 1;
        words[0] = words[WORDS - 1] = p->stamp;
        return;
    }
    *p = (struct page){ .number = ++w->numbers, .readable = 1, .writable = 1 };
    for (unsigned long at = 0; at < WORDS; at++)
        words[at] = wanted(p, at);
}

/* A random run of pages of `r`. */
static void pick_run(struct walker *w, struct region *r, unsigned long *first, unsigned long *pages)
{
    unsigned long most = below(w, 4) ? 1 + r->pages / 16 : r->pages;
    *first = below(w, r->pages);
    *pages = 1 + below(w, most);
    if (*pages > r->pages - *first)
        *pages = r->pages - *first;
}

static void do_map(struct walker *w, struct region *r)
{
    w->doing = "mmap";
    r->pages = 1 + below(w, w->most);
    r->at = map_anonymous(r->pages * PAGE);
    r->simple = 1;
    for (unsigned long i = 0; i < r->pages; i++)
        r->model[i] = (struct page){ .readable = 1, .writable = 1 };
}

static void do_write(struct walker *w, struct region *r, unsigned long first, unsigned long pages)
{
    w->doing = "write";
    for (unsigned long i = first; i < first + pages; i++)
        if (r->model[i].writable)
            write_page(w, r, i);
}

static void do_verify(struct walker *w, struct region *r, unsigned long first, unsigned long pages)
{
    w->doing = "verify";
    for (unsigned long i = first; i < first + pages; i++)
        if (r->model[i].readable)
            verify_page(w, r, i, (uint64_t *)(r->at + i * PAGE));
}

/* The kernel reads the page and writes it back into a copy. */
static void do_pipe(struct walker *w, struct region *r, unsigned long i)
{
    uint64_t copy[WORDS];
    w->doing = "pipe";
    if (!r->model[i].readable)
        return;
    CHECK(write(w->pipe[1], r->at + i * PAGE, PAGE) == (ssize_t)PAGE);
    CHECK(read(w->pipe[0], copy, PAGE) == (ssize_t)PAGE);
    verify_page(w, r, i, copy);
    if (!r->model[i].writable)
        return;
    struct page *p = &r->model[i];
    *p = (struct page){ .number = ++w->numbers, .readable = 1, .writable = 1 };
    for (unsigned long at = 0; at < WORDS; at++)
        copy[at] = wanted(p, at);
    CHECK(write(w->pipe[1], copy, PAGE) == (ssize_t)PAGE);
    CHECK(read(w->pipe[0], r->at + i * PAGE, PAGE) == (ssize_t)PAGE);
}

static void do_protect(struct walker *w, struct region *r, unsigned long first, unsigned long pages)
{
    static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
    int prot = prots[below(w, 3)];
    w->doing = "mprotect";
    CHECK(!mprotect(r->at + first * PAGE, pages * PAGE, prot));
    r->simple = 0;
    for (unsigned long i = first; i < first + pages; i++) {
        r->model[i].readable = prot != PROT_NONE;
        r->model[i].writable = (prot & PROT_WRITE) != 0;
    }
}

static void do_advise(struct walker *w, struct region *r, unsigned long first, unsigned long pages)
{
    static const int advices[] = { MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_COLD,
                                   MADV_PAGEOUT, MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                                   MADV_POPULATE_READ, MADV_POPULATE_WRITE };
    static const char *names[] = { "DONTNEED", "DONTNEED", "FREE", "COLD", "PAGEOUT", "WILLNEED",
                                   "HUGEPAGE", "NOHUGEPAGE", "POPULATE_READ", "POPULATE_WRITE" };
    unsigned long which = below(w, sizeof advices / sizeof advices[0]);
    int advice = advices[which];
    w->doing = names[which];
    if (advice == MADV_HUGEPAGE || advice == MADV_NOHUGEPAGE)
        r->simple = 0;
    if (madvise(r->at + first * PAGE, pages * PAGE, advice)) {
        /* Populating asks for the access that the protection may refuse. */
        if (advice != MADV_POPULATE_READ && advice != MADV_POPULATE_WRITE)
            fail("seed %lu operation %lu: madvise %s: %s", w->seed, w->done, w->doing,
                 strerror(errno));
        return;
    }
    for (unsigned long i = first; i < first + pages; i++) {
        if (advice == MADV_DONTNEED)
            r->model[i].number = r->model[i].stamp = r->model[i].maybe_zero = 0;
        if (advice == MADV_FREE)
            r->model[i].maybe_zero = 1;
    }
}

/* Unmaps a run and maps it anew: zeros again, readable and writable. */
static void do_renew(struct walker *w, struct region *r, unsigned long first, unsigned long pages)
{
    char *at = r->at + first * PAGE;
    w->doing = "mmap over";
    CHECK(mmap(at, pages * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    r->simple = 0;
    for (unsigned long i = first; i < first + pages; i++)
        r->model[i] = (struct page){ .readable = 1, .writable = 1 };
}

/* A region of several mappings may be refused or not, as its neighbours are;
 * one mapping must not be. */
static void do_remap(struct walker *w, struct region *r)
{
    unsigned long pages = 1 + below(w, w->most);
    w->doing = "mremap";
    if (!r->simple)
        return;
    char *at = mremap(r->at, r->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
        fail("seed %lu operation %lu: mremap %lu to %lu pages: %s", w->seed, w->done, r->pages,
             pages, strerror(errno));
    for (unsigned long i = r->pages; i < pages; i++)
        r->model[i] = (struct page){ .readable = 1, .writable = 1 };
    r->at = at;
    r->pages = pages;
}

/* Moves all pages elsewhere and leaves the old range mapped, to be empty. */
static void do_leave(struct walker *w, struct region *r)
{
    w->doing = "mremap DONTUNMAP";
    if (!r->simple)
        return;
    char *at = mremap(r->at, r->pages * PAGE, r->pages * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
                      NULL);
    if (at == MAP_FAILED)
        fail("seed %lu operation %lu: mremap DONTUNMAP: %s", w->seed, w->done, strerror(errno));
    for (unsigned long i = 0; i < r->pages; i += 7)
        if (!all_zero((uint64_t *)(r->at + i * PAGE)))
            fail("seed %lu operation %lu: a page that moved away is not empty", w->seed, w->done);
    CHECK(!munmap(r->at, r->pages * PAGE));
    r->at = at;
}

static void do_break(struct walker *w, struct region *r)
{
    unsigned long pages = 1 + below(w, w->most);
    w->doing = "brk";
    CHECK(!brk(r->at + pages * PAGE));
    for (unsigned long i = r->pages; i < pages; i++)
        r->model[i] = (struct page){ .readable = 1, .writable = 1 };
    r->pages = pages;
}

static void do_unmap(struct walker *w, struct region *r)
{
    w->doing = "munmap";
    CHECK(!munmap(r->at, r->pages * PAGE));
    r->pages = 0;
}

static void step(struct walker *w)
{
    struct region *r = &w->regions[below(w, REGIONS)];
    unsigned long first, pages, what = below(w, 100);
    if (!r->pages) {
        do_map(w, r);
        return;
    }
    pick_run(w, r, &first, &pages);
    if (what < 35)
        do_write(w, r, first, pages);
    else if (what < 65)
        do_verify(w, r, first, pages);
    else if (what < 70)
        do_pipe(w, r, first);
    else if (what < 82)
        do_advise(w, r, first, pages);
    else if (r->is_break)
        do_break(w, r); /* the others would not leave a break to move */
    else if (what < 85)
        do_protect(w, r, first, pages);
    else if (what < 87)
        do_renew(w, r, first, pages);
    else if (what < 93)
        do_remap(w, r);
    else if (what < 98)
        do_leave(w, r);
    else
        do_unmap(w, r);
}

static void spoil(struct walker *w)
{
    for (int i = 0; i < REGIONS; i++)
        for (unsigned long n = 0; n < w->regions[i].pages; n++)
            if (w->regions[i].model[n].writable && !w->regions[i].model[n].maybe_zero) {
                w->regions[i].at[n * PAGE + 100] ^= 1;
                return;
            }
}

static void *walk(void *arg)
{
    struct walker *w = arg;
    CHECK(!pipe(w->pipe));
    for (int i = 0; i < REGIONS; i++)
        w->regions[i].model = map_anonymous(w->most * sizeof(struct page));
    if (w->moves_break) {
        struct region *r = &w->regions[0];
        r->is_break = 1;
        r->at = (char *)(((uintptr_t)sbrk(0) + PAGE - 1) & ~(PAGE - 1));
        do_break(w, r);
    }
    for (w->done = 0; w->done < w->operations; w->done++)
        step(w);
    if (w->spoil)
        spoil(w);
    for (int i = 0; i < REGIONS; i++)
        do_verify(w, &w->regions[i], 0, w->regions[i].pages);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long seed = argument(argc, argv, 1, 1);
    unsigned long operations = argument(argc, argv, 2, 1000);
    unsigned long mib = argument(argc, argv, 3, 64);
    unsigned long threads = argument(argc, argv, 4, 1);
    static struct walker walkers[16];
    pthread_t ids[16];
    uint64_t sum = 0;

    CHECK(threads >= 1 && threads <= 16);
    for (unsigned long t = 0; t < threads; t++) {
        struct walker *w = &walkers[t];
        w->seed = seed;
        w->random = mix(seed * 16 + t);
        w->operations = operations;
        /* Regions are half as large as they may be, on the average. */
        w->most = 2 * mib * MIB / PAGE / REGIONS / threads;
        w->moves_break = t == 0;
        w->spoil = t == 0 && argc > 5;
        if (t)
            CHECK(!pthread_create(&ids[t], NULL, walk, w));
    }
    walk(&walkers[0]);
    for (unsigned long t = 1; t < threads; t++)
        CHECK(!pthread_join(ids[t], NULL));
    for (unsigned long t = 0; t < threads; t++)
        sum += walkers[t].sum;
    printf("%016lx\n", (unsigned long)sum);
    return 0;
}
