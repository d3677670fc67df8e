/* locks MIB ROUNDS [OFTEN]: mutexes, conditions, semaphores, barriers, robust mutexes
 * and bare futexes lie in memory that may be elsewhere when the kernel looks at
 * them. Before, so many robust mutexes have come and gone. */
#include "common.h"
#include <linux/futex.h>
#include <semaphore.h>
#include <sys/syscall.h>

#define THREADS 4
#define STRIDE 257 /* pages between one and the next */

struct kit {
    pthread_mutex_t mutex, robust;
    pthread_cond_t condition;
    pthread_rwlock_t readers;
    sem_t semaphore;
    uint32_t futex;
    unsigned long turn, sum;
};

static unsigned long pages, kits, rounds;
static char *base;
static pthread_barrier_t *barrier;

static struct kit *kit(unsigned long i)
{
    return (struct kit *)(base + i % kits * STRIDE * PAGE + 128);
}

/* Memory around goes by, so that what is not used leaves. */
static void go_by(unsigned long from)
{
    for (unsigned long i = 0; i < pages / 4; i++) {
        unsigned long page = (from + i) % pages;
        if (page % STRIDE)
            check_page(base + page * PAGE, page + 1, "memory", page);
    }
}

static void wait_futex(uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void *walk(void *arg)
{
    unsigned long me = (unsigned long)arg;
    for (unsigned long round = 0; round < rounds; round++) {
        for (unsigned long i = 0; i < kits; i++) {
            struct kit *k = kit(i);
            CHECK(!pthread_mutex_lock(&k->mutex));
            while (k->turn % THREADS != me)
                CHECK(!pthread_cond_wait(&k->condition, &k->mutex));
            k->sum = k->sum * 3 + me;
            k->turn++;
            CHECK(!pthread_cond_broadcast(&k->condition));
            CHECK(!pthread_mutex_unlock(&k->mutex));
            CHECK(!pthread_rwlock_rdlock(&k->readers));
            CHECK(!pthread_rwlock_unlock(&k->readers));
            CHECK(!sem_wait(&k->semaphore));
            CHECK(!sem_post(&k->semaphore));
            /* Each adds one; who is last for this round wakes the others. */
            uint32_t seen = __atomic_add_fetch(&k->futex, 1, __ATOMIC_SEQ_CST);
            if (seen == (round + 1) * THREADS)
                syscall(SYS_futex, &k->futex, FUTEX_WAKE_PRIVATE, THREADS, NULL, NULL, 0);
            while ((seen = __atomic_load_n(&k->futex, __ATOMIC_SEQ_CST)) < (round + 1) * THREADS)
                wait_futex(&k->futex, seen);
        }
        go_by(me * pages / THREADS);
        pthread_barrier_wait(barrier);
    }
    return NULL;
}

static void *die_with_locks(void *arg)
{
    (void)arg;
    for (unsigned long i = 0; i < kits; i++)
        CHECK(!pthread_mutex_lock(&kit(i)->robust));
    go_by(0);
    return NULL;
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 32) * MIB / PAGE;
    rounds = argument(argc, argv, 2, 5);
    kits = pages / STRIDE;
    base = map_anonymous(pages * PAGE);
    for (unsigned long i = 0; i < pages; i++)
        if (i % STRIDE)
            fill_page(base + i * PAGE, i + 1);
    pthread_mutexattr_t robust;
    CHECK(!pthread_mutexattr_init(&robust));
    CHECK(!pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST));
    CHECK(!pthread_mutexattr_setprotocol(&robust, PTHREAD_PRIO_INHERIT));
    for (unsigned long i = 0; i < argument(argc, argv, 3, 0); i++) {
        static pthread_mutex_t passing[2];
        CHECK(!pthread_mutex_init(&passing[i % 2], &robust));
        CHECK(!pthread_mutex_destroy(&passing[i % 2]));
    }
    for (unsigned long i = 0; i < kits; i++) {
        CHECK(!pthread_mutex_init(&kit(i)->mutex, NULL));
        CHECK(!pthread_mutex_init(&kit(i)->robust, &robust));
        CHECK(!pthread_cond_init(&kit(i)->condition, NULL));
        CHECK(!pthread_rwlock_init(&kit(i)->readers, NULL));
        CHECK(!sem_init(&kit(i)->semaphore, 0, 1));
    }
    barrier = (pthread_barrier_t *)(base + PAGE - sizeof *barrier - 64);
    CHECK(!pthread_barrier_init(barrier, NULL, THREADS));
    pthread_t ids[THREADS];
    for (unsigned long t = 0; t < THREADS; t++)
        CHECK(!pthread_create(&ids[t], NULL, walk, (void *)t));
    for (unsigned long t = 0; t < THREADS; t++)
        CHECK(!pthread_join(ids[t], NULL));
    CHECK(!pthread_create(&ids[0], NULL, die_with_locks, NULL));
    CHECK(!pthread_join(ids[0], NULL));
    unsigned long dead = 0, sum = 0;
    for (unsigned long i = 0; i < kits; i++) {
        dead += pthread_mutex_lock(&kit(i)->robust) == EOWNERDEAD;
        CHECK(!pthread_mutex_consistent(&kit(i)->robust));
        CHECK(!pthread_mutex_unlock(&kit(i)->robust));
        sum = sum * 31 + kit(i)->sum;
    }
    printf("%lu of %lu owners died, %016lx\n", dead, kits, sum);
    return 0;
}
