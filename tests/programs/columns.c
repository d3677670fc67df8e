/* columns MIB ROW COLUMNS: goes down the columns of a matrix, one word of each row of
 * ROW bytes. */
#include "common.h"

int main(int argc, char **argv)
{
    unsigned long size = argument(argc, argv, 1, 64) * MIB;
    unsigned long row = argument(argc, argv, 2, 10000) / 8;
    unsigned long columns = argument(argc, argv, 3, 4);
    unsigned long rows = size / 8 / row;
    uint64_t *matrix = map_anonymous(size);

    CHECK(columns <= row);
    for (unsigned long i = 0; i < rows * row; i++)
        matrix[i] = mix(i);
    for (unsigned long c = 0; c < columns; c++)
        for (unsigned long r = 0; r < rows; r++)
            if (matrix[r * row + c] != mix(r * row + c))
                fail("row %lu, column %lu changed", r, c);
    printf("%lu\n", rows);
    return 0;
}
