// quicksort COUNT: sorts so many random numbers, and prints a digest of them.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char **argv) {
    std::vector<uint64_t> numbers(argc > 1 ? strtoull(argv[1], nullptr, 10) : 0);
    uint64_t state = 1;
    for (uint64_t &number : numbers) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        number = state * 0x2545f4914f6cdd1d;
    }
    std::sort(numbers.begin(), numbers.end());
    bool sorted = true;
    uint64_t digest = 0, last = 0;
    for (uint64_t number : numbers) {
        sorted = sorted && last <= number;
        digest = digest * 0x100000001b3 + number;
        last = number;
    }
    printf("%zu numbers, %s, %016llx\n", numbers.size(), sorted ? "sorted" : "not sorted",
           static_cast<unsigned long long>(digest));
    return sorted ? 0 : 1;
}
