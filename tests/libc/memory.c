// Holds src/libc/memory.c to loops that say what the C standard says, for every length up to
// several blocks, every place in a vector, and every overlap.

#include <stdio.h>
#include <stdlib.h>

#define NAMED(name) tested_##name
#include "../../src/libc/memory.c"

#define LONGEST 400
#define ROOM (3 * LONGEST)

static void fail(const char *what, size_t count, size_t from, size_t to) {
    printf("%s of %zu bytes from %zu to %zu is wrong\n", what, count, from, to);
    exit(1);
}

static void copies(size_t count, size_t from, size_t to) {
    static uint8_t was[ROOM], now[ROOM];
    for (size_t at = 0; at < ROOM; at++) {
        was[at] = now[at] = (uint8_t)(at * 7 + at / 256);
    }
    int apart = from + count <= to || to + count <= from;
    void *answer = (apart ? tested_memcpy : tested_memmove)(now + to, now + from, count);
    for (size_t at = 0; at < ROOM; at++) {
        uint8_t right = at >= to && at < to + count ? was[from + at - to] : was[at];
        if (now[at] != right || answer != now + to) {
            fail("a copy", count, from, to);
        }
    }
}

static int sign(int number) {
    return (number > 0) - (number < 0);
}

static void compares(size_t count, size_t left_at, size_t right_at) {
    static uint8_t left[ROOM], right[ROOM];
    for (size_t at = 0; at < ROOM; at++) {
        left[at] = right[at] = 0;
    }
    // What is beyond the end does not count.
    left[left_at + count] = 1;
    if (tested_memcmp(left + left_at, right + right_at, count) || tested_bcmp(left + left_at, right + right_at, count)) {
        fail("a comparison of equals", count, left_at, right_at);
    }
    for (size_t differs = 0; differs < count; differs++) {
        // The first that differs decides, and as a number without a sign.
        left[left_at + differs] = 200;
        right[right_at + count - 1] = 100;
        if (sign(tested_memcmp(left + left_at, right + right_at, count)) != 1 ||
            sign(tested_memcmp(right + right_at, left + left_at, count)) != -1 ||
            !tested_bcmp(left + left_at, right + right_at, count)) {
            fail("a comparison", count, left_at, right_at);
        }
        left[left_at + differs] = right[right_at + count - 1] = 0;
    }
}

static void all(void) {
    for (size_t count = 0; count <= LONGEST; count++) {
        for (size_t shift = 0; shift < 17; shift++) {
            copies(count, shift, ROOM - count - 1);
            copies(count, ROOM - count - 1, shift);
            compares(count, shift, 16 - shift);
        }
        for (size_t to = 0; to <= 2 * LONGEST; to += count < 40 ? 1 : 7) {
            copies(count, LONGEST, to);
        }
    }
}

int main(void) {
    if (has_avx2 != !!__builtin_cpu_supports("avx2")) {
        fail("what is known of the processor", 0, 0, 0);
    }
    all();
    has_avx2 = 0;
    all();
    return 0;
}
