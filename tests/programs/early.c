/* early: says what its library has called before `main`. */
#include "common.h"

int of_choice(void);
int of_constructor(void);

int main(void)
{
    if (of_choice() || of_constructor())
        fail("early calls: %d, %d", of_choice(), of_constructor());
    puts("right");
    return 0;
}
