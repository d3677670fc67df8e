/* spawns MIB: starts other programs in every way while memory may be
 * elsewhere; their output and status come back as usual. */
#include "common.h"
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static unsigned long pages;
static char *base;

int main(int argc, char **argv)
{
    pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    base = map_anonymous(pages * PAGE);
    char line[64];
    for (unsigned long i = 0; i < pages; i++)
        fill_page(base + i * PAGE, i + 1);
    static int n;
    for (n = 0; n < 4; n++) {
        char *words[] = { "sh", "-c", "exit 7", NULL };
        static pid_t pid;
        static int status;
        CHECK(!posix_spawnp(&pid, "sh", NULL, NULL, words, environ));
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
        status = system("exit 9");
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
        FILE *pipe = popen("echo from a child", "r");
        CHECK(pipe && fgets(line, sizeof line, pipe));
        CHECK(!strcmp(line, "from a child\n"));
        CHECK(pclose(pipe) == 0);
        pid = vfork();
        if (pid == 0) {
            execlp("sh", "sh", "-c", "exit 11", (char *)NULL);
            _exit(127);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 11);
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, i + 1, "spawns", i);
    }
    puts("right");
    return 0;
}
