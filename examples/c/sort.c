/* Sorts N random numbers and prints a digest of them. An ordinary program: nothing here
 * knows of tmem. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t *numbers = malloc(count * sizeof *numbers);
    if (!numbers) {
        perror("malloc");
        return 1;
    }
    uint64_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        numbers[i] = state ^ state >> 33;
    }
    qsort(numbers, count, sizeof *numbers, compare);
    uint64_t digest = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && numbers[i - 1] > numbers[i])
            return 1;
        digest = digest * 31 + numbers[i];
    }
    printf("%zu numbers, sorted, digest %016llx\n", count, (unsigned long long)digest);
    return 0;
}
