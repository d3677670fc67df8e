/* lent_raw MIB WAY: as `lent`, by an instruction of its own instead of the C library. */
#define RAW
#include "lent.c"
