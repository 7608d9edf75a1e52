// One token for each row of a batch through a whole decoder: what is small enough that calls would cost more than work.
//
// Weights lie in panels (kernels_product.h), so each is read once, in order. The residual stream stays float.

#include "kernels_product.h"

namespace {

struct Sizes {
    long layers, batch, hidden, heads, groups, width, ffn, ids;
    long position;  // of this token; the cache is [positions, batch, groups, width]
    long turned;    // channels of a head that rotary positions turn
};

// c[m][n padded] = rows[m][k] * panels^T
template <class C> void layer(const C *rows, const C *panels, float *c, long m, long n, long k) {
#pragma omp parallel for schedule(static)
    for (long column = 0; column < padded(n); column += COLUMNS)
        product(rows, padded(k), panels + column * padded(k), padded(k), c + column, padded(n), m, COLUMNS, padded(k),
                false);
}

template <class C, class T>
void normed(const float *x, const T *weight, C *rows, long batch, long hidden, float epsilon) {
    for (long b = 0; b < batch; b++) {
        const float *in = x + b * hidden;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < hidden; i++) squares += in[i] * in[i];
        float r = 1.0f / std::sqrt(squares / hidden + epsilon);
        C *out = rows + b * padded(hidden);
#pragma omp simd
        for (long i = 0; i < hidden; i++) put(out[i], in[i] * r * up(weight[i]));
    }
}

inline void turn(float *x, const float *cosine, const float *sine, long turned) {
    long half = turned / 2;
    for (long i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * cosine[i] - second * sine[i];
        x[i + half] = second * cosine[i + half] + first * sine[i + half];
    }
}

// The cached keys and values of a sequence's group against one query; keys before `first` are padding.
template <class C, class T>
void attend(const float *query, const T *keys, const T *values, C *out, float *scores, long first, Sizes s) {
    long stride = s.batch * s.groups * s.width;
    float scale = 1.0f / std::sqrt(float(s.width)), top = -INFINITY, total = 0;
    for (long p = first; p <= s.position; p++) {
        float score = 0;
#pragma omp simd reduction(+ : score)
        for (long i = 0; i < s.width; i++) score += query[i] * up(keys[p * stride + i]);
        scores[p] = score * scale;
        top = std::max(top, scores[p]);
    }
#pragma omp simd reduction(+ : total)
    for (long p = first; p <= s.position; p++) {
        scores[p] = exponential(scores[p] - top);
        total += scores[p];
    }
    std::vector<float> sum(s.width, 0.0f);
    float *sums = sum.data();
    for (long p = first; p <= s.position; p++) {
#pragma omp simd
        for (long i = 0; i < s.width; i++) sums[i] += scores[p] * up(values[p * stride + i]);
    }
    for (long i = 0; i < s.width; i++) put(out[i], sums[i] / total);
}

// weights: of each layer norm, query-key-value, projection, norm, gate and linear, down, cached keys, cached values; then
// the last norm and the output embedding.
template <class T>
void decode(void *const *weights, const T *embedded, const float *cosine, const float *sine, const long *first,
            float *logits, Sizes s, float epsilon) {
    using C = typename Compute<T>::type;
    long m = (s.batch + ROWS - 1) / ROWS * ROWS, per_group = s.heads / s.groups;
    long mixed = (s.heads + 2 * s.groups) * s.width, inner = s.heads * s.width;
    std::vector<float> x(s.batch * s.hidden), wide(m * padded(std::max({mixed, 2 * s.ffn, s.hidden})));
    std::vector<C> rows(m * padded(s.hidden)), attended(m * padded(inner)), gated(m * padded(s.ffn));
    for (long i = 0; i < s.batch * s.hidden; i++) x[i] = up(embedded[i]);
    auto add = [&] {
        for (long b = 0; b < s.batch; b++)
            for (long i = 0; i < s.hidden; i++) x[b * s.hidden + i] += wide[b * padded(s.hidden) + i];
    };
    for (long l = 0; l < s.layers; l++) {
        void *const *w = weights + 8 * l;
        T *keys = (T *)w[6], *values = (T *)w[7];
        normed(x.data(), (const T *)w[0], rows.data(), s.batch, s.hidden, epsilon);
        layer(rows.data(), (const C *)w[1], wide.data(), m, mixed, s.hidden);
#pragma omp parallel
        {
            std::vector<float> scores(s.position + 1);
#pragma omp for schedule(static)
            for (long unit = 0; unit < s.batch * s.groups; unit++) {
                long b = unit / s.groups, group = unit % s.groups;
                float *queries = wide.data() + b * padded(mixed) + group * (per_group + 2) * s.width;
                float *key = queries + per_group * s.width, *value = key + s.width;
                for (long h = 0; h <= per_group; h++) turn(queries + h * s.width, cosine, sine, s.turned);
                T *cached_keys = keys + unit * s.width, *cached_values = values + unit * s.width;
                long here = s.position * s.batch * s.groups * s.width;
                for (long i = 0; i < s.width; i++) {
                    put(cached_keys[here + i], key[i]);
                    put(cached_values[here + i], value[i]);
                }
                for (long h = 0; h < per_group; h++)
                    attend(queries + h * s.width, cached_keys, cached_values,
                           attended.data() + b * padded(inner) + (group * per_group + h) * s.width, scores.data(),
                           first[b], s);
            }
        }
        layer(attended.data(), (const C *)w[2], wide.data(), m, s.hidden, inner);
        add();
        normed(x.data(), (const T *)w[3], rows.data(), s.batch, s.hidden, epsilon);
        layer(rows.data(), (const C *)w[4], wide.data(), m, 2 * s.ffn, s.hidden);
        for (long b = 0; b < s.batch; b++) {
            const float *gate = wide.data() + b * padded(2 * s.ffn), *linear = gate + s.ffn;
            C *out = gated.data() + b * padded(s.ffn);
#pragma omp simd
            for (long i = 0; i < s.ffn; i++) put(out[i], gate[i] * sigmoid(gate[i]) * linear[i]);
        }
        layer(gated.data(), (const C *)w[5], wide.data(), m, s.hidden, s.ffn);
        add();
    }
    void *const *last = weights + 8 * s.layers;
    normed(x.data(), (const T *)last[0], rows.data(), s.batch, s.hidden, epsilon);
    layer(rows.data(), (const C *)last[1], logits, m, s.ids, s.hidden);
}

// A weight [n][k] as panels, padded(n) * padded(k) numbers.
template <class T> void pack(const T *weight, typename Compute<T>::type *to, long n, long k) {
    using C = typename Compute<T>::type;
#pragma omp parallel for schedule(static)
    for (long first = 0; first < padded(n); first += COLUMNS) {
        std::vector<C> rows(COLUMNS * padded(k));
        for (long r = 0; r < std::min(COLUMNS, n - first); r++)
            for (long i = 0; i < k; i++) copy(rows[r * padded(k) + i], weight[(first + r) * k + i]);
        panels_of_keys(rows.data(), COLUMNS, padded(k), to + first * padded(k));
    }
}

}  // namespace

EACH_TYPE(decode,
          (void *const *weights, const void *embedded, const float *cosine, const float *sine, const long *first,
           float *logits, const long *sizes, float epsilon),
          decode(weights, (const T *)embedded, cosine, sine, first, logits,
                 Sizes{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8],
                       sizes[9]},
                 epsilon))
EACH_TYPE(pack, (const void *weight, void *to, long n, long k),
          pack((const T *)weight, (typename Compute<T>::type *)to, n, k))
EACH_TYPE(number, (long *bytes), *bytes = sizeof(typename Compute<T>::type))
