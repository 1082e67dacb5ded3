// round_trip.h: what a tensor type leaves of values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rim {

// `rows`: rows of `n_per_row` values, one after the other. Quantizes them to the type of that name and back, as libllama's quantizer
// does without an importance matrix. Throws Error option for a type that is unknown, needs an importance matrix, or has blocks that do
// not fit the row.
std::vector<float> round_trip(const std::string & type, const std::vector<float> & rows, int64_t n_per_row);

}  // namespace rim
