// Attention and its gradient, block by block, so that no [query, key] matrix ever meets memory (FlashAttention,
// arXiv:2205.14135; here all keys of a block of queries fit the second-level cache, so no softmax is done in parts).
// Keys and the head's width are padded to 32.

#include "kernels_product.h"

namespace {

constexpr long QUERIES = 64;  // at once
constexpr long KEYS = 128;    // at once in the backward pass, which knows each softmax's sum

// One head of a tensor [positions, batch, heads, width].
template <class T> struct Head {
    T *data;
    long stride;  // between positions
    T *operator[](long position) const { return data + position * stride; }
};

template <class T> Head<T> head(T *data, const long *strides, long batch, long head) {
    return {data + batch * strides[1] + head * strides[2], strides[0]};
}

// ---- copies into the order of a product; `to` has been zeroed where it is padding

// Positions of a head, one after the other: those of a batch lie a page apart, in the same few sets of the cache.
template <class C, class T> void copy_rows(Head<const T> x, long first, long count, long width, C *to) {
    for (long r = 0; r < count; r++) {
        const T *in = x[first + r];
        for (long i = 0; i < width; i++) copy(to[r * padded(width) + i], in[i]);
    }
}

// Rows of a block of queries become [width][QUERIES]: the left side of a product over queries.
template <class C> void turn_rows(const C *rows, long count, long width, C *to) {
    for (long i = 0; i < width; i++)
        for (long r = 0; r < count; r++) to[i * QUERIES + r] = rows[r * width + i];
}

// Columns are the width, k is keys, both padded.
template <class C> void panels_of_width(const C *rows, long keys, long width, C *to) {
    for (long first = 0; first < width; first += COLUMNS)
        for (long key = 0; key < keys; key += PAIR<C>)
            for (long i = first; i < first + COLUMNS; i++)
                for (long p = 0; p < PAIR<C>; p++) *to++ = rows[(key + p) * width + i];
}

// Rows of float [QUERIES][KEYS] become panels whose columns are the keys, k is queries.
template <class C> void panels_of_scores(const float *x, long keys, C *to) {
    for (long column = 0; column < keys; column += COLUMNS)
        for (long q = 0; q < QUERIES; q += PAIR<C>) {
            C *out = to + column * QUERIES + q * COLUMNS;
            for (long p = 0; p < PAIR<C>; p++)
#pragma omp simd
                for (long i = 0; i < COLUMNS; i++) put(out[i * PAIR<C> + p], x[(q + p) * KEYS + column + i]);
        }
}

// [width][stride] of float becomes positions of a head, by way of `tile` [QUERIES][width].
template <class T>
void write_turned(const float *x, long stride, Head<T> to, long positions, long width, float *tile) {
    for (long first = 0; first < positions; first += QUERIES) {
        long count = std::min(QUERIES, positions - first);
        for (long i = 0; i < width; i++)
            for (long r = 0; r < count; r++) tile[r * width + i] = x[i * stride + first + r];
        for (long r = 0; r < count; r++)
            for (long i = 0; i < width; i++) put(to[first + r][i], tile[r * width + i]);
    }
}

// ---- what a query sees

struct Sight {
    const uint8_t *mask;  // [queries, keys] of this sequence, 1 where masked; null: causal
    long mask_stride;
    float scale;
    float slope;  // of ALiBi (arXiv:2108.12409): a score loses slope * distance

    // Keys, in whole panels, that some query of a block sees.
    void range(long first_query, long count, long keys, long &first, long &last) const {
        first = 0, last = std::min(keys, first_query + count);
        if (mask) {
            first = keys, last = 0;
            for (long q = first_query; q < first_query + count; q++) {
                const uint8_t *hidden = mask + q * mask_stride;
                long a = 0, b = keys;
                while (a < first && hidden[a]) a++;
                while (b > last && hidden[b - 1]) b--;
                first = std::min(first, a), last = std::max(last, b);
            }
        }
        first = first / COLUMNS * COLUMNS, last = padded(last);
    }

    // Scaled and biased in place, -inf where not seen; x holds keys first to last of one query.
    void look(float *x, long query, long first, long last, long keys) const {
        long end = std::min(last, mask ? keys : query + 1);
#pragma omp simd
        for (long i = 0; i < end - first; i++) x[i] = x[i] * scale - slope * std::fabs(float(first + i - query));
        if (mask) {
            const uint8_t *hidden = mask + query * mask_stride + first;
#pragma omp simd
            for (long i = 0; i < end - first; i++) x[i] = hidden[i] ? -INFINITY : x[i];
        }
        for (long i = std::max(end - first, 0L); i < last - first; i++) x[i] = -INFINITY;
    }
};

// e^(x - top), exactly 0 where x is -inf; the sum.
inline float exponentials(float *x, long count, float top) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (long i = 0; i < count; i++) {
        float seen = x[i] == -INFINITY ? 0.0f : 1.0f;
        x[i] = exponential(x[i] - top) * seen;
        total += x[i];
    }
    return total;
}

