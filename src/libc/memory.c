// Copying and comparing, in place of what musl brings for x86-64: `rep movs`, whose
// start takes longer than most copies here do, and a comparison byte by byte. Every
// program that is linked to musl calls these by the names of the C standard.
//
// Up to 128 bytes everything is read before anything is written, so overlaps need
// no thought; above, the direction is chosen by them, and the end that a whole block
// does not fit is read first and written last. memcpy may then be memmove.

#include <cpuid.h>
#include <stddef.h>
#include <stdint.h>

// The tests define it, to call these beside their own libc's.
#ifndef NAMED
#define NAMED(name) name
#endif
#define TEXT(name) #name
#define QUOTED(name) TEXT(name)

typedef uint8_t vector __attribute__((vector_size(16)));
// Two of the above in each instruction where the processor has none as wide.
typedef uint8_t wide __attribute__((vector_size(32)));

#define BLOCK 128

// Of a constant size: the compiler makes one or two instructions of each.
#define LOAD(type, from) ({ type value; __builtin_memcpy(&value, (from), sizeof value); value; })
#define STORE(to, value) __builtin_memcpy((to), &(value), sizeof(value))

// Four vectors in variables of their own: in a struct they would be kept in memory too.
#define LOAD_BLOCK(name, from) \
    wide name##0 = LOAD(wide, from), name##1 = LOAD(wide, (from) + 32), \
         name##2 = LOAD(wide, (from) + 64), name##3 = LOAD(wide, (from) + 96)
#define STORE_BLOCK(to, name) \
    do { \
        STORE(to, name##0); \
        STORE((to) + 32, name##1); \
        STORE((to) + 64, name##2); \
        STORE((to) + 96, name##3); \
    } while (0)

// Moves `count` bytes, which are one to two times as many as `type` has.
#define MOVE_ENDS(type) \
    do { \
        type first = LOAD(type, from), last = LOAD(type, from + count - sizeof(type)); \
        STORE(to, first); \
        STORE(to + count - sizeof(type), last); \
    } while (0)

// More than 32 bytes. Compiled for each kind of processor that it is inlined for.
static inline __attribute__((always_inline)) void move_large(uint8_t *to, const uint8_t *from, size_t count) {
    if (count <= 64) {
        MOVE_ENDS(wide);
    } else if (count <= 128) {
        const uint8_t *from_end = from + count - 64;
        wide first = LOAD(wide, from), second = LOAD(wide, from + 32);
        wide third = LOAD(wide, from_end), last = LOAD(wide, from_end + 32);
        STORE(to, first);
        STORE(to + 32, second);
        STORE(to + count - 64, third);
        STORE(to + count - 32, last);
    } else if ((uintptr_t)to - (uintptr_t)from >= count) {
        // The target is before the source, or they do not overlap.
        LOAD_BLOCK(last, from + count - BLOCK);
        uint8_t *end = to + count - BLOCK;
        for (; to < end; to += BLOCK, from += BLOCK) {
            LOAD_BLOCK(block, from);
            STORE_BLOCK(to, block);
        }
        STORE_BLOCK(end, last);
    } else {
        LOAD_BLOCK(first, from);
        for (; count > BLOCK; count -= BLOCK) {
            LOAD_BLOCK(block, from + count - BLOCK);
            STORE_BLOCK(to + count - BLOCK, block);
        }
        STORE_BLOCK(to, first);
    }
}

__attribute__((target("avx2"))) static void move_large_avx2(uint8_t *to, const uint8_t *from, size_t count) {
    move_large(to, from, count);
}

// What is copied before it is known goes without.
static int has_avx2;

__attribute__((constructor)) static void find_avx2(void) {
    unsigned eax, ebx, ecx, edx, states, high;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) {
        return;
    }
    // Whether the system keeps the wide registers as well.
    __asm__("xgetbv" : "=a"(states), "=d"(high) : "c"(0));
    has_avx2 = (states & 6) == 6 && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & bit_AVX2);
}

void *NAMED(memmove)(void *target, const void *source, size_t count) {
    uint8_t *to = target;
    const uint8_t *from = source;
    if (count > 32) {
        if (has_avx2) {
            move_large_avx2(to, from, count);
        } else {
            move_large(to, from, count);
        }
    } else if (count > 16) {
        MOVE_ENDS(vector);
    } else if (count >= 8) {
        MOVE_ENDS(uint64_t);
    } else if (count >= 4) {
        MOVE_ENDS(uint32_t);
    } else if (count > 0) {
        uint8_t first = from[0], middle = from[count / 2], last = from[count - 1];
        to[0] = first;
        to[count / 2] = middle;
        to[count - 1] = last;
    }
    return target;
}

// A second name of it, and no call from one to the other.
void *NAMED(memcpy)(void *restrict target, const void *restrict source, size_t count)
    __attribute__((alias(QUOTED(NAMED(memmove)))));

// Below 0, 0, or above it, as big-endian numbers compare: by their first byte that differs.
static int order(uint64_t left, uint64_t right) {
    left = __builtin_bswap64(left);
    right = __builtin_bswap64(right);
    return (left > right) - (left < right);
}

int NAMED(memcmp)(const void *left_source, const void *right_source, size_t count) {
    const uint8_t *left = left_source, *right = right_source;
    if (count < 8) {
        for (size_t at = 0; at < count; at++) {
            if (left[at] != right[at]) {
                return left[at] - right[at];
            }
        }
        return 0;
    }
    for (size_t at = 0; at < count - 8; at += 8) {
        uint64_t one = LOAD(uint64_t, left + at), other = LOAD(uint64_t, right + at);
        if (one != other) {
            return order(one, other);
        }
    }
    // It may have bytes again that were equal before, which are before any that differ.
    return order(LOAD(uint64_t, left + count - 8), LOAD(uint64_t, right + count - 8));
}

int NAMED(bcmp)(const void *left, const void *right, size_t count) {
    return NAMED(memcmp)(left, right, count);
}
