/* names MIB: has functions of its own by names that ISO C leaves to programs, and that the
 * C library has as well. Nobody else is to call them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls;

#define OWN(name) \
    int name(int a); \
    int name(int a) \
    { \
        calls++; \
        return a; \
    }

OWN(open)
OWN(open64)
OWN(close)
OWN(read)
OWN(pread)
OWN(write)
OWN(stat)
OWN(fstat)
OWN(fcntl)
OWN(ioctl)
OWN(mmap)
OWN(munmap)
OWN(madvise)
OWN(syscall)
OWN(getpid)
OWN(readlink)
OWN(opendir)
OWN(getaddrinfo)

int main(int argc, char **argv)
{
    unsigned long size = strtoul(argv[argc - 1], NULL, 10) << 20;
    unsigned char *block = malloc(size);
    if (!block || open(1) + close(2) != 3)
        return 1;
    for (int round = 0; round < 3; round++)
        for (unsigned long i = 0; i < size; i += 512) {
            if (round && block[i] != (unsigned char)(i >> 9))
                printf("byte %lu is %d\n", i, block[i]);
            block[i] = i >> 9;
        }
    printf("%d calls\n", calls);
    return calls != 2;
}