struct Shape {
    long positions, batch, heads, groups, width;  // groups: key and value heads
};

template <class T>
void attention(const T *q, const T *k, const T *v, T *out, float *evidence, const long *strides, const uint8_t *mask,
               const long *mask_strides, const float *slopes, Shape s, float scale) {
    using C = typename Compute<T>::type;
    long keys = padded(s.positions), width = padded(s.width);
#pragma omp parallel
    {
        std::vector<C> k_panels(keys * width), v_panels(width * keys), rows(keys * width), p(QUERIES * keys);
        std::vector<float> scores(QUERIES * keys), sums(QUERIES * width);
#pragma omp for schedule(static)
        for (long unit = 0; unit < s.batch * s.groups; unit++) {
            long b = unit / s.groups, group = unit % s.groups;
            copy_rows(head(k, strides + 3, b, group), 0, s.positions, s.width, rows.data());
            panels_of_keys(rows.data(), keys, width, k_panels.data());
            copy_rows(head(v, strides + 6, b, group), 0, s.positions, s.width, rows.data());
            panels_of_width(rows.data(), keys, width, v_panels.data());
            for (long h = group * s.heads / s.groups; h < (group + 1) * s.heads / s.groups; h++) {
                Sight sight{mask ? mask + b * mask_strides[0] : nullptr, mask_strides[1], scale, slopes ? slopes[h] : 0};
                Head<const T> queries = head(q, strides, b, h);
                Head<T> results = head(out, strides + 9, b, h);
                float *known = evidence + (b * s.heads + h) * s.positions;
                for (long start = 0; start < s.positions; start += QUERIES) {
                    long count = std::min(QUERIES, s.positions - start), first, last;
                    sight.range(start, count, s.positions, first, last);
                    long n = last - first, m = (count + ROWS - 1) / ROWS * ROWS;
                    copy_rows(queries, start, count, s.width, rows.data());
                    product(rows.data(), width, k_panels.data() + first * width, width, scores.data(), keys, m, n,
                            width, false);
                    float share[QUERIES];
                    for (long r = 0; r < count; r++) {
                        float *x = scores.data() + r * keys, top = -INFINITY;
                        sight.look(x, start + r, first, last, s.positions);
#pragma omp simd reduction(max : top)
                        for (long i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
                        float total = exponentials(x, n, top);
                        known[start + r] = top + std::log(total);
                        share[r] = 1.0f / total;
                        C *own = p.data() + r * keys;
#pragma omp simd
                        for (long i = 0; i < n; i++) put(own[i], x[i]);
                    }
                    product(p.data(), keys, v_panels.data() + first * COLUMNS, keys, sums.data(), width, m, width, n,
                            false);
                    for (long r = 0; r < count; r++) {
                        T *to = results[start + r];
#pragma omp simd
                        for (long i = 0; i < s.width; i++) put(to[i], sums[r * width + i] * share[r]);
                    }
                }
            }
        }
    }
}

template <class T>
void attention_backward(const T *g, const T *q, const T *k, const T *v, const T *out, const float *evidence, T *dq,
                        T *dk, T *dv, const long *strides, const uint8_t *mask, const long *mask_strides,
                        const float *slopes, Shape s, float scale) {
    using C = typename Compute<T>::type;
    long keys = padded(s.positions), width = padded(s.width);
    long row = keys + 16;  // of the sums over queries: no power of two, whose lines would share a cache's sets
#pragma omp parallel
    {
        std::vector<C> k_by_key(keys * width), k_by_width(width * keys), v_by_key(keys * width), rows(keys * width);
        std::vector<C> q_rows(QUERIES * width), q_turned(width * QUERIES), g_rows(QUERIES * width);
        std::vector<C> g_turned(width * QUERIES), ds_rows(QUERIES * KEYS), panels(QUERIES * KEYS);
        std::vector<float> p(QUERIES * KEYS), dp(QUERIES * KEYS), sums(QUERIES * width);
        std::vector<float> dk_turned(width * row), dv_turned(width * row);
#pragma omp for schedule(static)
        for (long unit = 0; unit < s.batch * s.groups; unit++) {
            long b = unit / s.groups, group = unit % s.groups;
            copy_rows(head(k, strides + 6, b, group), 0, s.positions, s.width, rows.data());
            panels_of_keys(rows.data(), keys, width, k_by_key.data());
            panels_of_width(rows.data(), keys, width, k_by_width.data());
            copy_rows(head(v, strides + 9, b, group), 0, s.positions, s.width, rows.data());
            panels_of_keys(rows.data(), keys, width, v_by_key.data());
            std::fill(dk_turned.begin(), dk_turned.end(), 0.0f);
            std::fill(dv_turned.begin(), dv_turned.end(), 0.0f);
            for (long h = group * s.heads / s.groups; h < (group + 1) * s.heads / s.groups; h++) {
                Sight sight{mask ? mask + b * mask_strides[0] : nullptr, mask_strides[1], scale, slopes ? slopes[h] : 0};
                Head<const T> upstream = head(g, strides, b, h), queries = head(q, strides + 3, b, h);
                Head<const T> results = head(out, strides + 12, b, h);
                Head<T> to_q = head(dq, strides + 15, b, h);
                const float *known = evidence + (b * s.heads + h) * s.positions;
                for (long start = 0; start < s.positions; start += QUERIES) {
                    long count = std::min(QUERIES, s.positions - start), first, last;
                    sight.range(start, count, s.positions, first, last);
                    long m = (count + ROWS - 1) / ROWS * ROWS;
                    if (count < QUERIES) {  // the last block's missing queries count as zeros
                        std::fill(q_turned.begin(), q_turned.end(), C{});
                        std::fill(g_turned.begin(), g_turned.end(), C{});
                        std::fill(p.begin(), p.end(), 0.0f);
                        std::fill(dp.begin(), dp.end(), 0.0f);
                    }
                    copy_rows(queries, start, count, s.width, q_rows.data());
                    turn_rows(q_rows.data(), count, width, q_turned.data());
                    copy_rows(upstream, start, count, s.width, g_rows.data());
                    turn_rows(g_rows.data(), count, width, g_turned.data());
                    float delta[QUERIES];
                    for (long r = 0; r < count; r++) {
                        const T *up_g = upstream[start + r], *result = results[start + r];
                        float total = 0;
#pragma omp simd reduction(+ : total)
                        for (long i = 0; i < s.width; i++) total += up(up_g[i]) * up(result[i]);
                        delta[r] = total;
                    }
                    std::fill(sums.begin(), sums.end(), 0.0f);
                    for (long key = first; key < last; key += KEYS) {
                        long n = std::min(KEYS, last - key);
                        product(q_rows.data(), width, k_by_key.data() + key * width, width, p.data(), KEYS, m, n,
                                width, false);
                        product(g_rows.data(), width, v_by_key.data() + key * width, width, dp.data(), KEYS, m, n,
                                width, false);
                        for (long r = 0; r < count; r++) {
                            float *own = p.data() + r * KEYS, *slope = dp.data() + r * KEYS;
                            C *ds = ds_rows.data() + r * KEYS;
                            sight.look(own, start + r, key, key + n, s.positions);
                            exponentials(own, n, known[start + r]);
#pragma omp simd
                            for (long i = 0; i < n; i++) {
                                slope[i] = own[i] * (slope[i] - delta[r]) * scale;
                                put(ds[i], slope[i]);
                            }
                        }
                        panels_of_scores(p.data(), n, panels.data());
                        product(g_turned.data(), QUERIES, panels.data(), QUERIES, dv_turned.data() + key, row, width,
                                n, QUERIES, true);
                        panels_of_scores(dp.data(), n, panels.data());
                        product(q_turned.data(), QUERIES, panels.data(), QUERIES, dk_turned.data() + key, row, width,
                                n, QUERIES, true);
                        product(ds_rows.data(), KEYS, k_by_width.data() + key * COLUMNS, keys, sums.data(), width, m,
                                width, n, true);
                    }
                    for (long r = 0; r < count; r++) {
                        T *to = to_q[start + r];
#pragma omp simd
                        for (long i = 0; i < s.width; i++) put(to[i], sums[r * width + i]);
                    }
                }
            }
            write_turned(dk_turned.data(), row, head(dk, strides + 18, b, group), s.positions, s.width, sums.data());
            write_turned(dv_turned.data(), row, head(dv, strides + 21, b, group), s.positions, s.width, sums.data());
        }
    }
}

// Attention in a prefix tree (tree.py), forward only: query i sees key j where j <= i < ends[j]. Keys are looked at a panel
// at a time, and panels that no query of a block sees cost nothing. ends: 0 and depths: any beyond the last position,
// both padded. k and v of one sequence; `slope` takes the difference of depths as its distance.
template <class T>
void tree_attention(const T *q, const T *k, const T *v, T *out, const long *strides, const int32_t *ends,
                    const float *depths, const float *slopes, Shape s, float scale) {
    using C = typename Compute<T>::type;
    long keys = padded(s.positions), width = padded(s.width), per_group = s.heads / s.groups;
    long blocks = (s.positions + QUERIES - 1) / QUERIES;
    std::vector<C> k_panels(keys * width), v_panels(width * keys), all(keys * width);
    std::vector<int32_t> panel_ends(keys / COLUMNS);
    for (long key = 0; key < keys; key++)
        panel_ends[key / COLUMNS] = std::max(panel_ends[key / COLUMNS], ends[key]);
#pragma omp parallel
    {
        struct Run {
            long first, count, at;  // keys, and where their scores stand
        };
        std::vector<Run> runs;
        std::vector<C> rows(QUERIES * width), p(QUERIES * keys);
        std::vector<float> scores(QUERIES * keys), sums(QUERIES * width);
        for (long group = 0; group < s.groups; group++) {
#pragma omp single
            {
                copy_rows(head(k, strides + 3, 0, group), 0, s.positions, s.width, all.data());
                panels_of_keys(all.data(), keys, width, k_panels.data());
                copy_rows(head(v, strides + 6, 0, group), 0, s.positions, s.width, all.data());
                panels_of_width(all.data(), keys, width, v_panels.data());
            }
#pragma omp for schedule(dynamic)
            for (long unit = 0; unit < per_group * blocks; unit++) {
                long h = group * per_group + unit / blocks, start = unit % blocks * QUERIES;
                long count = std::min(QUERIES, s.positions - start), m = (count + ROWS - 1) / ROWS * ROWS, n = 0;
                runs.clear();
                for (long key = 0; key < start + count; key += COLUMNS) {
                    if (panel_ends[key / COLUMNS] <= start) continue;
                    if (runs.empty() || runs.back().first + runs.back().count < key) runs.push_back({key, 0, n});
                    runs.back().count += COLUMNS, n += COLUMNS;
                }
                copy_rows(head(q, strides, 0, h), start, count, s.width, rows.data());
                for (const Run &run : runs)
                    product(rows.data(), width, k_panels.data() + run.first * width, width, scores.data() + run.at,
                            keys, m, run.count, width, false);
                float share[QUERIES], slope = slopes ? slopes[h] : 0;
                for (long r = 0; r < count; r++) {
                    float *x = scores.data() + r * keys, top = -INFINITY, depth = depths[start + r];
                    int32_t query = start + r;
                    for (const Run &run : runs) {
                        float *own = x + run.at;
                        const int32_t *end = ends + run.first;
                        const float *deep = depths + run.first;
                        int32_t first = run.first;
#pragma omp simd
                        for (int32_t i = 0; i < run.count; i++) {
                            bool seen = (first + i <= query) & (query < end[i]);
                            own[i] = seen ? own[i] * scale - slope * (depth - deep[i]) : -INFINITY;
                        }
                    }
#pragma omp simd reduction(max : top)
                    for (long i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
                    share[r] = 1.0f / exponentials(x, n, top);
                    C *probabilities = p.data() + r * keys;
#pragma omp simd
                    for (long i = 0; i < n; i++) put(probabilities[i], x[i]);
                }
                for (const Run &run : runs)
                    product(p.data() + run.at, keys, v_panels.data() + run.first * COLUMNS, keys, sums.data(), width, m,
                            width, run.count, run.at > 0);
                Head<T> results = head(out, strides + 9, 0, h);
                for (long r = 0; r < count; r++) {
                    T *to = results[start + r];
#pragma omp simd
                    for (long i = 0; i < s.width; i++) put(to[i], sums[r * width + i] * share[r]);
                }
            }
        }
    }
}

}  // namespace

EACH_TYPE(attention,
          (const void *q, const void *k, const void *v, void *out, float *evidence, const long *strides,
           const uint8_t *mask, const long *mask_strides, const float *slopes, long positions, long batch, long heads,
           long groups, long width, float scale),
          attention((const T *)q, (const T *)k, (const T *)v, (T *)out, evidence, strides, mask, mask_strides, slopes,
                    Shape{positions, batch, heads, groups, width}, scale))
EACH_TYPE(attention_backward,
          (const void *g, const void *q, const void *k, const void *v, const void *out, const float *evidence, void *dq,
           void *dk, void *dv, const long *strides, const uint8_t *mask, const long *mask_strides, const float *slopes,
           long positions, long batch, long heads, long groups, long width, float scale),
          attention_backward((const T *)g, (const T *)q, (const T *)k, (const T *)v, (const T *)out, evidence, (T *)dq,
                             (T *)dk, (T *)dv, strides, mask, mask_strides, slopes,
                             Shape{positions, batch, heads, groups, width}, scale))
EACH_TYPE(tree_attention,
          (const void *q, const void *k, const void *v, void *out, const long *strides, const int32_t *ends,
           const float *depths, const float *slopes, long positions, long batch, long heads, long groups, long width,
           float scale),
          tree_attention((const T *)q, (const T *)k, (const T *)v, (T *)out, strides, ends, depths, slopes,
                         Shape{positions, batch, heads, groups, width}, scale))
