/* leaving MIB WAY: a program whose memory is elsewhere ends in this way. What it
 * does last still sees all of its memory. */
#include "common.h"
#include <sys/syscall.h>

static unsigned long pages;
static char *base;

static void look(const char *when)
{
    uint64_t sum = 0;
    for (unsigned long i = 0; i < pages; i++)
        sum = sum * 31 + check_page(base + i * PAGE, i + 1, when, i);
    printf("%s: %016lx\n", when, (unsigned long)sum);
    fflush(stdout);
}

static void at_exit(void)
{
    look("at exit");
}

static void at_quick_exit_too(void)
{
    look("at quick exit");
}

__attribute__((destructor)) static void at_the_end(void)
{
    if (base)
        look("destructor");
}

static pthread_t first;
static volatile int *volatile nowhere = (int *)16;

static void *after_main(void *unused)
{
    (void)unused;
    CHECK(!pthread_join(first, NULL));
    look("after the first thread");
    exit(7);
}

/* Past the C library: the process is there until its last thread has ended. */
static void leave_raw(int status)
{
    syscall(SYS_exit, status);
}

static void *outlive_the_first(void *unused)
{
    (void)unused;
    usleep(20000);
    look("the last thread");
    leave_raw(8);
    return NULL;
}

static void on_abort(int signal)
{
    printf("signal %d\n", signal);
    look("on abort");
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 32) * MIB / PAGE;
    const char *way = argc > 2 ? argv[2] : "return";
    base = map_filled(pages);
    until_elsewhere(base);
    CHECK(!atexit(at_exit) && !at_quick_exit(at_quick_exit_too));
    if (!strcmp(way, "exit"))
        exit(3);
    if (!strcmp(way, "_exit"))
        _exit(4);
    if (!strcmp(way, "quick_exit"))
        quick_exit(5);
    if (!strcmp(way, "abort")) {
        CHECK(signal(SIGABRT, on_abort) != SIG_ERR);
        abort();
    }
    if (!strcmp(way, "segv"))
        *nowhere = 1;
    if (!strcmp(way, "kill"))
        raise(SIGKILL);
    if (!strcmp(way, "first-thread")) {
        pthread_t id;
        first = pthread_self();
        CHECK(!pthread_create(&id, NULL, after_main, NULL));
        pthread_exit(NULL);
    }
    if (!strcmp(way, "raw"))
        leave_raw(8);
    if (!strcmp(way, "raw-threads")) {
        pthread_t id;
        CHECK(!pthread_create(&id, NULL, outlive_the_first, NULL));
        leave_raw(8);
    }
    if (!strcmp(way, "stop")) {
        /* Stopped as a whole, and continued. */
        CHECK(!system("kill -STOP $PPID; until grep -q '^State:.T' /proc/$PPID/status; do :; "
                      "done; kill -CONT $PPID"));
        look("continued");
    }
    return 6;
}
