// What channels hold, with NEON. The other loops of measure.h are such that compilers make NEON of them as they are.

#include "kernels/measure_parts.h"

#if CNNVIZ_NEON
#include <arm_neon.h>

namespace cnnviz {

static_assert(LANES == 16, "four vectors of values, eight of their doubles");

Overview overview_neon(const float* values, size_t count) {
    int32x4_t least[4], greatest[4], zeros[4];
    float64x2_t totals[8];
    for (int quarter = 0; quarter < 4; quarter++) {
        least[quarter] = vdupq_n_s32(INT32_MAX);
        greatest[quarter] = vdupq_n_s32(INT32_MIN);
        zeros[quarter] = vdupq_n_s32(0);
    }
    for (float64x2_t& total : totals) total = vdupq_n_f64(0);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int quarter = 0; quarter < 4; quarter++) {
            const float32x4_t four = vld1q_f32(values + i + 4 * quarter);
            const int32x4_t bits = vreinterpretq_s32_f32(four);
            const int32x4_t key = veorq_s32(bits, vandq_s32(vshrq_n_s32(bits, 31), vdupq_n_s32(INT32_MAX)));
            least[quarter] = vminq_s32(least[quarter], key);
            greatest[quarter] = vmaxq_s32(greatest[quarter], key);
            const uint32x4_t is_zero = vceqzq_s32(vshlq_n_s32(bits, 1));
            zeros[quarter] = vsubq_s32(zeros[quarter], vreinterpretq_s32_u32(is_zero));
            totals[2 * quarter] = vaddq_f64(totals[2 * quarter], vcvt_f64_f32(vget_low_f32(four)));
            totals[2 * quarter + 1] = vaddq_f64(totals[2 * quarter + 1], vcvt_high_f64_f32(four));
        }
    }
    Parts parts;
    for (int quarter = 0; quarter < 4; quarter++) {
        vst1q_s32(parts.least + 4 * quarter, least[quarter]);
        vst1q_s32(parts.greatest + 4 * quarter, greatest[quarter]);
        vst1q_s32(parts.zeros + 4 * quarter, zeros[quarter]);
    }
    for (int eighth = 0; eighth < 8; eighth++) vst1q_f64(parts.totals + 2 * eighth, totals[eighth]);
    add(parts, values + i, count - i);
    return joined(parts);
}

double squares_neon(const float* values, size_t count, double mean) {
    const float64x2_t means = vdupq_n_f64(mean);
    float64x2_t sums[8];
    for (float64x2_t& sum : sums) sum = vdupq_n_f64(0);
    const auto take = [&](float64x2_t& sum, float64x2_t two) {
        const float64x2_t distance = vsubq_f64(two, means);
        sum = vaddq_f64(sum, vmulq_f64(distance, distance));
    };
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int quarter = 0; quarter < 4; quarter++) {
            const float32x4_t four = vld1q_f32(values + i + 4 * quarter);
            take(sums[2 * quarter], vcvt_f64_f32(vget_low_f32(four)));
            take(sums[2 * quarter + 1], vcvt_high_f64_f32(four));
        }
    }
    double parts[LANES];
    for (int eighth = 0; eighth < 8; eighth++) vst1q_f64(parts + 2 * eighth, sums[eighth]);
    add_squares(parts, values + i, count - i, mean);
    return sum_of(parts);
}

}  // namespace cnnviz

#endif  // CNNVIZ_NEON
