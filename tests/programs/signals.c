/* signals MIB ROUNDS: signal frames are pushed on stacks that may be elsewhere:
 * alternate stacks, stacks of coroutines, deep ordinary ones; handlers read
 * memory that may be elsewhere, and leave by returning and by siglongjmp. */
#include "common.h"
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

#define COROUTINES 64
#define STACK (16 * PAGE)

static unsigned long pages, handled, caught;
static char *base;
static sigjmp_buf jump;
static volatile char *volatile nowhere = (char *)16;
static ucontext_t main_context, contexts[COROUTINES];

static void look(uint64_t *state)
{
    unsigned long i = next_random(state) % pages;
    check_page(base + i * PAGE, i + 1, "memory", i);
}

static void on_usr1(int signal, siginfo_t *info, void *context)
{
    static uint64_t state = 5;
    volatile char frame[2 * PAGE];
    (void)signal, (void)context;
    memset((char *)frame, (int)handled, sizeof frame);
    look(&state);
    for (unsigned long at = 0; at < sizeof frame; at += 100)
        if (frame[at] != (char)handled)
            fail("the frame of a handler changed");
    handled += info->si_signo == SIGUSR1;
}

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    caught += info->si_addr == (void *)16;
    siglongjmp(jump, 1);
}

static void on_alarm(int signal)
{
    static uint64_t state = 77;
    (void)signal;
    look(&state);
}

static void coroutine(int number)
{
    volatile uint64_t own[4 * WORDS];
    for (unsigned long at = 0; at < 4 * WORDS; at++)
        own[at] = word_of(number + 1, at);
    for (int turn = 0; turn < 3; turn++) {
        if (number % 4 == turn)
            CHECK(!raise(SIGUSR1));
        CHECK(!swapcontext(&contexts[number], &main_context));
        for (unsigned long at = 0; at < 4 * WORDS; at++)
            if (own[at] != word_of(number + 1, at))
                fail("coroutine %d: its stack changed", number);
    }
}

static unsigned long deep(unsigned long depth)
{
    volatile char frame[PAGE];
    memset((char *)frame, (int)depth, sizeof frame);
    if (depth % 64 == 0)
        CHECK(!raise(SIGUSR1));
    unsigned long below = depth ? deep(depth - 1) : 0;
    return below + (frame[100] == (char)depth) + (frame[PAGE - 1] == (char)depth);
}

static void *thread(void *arg)
{
    stack_t alternate = { .ss_sp = arg, .ss_size = 8 * PAGE };
    CHECK(!sigaltstack(&alternate, NULL));
    for (int i = 0; i < 20; i++)
        CHECK(!pthread_kill(pthread_self(), SIGUSR1));
    return NULL;
}

static void fault(void)
{
    if (!sigsetjmp(jump, 1))
        *nowhere = 1;
}

static void one_round(char *stacks)
{
    static uint64_t state = 1;
    for (int i = 0; i < 200; i++)
        look(&state);
    CHECK(!raise(SIGUSR1));
    fault();
    for (int c = 0; c < COROUTINES; c++) {
        CHECK(!getcontext(&contexts[c]));
        contexts[c].uc_stack.ss_sp = stacks + c * STACK;
        contexts[c].uc_stack.ss_size = STACK;
        contexts[c].uc_link = &main_context;
        makecontext(&contexts[c], (void (*)(void))coroutine, 1, c);
    }
    for (int turn = 0; turn < 4; turn++)
        for (int c = 0; c < COROUTINES; c++) {
            CHECK(!swapcontext(&main_context, &contexts[c]));
            if (c % 16 == 0)
                look(&state);
        }
    if (deep(512) != 2 * 513)
        fail("a deep stack changed");
    pthread_t id;
    CHECK(!pthread_create(&id, NULL, thread, stacks + (COROUTINES + 1) * STACK));
    CHECK(!pthread_join(id, NULL));
}

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 32) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 5);
    base = map_filled(pages);
    char *stacks = map_anonymous((COROUTINES + 2) * STACK);
    stack_t alternate = { .ss_sp = stacks + COROUTINES * STACK, .ss_size = STACK };
    CHECK(!sigaltstack(&alternate, NULL));
    struct sigaction action = { .sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    struct sigaction segv = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    CHECK(!sigaction(SIGSEGV, &segv, NULL));
    struct sigaction alarm = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
    CHECK(!sigaction(SIGALRM, &alarm, NULL));
    struct itimerval timer = { { 0, 3000 }, { 0, 3000 } };
    CHECK(!setitimer(ITIMER_REAL, &timer, NULL));

    for (unsigned long round = 0; round < rounds; round++)
        one_round(stacks);
    printf("%lu signals, %lu faults\n", handled, caught);
    return 0;
}
