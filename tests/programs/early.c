/* early: says what its library has called before `main`. */
#include "common.h"

int chosen(void);
int of_constructor(void);

int main(void)
{
    if (chosen() || of_constructor())
        fail("early calls: %d, %d", chosen(), of_constructor());
    puts("right");
    return 0;
}
