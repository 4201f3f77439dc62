// Products of signs: a bit is 1 for +1 and 0 for -1, so that a dot product of n signs is n - 2 popcount(x ^ w).
//
// Images are [N, H, W] pixels of C channels, packed to ceil(C / 8) bytes a pixel; the last byte is filled with zeros
// on both sides, which differ nowhere. A window of K x K pixels is a row of 64-bit words, likewise filled. Weights stand
// word by word, [words][outputs], so that the innermost loop runs over outputs: a vector of counts.

#include <cstdint>
#include <cstring>
#include <vector>

extern "C" {

// Write the bits of x >= threshold, pixel by pixel: x [pixels, channels], threshold [channels].
void pack_signs(const float *x, const float *threshold, int64_t pixels, int64_t channels, uint8_t *bits) {
    const int64_t bytes = (channels + 7) / 8;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, x += channels, bits += bytes) {
        const int64_t whole = channels / 8;
        for (int64_t byte = 0; byte < whole; ++byte) {
            unsigned value = 0;
            for (int bit = 0; bit < 8; ++bit) value |= unsigned(x[8 * byte + bit] >= threshold[8 * byte + bit]) << bit;
            bits[byte] = uint8_t(value);
        }
        if (whole < bytes) {
            unsigned value = 0;
            for (int64_t c = 8 * whole; c < channels; ++c) value |= unsigned(x[c] >= threshold[c]) << (c - 8 * whole);
            bits[whole] = uint8_t(value);
        }
    }
}

// Return in y [N, out_h, out_w, outputs] the dot products of each window's signs with each output's. Padding counts
// as 0: its bits are 0 in the window, as if -1, and `tap_sums` [K * K, outputs], the sums of the weights' signs under
// each pixel of the window, puts that right.
void dot_signs(const uint8_t *bits, int64_t n, int64_t height, int64_t width, int64_t channels, const uint64_t *weights,
               const int32_t *tap_sums, int64_t outputs, int64_t kernel, int64_t stride, int64_t padding, float *y) {
    const int64_t bytes = (channels + 7) / 8, row = kernel * bytes, words = (kernel * row + 7) / 8;
    const int64_t out_h = (height + 2 * padding - kernel) / stride + 1;
    const int64_t out_w = (width + 2 * padding - kernel) / stride + 1;
    const int32_t length = int32_t(kernel * kernel * channels);
    std::vector<uint64_t> window(words), counts(outputs);
    uint8_t *const into = reinterpret_cast<uint8_t *>(window.data());
    for (int64_t image = 0; image < n; ++image, bits += height * width * bytes) {
        for (int64_t i = 0; i < out_h; ++i) {
            for (int64_t j = 0; j < out_w; ++j, y += outputs) {
                const int64_t top = i * stride - padding, left = j * stride - padding;
                const bool inside = top >= 0 && left >= 0 && top + kernel <= height && left + kernel <= width;
                if (inside) {
                    for (int64_t a = 0; a < kernel; ++a)
                        std::memcpy(into + a * row, bits + ((top + a) * width + left) * bytes, size_t(row));
                } else {
                    std::memset(into, 0, size_t(8 * words));
                    for (int64_t a = 0; a < kernel; ++a)
                        for (int64_t b = 0; b < kernel; ++b)
                            if (top + a >= 0 && top + a < height && left + b >= 0 && left + b < width)
                                std::memcpy(into + a * row + b * bytes, bits + ((top + a) * width + left + b) * bytes,
                                            size_t(bytes));
                }
                std::memset(counts.data(), 0, size_t(8 * outputs));
                for (int64_t word = 0; word < words; ++word) {
                    const uint64_t x = window[word], *const w = weights + word * outputs;
                    uint64_t *const c = counts.data();
                    for (int64_t o = 0; o < outputs; ++o) c[o] += uint64_t(__builtin_popcountll(x ^ w[o]));
                }
                for (int64_t o = 0; o < outputs; ++o) y[o] = float(length - 2 * int32_t(counts[o]));
                if (inside) continue;
                for (int64_t a = 0; a < kernel; ++a)
                    for (int64_t b = 0; b < kernel; ++b) {
                        if (top + a >= 0 && top + a < height && left + b >= 0 && left + b < width) continue;
                        const int32_t *const sums = tap_sums + (a * kernel + b) * outputs;
                        for (int64_t o = 0; o < outputs; ++o) y[o] += float(sums[o]);
                    }
            }
        }
    }
}
}
