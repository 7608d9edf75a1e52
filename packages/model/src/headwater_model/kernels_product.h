// Products of small matrices in cache, in a type C: bf16 where the processor multiplies it (AVX-512 BF16), else float.
// Sums are float. What is multiplied is copied first into the order that the product reads:
//   rows    [m][k]                       the left side
//   panels  [n / 32][k / PAIR][32][PAIR] the right side: 32 columns together, PAIR values of k in 32 bits
// and padded with zeros: m to 8, n to 32, k to PAIR.

#pragma once

#include "kernels.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr long COLUMNS = 32;  // of a panel
constexpr long ROWS = 8;      // of a product that are in registers at once

typedef float Vector __attribute__((vector_size(64), aligned(4)));

inline long padded(long n) { return (n + COLUMNS - 1) / COLUMNS * COLUMNS; }

template <class T> struct Compute {
    using type = float;
};

inline void multiply_add(Vector &sum, const float *a, const float *b) { sum += *a * *(const Vector *)b; }

#ifdef __AVX512BF16__
template <> struct Compute<bf16> {
    using type = bf16;
};

inline void multiply_add(Vector &sum, const bf16 *a, const bf16 *b) {
    int pair;
    std::memcpy(&pair, a, 4);
    sum = (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(b));
}
#endif

template <class C> constexpr long PAIR = 4 / sizeof(C);

// c[m][n] (+)= rows[m][k] * panels[n][k]; m in ROWS, n in COLUMNS; `depth` is k of a whole panel, of which k are used.
template <class C>
void product(const C *rows, long row_stride, const C *panels, long depth, float *c, long c_stride, long m, long n,
             long k, bool add) {
    for (long column = 0; column < n; column += COLUMNS) {
        const C *panel = panels + column * depth;
        for (long row = 0; row < m; row += ROWS) {
            const C *a = rows + row * row_stride;
            float *out = c + row * c_stride + column;
            Vector sum[ROWS][2];
            for (long r = 0; r < ROWS; r++)
                for (long half = 0; half < 2; half++)
                    sum[r][half] = add ? *(Vector *)(out + r * c_stride + 16 * half) : Vector{};
            for (long i = 0; i < k; i += PAIR<C>) {
                const C *b = panel + i * COLUMNS;
#pragma GCC unroll 8
                for (long r = 0; r < ROWS; r++) {
                    multiply_add(sum[r][0], a + r * row_stride + i, b);
                    multiply_add(sum[r][1], a + r * row_stride + i, b + 16 * PAIR<C>);
                }
            }
            for (long r = 0; r < ROWS; r++)
                for (long half = 0; half < 2; half++) *(Vector *)(out + r * c_stride + 16 * half) = sum[r][half];
        }
    }
}

template <class T> void copy(T &to, T x) { to = x; }
inline void copy(float &to, bf16 x) { to = up(x); }

// Columns are keys (or a weight's outputs), k is the width, both padded.
template <class C> void panels_of_keys(const C *rows, long keys, long width, C *to) {
    for (long first = 0; first < keys; first += COLUMNS)
        for (long i = 0; i < width; i += PAIR<C>)
            for (long key = first; key < first + COLUMNS; key++)
                for (long p = 0; p < PAIR<C>; p++) *to++ = rows[key * width + i + p];
}

}  // namespace
