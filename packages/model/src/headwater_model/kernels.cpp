// The passes over memory between a training step's matrix products, each made once: see kernels.py, which calls them.
//
// Tensors are contiguous unless strides are given (in elements); T is float or bf16, sums are made in float. Work is
// split over threads by rows, and sums over rows in a number of parts that does not depend on the threads, so the same
// input gives the same bytes on any number of them.

#include "kernels.h"

namespace {

constexpr long PARTS = 64;  // of a sum over rows

template <class T>
void rms_norm(const T *x, const T *weight, T *y, float *inverse, long rows, long width, float epsilon) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *in = x + row * width;
        T *out = y + row * width;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < width; i++) squares += up(in[i]) * up(in[i]);
        float r = 1.0f / std::sqrt(squares / width + epsilon);
#pragma omp simd
        for (long i = 0; i < width; i++) put(out[i], up(in[i]) * r * up(weight[i]));
        inverse[row] = r;
    }
}

template <class T>
void rms_norm_backward(const T *g, const T *x, const T *weight, const float *inverse, T *dx, T *dweight, long rows,
                       long width) {
    long parts = std::min(rows, PARTS);
    std::vector<float> sums(parts * width, 0.0f);
#pragma omp parallel for schedule(static)
    for (long part = 0; part < parts; part++) {
        float *sum = sums.data() + part * width;
        for (long row = rows * part / parts; row < rows * (part + 1) / parts; row++) {
            const T *up_g = g + row * width, *in = x + row * width;
            T *out = dx + row * width;
            float r = inverse[row], product = 0;
#pragma omp simd reduction(+ : product)
            for (long i = 0; i < width; i++) product += up(up_g[i]) * up(weight[i]) * up(in[i]);
            float slope = product / width * r * r;
#pragma omp simd
            for (long i = 0; i < width; i++) {
                float gi = up(up_g[i]), xi = up(in[i]);
                sum[i] += gi * xi * r;
                put(out[i], r * (gi * up(weight[i]) - xi * slope));
            }
        }
    }
    for (long i = 0; i < width; i++) {
        float total = 0;
        for (long part = 0; part < parts; part++) total += sums[part * width + i];
        put(dweight[i], total);
    }
}

template <class T> void swiglu(const T *x, T *y, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *gate = x + row * 2 * width, *linear = gate + width;
        T *out = y + row * width;
#pragma omp simd
        for (long i = 0; i < width; i++) put(out[i], up(gate[i]) * sigmoid(up(gate[i])) * up(linear[i]));
    }
}

template <class T> void swiglu_backward(const T *g, const T *x, T *dx, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *gate = x + row * 2 * width, *linear = gate + width, *upstream = g + row * width;
        T *dgate = dx + row * 2 * width, *dlinear = dgate + width;
#pragma omp simd
        for (long i = 0; i < width; i++) {
            float a = up(gate[i]), s = sigmoid(a), gi = up(upstream[i]);
            put(dgate[i], gi * up(linear[i]) * s * (1.0f + a * (1.0f - s)));
            put(dlinear[i], gi * a * s);
        }
    }
}

// The first `turned` channels turn by an angle a pair (i, i + turned / 2); the others pass. sign -1 turns back.
template <class T>
void rotary(const T *x, const long *from, T *y, const long *to, const float *cosine, const float *sine, long positions,
            long batch, long heads, long width, long turned, float sign) {
    long half = turned / 2;
#pragma omp parallel for collapse(2) schedule(static)
    for (long p = 0; p < positions; p++) {
        for (long b = 0; b < batch; b++) {
            const float *c = cosine + p * turned, *s = sine + p * turned;
            for (long h = 0; h < heads; h++) {
                const T *in = x + p * from[0] + b * from[1] + h * from[2];
                T *out = y + p * to[0] + b * to[1] + h * to[2];
#pragma omp simd
                for (long i = 0; i < half; i++) {
                    float first = up(in[i]), second = up(in[i + half]);
                    put(out[i], first * c[i] - sign * second * s[i]);
                    put(out[i + half], second * c[i + half] + sign * first * s[i + half]);
                }
#pragma omp simd
                for (long i = turned; i < width; i++) out[i] = in[i];
            }
        }
    }
}

// Logits become softmax less the one-hot label, which is the gradient of the loss.
template <class T> void cross_entropy(T *logits, const int64_t *labels, float *loss, long rows, long ids) {
#pragma omp parallel
    {
        std::vector<float> buffer(ids);
        float *e = buffer.data();
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            T *x = logits + row * ids;
            float top = -INFINITY, total = 0, own = up(x[labels[row]]);
#pragma omp simd reduction(max : top)
            for (long i = 0; i < ids; i++) top = up(x[i]) > top ? up(x[i]) : top;
#pragma omp simd reduction(+ : total)
            for (long i = 0; i < ids; i++) {
                e[i] = exponential(up(x[i]) - top);
                total += e[i];
            }
            float share = 1.0f / total;
#pragma omp simd
            for (long i = 0; i < ids; i++) put(x[i], e[i] * share);
            put(x[labels[row]], e[labels[row]] * share - 1.0f);
            loss[row] = std::log(total) + top - own;
        }
    }
}

// Log of the sum of exponentials of each row, and the first of its largest.
template <class T> void log_sum_exp(const T *logits, float *evidence, int64_t *best, long rows, long ids) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *x = logits + row * ids;
        float top = -INFINITY, total = 0;
#pragma omp simd reduction(max : top)
        for (long i = 0; i < ids; i++) top = up(x[i]) > top ? up(x[i]) : top;
#pragma omp simd reduction(+ : total)
        for (long i = 0; i < ids; i++) total += exponential(up(x[i]) - top);
        evidence[row] = std::log(total) + top;
        long first = 0;
        while (first < ids - 1 && up(x[first]) != top) first++;
        best[row] = first;
    }
}

}  // namespace

EACH_TYPE(rms_norm, (const void *x, const void *w, void *y, float *r, long rows, long width, float epsilon),
          rms_norm((const T *)x, (const T *)w, (T *)y, r, rows, width, epsilon))
EACH_TYPE(rms_norm_backward,
          (const void *g, const void *x, const void *w, const float *r, void *dx, void *dw, long rows, long width),
          rms_norm_backward((const T *)g, (const T *)x, (const T *)w, r, (T *)dx, (T *)dw, rows, width))
EACH_TYPE(swiglu, (const void *x, void *y, long rows, long width), swiglu((const T *)x, (T *)y, rows, width))
EACH_TYPE(swiglu_backward, (const void *g, const void *x, void *dx, long rows, long width),
          swiglu_backward((const T *)g, (const T *)x, (T *)dx, rows, width))
EACH_TYPE(rotary,
          (const void *x, const long *from, void *y, const long *to, const float *cosine, const float *sine,
           long positions, long batch, long heads, long width, long turned, float sign),
          rotary((const T *)x, from, (T *)y, to, cosine, sine, positions, batch, heads, width, turned, sign))
EACH_TYPE(cross_entropy, (void *logits, const int64_t *labels, float *loss, long rows, long ids),
          cross_entropy((T *)logits, labels, loss, rows, ids))
EACH_TYPE(log_sum_exp, (const void *logits, float *evidence, int64_t *best, long rows, long ids),
          log_sum_exp((const T *)logits, evidence, best, rows, ids))
