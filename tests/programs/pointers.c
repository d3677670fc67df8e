/* pointers MIB [PAGES [LINKED]]: goes through an array of records, each of which points to a
 * text that lies anywhere, as a sort does; so many pages of it at a time, whose records it
 * counts first, or none at all. With LINKED the last of each page points to the next page. */
#include "common.h"

#define TEXT 512

struct record {
    char *text;
    unsigned long length, number, seen;
};

/* Noise below n. */
static unsigned long next_place(unsigned long i, unsigned long n)
{
    i = (i ^ i >> 31) * 0x7fb5d329728ea185ul;
    i = (i ^ i >> 27) * 0x81dadef4bc2dd44dul;
    return (i ^ i >> 33) % n;
}

/* Whether a record is the last of its page and points to the next one. */
static int is_link(unsigned long i, unsigned long n, unsigned long linked)
{
    return linked && (i + 1) % (PAGE / sizeof(struct record)) == 0 && i + 1 < n;
}

int main(int argc, char **argv)
{
    unsigned long bytes = argument(argc, argv, 1, 64) * MIB, n = bytes / TEXT;
    unsigned long counted = argument(argc, argv, 2, 64) * PAGE / sizeof(struct record);
    unsigned long some = counted ? counted : n;
    unsigned long linked = argument(argc, argv, 3, 0);
    char *texts = map_anonymous(bytes);
    struct record *records = map_anonymous(n * sizeof *records);
    for (unsigned long i = 0; i < n; i++)
        memset(texts + i * TEXT, 'a' + i % 26, TEXT);
    for (unsigned long i = 0; i < n; i++) {
        unsigned long place = next_place(i, n);
        records[i] = (struct record){texts + place * TEXT, 1 + i % 100, place, 0};
        if (is_link(i, n, linked))
            records[i].text = (char *)&records[i + 1];
    }
    unsigned long sum = 0;
    for (unsigned long from = 0; from < n; from += some) {
        unsigned long to = from + some < n ? from + some : n;
        for (unsigned long i = from; counted && i < to; i++)
            sum += records[i].length;
        for (unsigned long i = from; i < to; i++) {
            CHECK(records[i].number == next_place(i, n));
            if (is_link(i, n, linked)) {
                CHECK(((struct record *)records[i].text)->number == next_place(i + 1, n));
                continue;
            }
            CHECK(records[i].text[0] == (char)('a' + records[i].number % 26));
            sum += records[i].text[records[i].length];
        }
    }
    printf("%lu\n", sum);
    return 0;
}
