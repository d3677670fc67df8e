/* Finds the processes that serve another one's memory under tmem: those that share it and
 * are named after it. Natively there are none. */
#ifndef TMEM_HELPERS_H
#define TMEM_HELPERS_H

#include "common.h"
#include <dirent.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/syscall.h>

#define HELPERS 16

struct helper {
    pid_t pid;
    int fd;
    char name[16];
};

static inline void name_of(pid_t pid, char name[16])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    memset(name, 0, 16);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t len = read(fd, name, 15);
    name[len > 0 ? len - 1 : 0] = 0;
    close(fd);
}

/* Those whose name begins with `prefix`; how many there are. */
static inline int helpers_of(pid_t pid, const char *prefix, struct helper found[HELPERS])
{
    int count = 0;
    DIR *folder = opendir("/proc");
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct helper it = { .pid = atoi(entry->d_name) };
        if (it.pid <= 0 || it.pid == pid || syscall(SYS_kcmp, pid, it.pid, KCMP_VM, 0, 0))
            continue;
        name_of(it.pid, it.name);
        if (strncmp(it.name, prefix, strlen(prefix)) || count == HELPERS)
            continue;
        it.fd = syscall(SYS_pidfd_open, it.pid, 0);
        if (it.fd >= 0)
            found[count++] = it;
    }
    closedir(folder);
    return count;
}

/* Waits for the end of each, which comes by itself. */
static inline void until_gone(struct helper *found, int count, const char *what)
{
    for (int n = 0; n < count; n++) {
        struct pollfd gone = { .fd = found[n].fd, .events = POLLIN };
        if (poll(&gone, 1, 60000) != 1)
            fail("%s: %s stays behind", what, found[n].name);
        close(found[n].fd);
    }
}
#endif
