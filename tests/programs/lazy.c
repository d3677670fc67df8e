/* lazy MIB ROUNDS: fills memory, lets the kernel take it when it wants to
 * (MADV_FREE), and fills as much again elsewhere. Each page is found as it was
 * or empty when it is used again. */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long pages = argument(argc, argv, 1, 64) * MIB / PAGE;
    unsigned long rounds = argument(argc, argv, 2, 4);
    char *halves[2] = { map_anonymous(pages * PAGE), map_anonymous(pages * PAGE) };
    unsigned long numbers[2] = { 0, 0 };

    for (unsigned long round = 1; round <= rounds; round++) {
        char *base = halves[round % 2], *other = halves[(round + 1) % 2];
        for (unsigned long i = 0; i < pages; i++) {
            uint64_t *words = (uint64_t *)(base + i * PAGE);
            /* One word alone: it is as it was, or none is. */
            CHECK(words[7] == 0 || words[7] == word_of(numbers[round % 2] + i, 7));
            fill_page(words, round * pages + i);
        }
        numbers[round % 2] = round * pages;
        CHECK(!madvise(other, pages * PAGE, MADV_FREE));
        for (unsigned long i = 0; i < pages; i++)
            check_page(base + i * PAGE, round * pages + i, "page", i);
    }
    puts("done");
    return 0;
}
