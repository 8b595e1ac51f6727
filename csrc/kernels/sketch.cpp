#include "kernels/sketch.h"

#include <cstring>

namespace cnnviz {

void count_values(const float* values, size_t channels, size_t size, const int64_t* pages, size_t columns,
                  int64_t* counts, bool* missing) {
    for (size_t c = 0; c < channels; c++, values += size, counts += columns) {
        for (size_t i = 0; i < size; i++) {
            uint32_t bits;
            std::memcpy(&bits, values + i, sizeof bits);
            const uint32_t octave = bits >> 23;
            const int64_t page = pages[octave];
            if (page < 0) {
                missing[octave] = true;
                continue;
            }
            // A zero adds 0: a branch, which after a ReLU cannot be predicted, costs more.
            counts[static_cast<size_t>(page) + (bits >> 17 & (BUCKETS - 1))] += (bits & 0x7FFFFFFF) != 0;
        }
    }
}

void gather_nonzero(const int64_t* counts, size_t channels, size_t columns, const int64_t* chosen, size_t chosen_count,
                    size_t most, int64_t* place, int64_t* count) {
    size_t gathered = 0;
    for (size_t c = 0; c < channels; c++, counts += columns) {
        for (size_t k = 0; k < chosen_count; k++) {
            const int64_t found = counts[chosen[k]];
            if (found == 0) continue;
            if (gathered == most) return;
            place[gathered] = static_cast<int64_t>(k);
            count[gathered++] = found;
        }
    }
}

}  // namespace cnnviz
