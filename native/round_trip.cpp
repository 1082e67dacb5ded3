// round_trip.cpp: quantizing values and reading them back.
#include "round_trip.h"

#include <ggml.h>

#include "errors.h"
#include "quantize.h"

namespace rim {

std::vector<float> round_trip(const std::string & name, const std::vector<float> & rows, int64_t n_per_row) {
    const ggml_type type = tensor_type(name);
    const auto n = static_cast<int64_t>(rows.size());
    if (n_per_row < 1 || n % n_per_row != 0) {
        throw Error(ErrorKind::option, std::to_string(n) + " values are no rows of " + std::to_string(n_per_row));
    }
    if (n_per_row % ggml_blck_size(type) != 0) {
        throw Error(ErrorKind::option, "a row of " + std::to_string(n_per_row) + " values is no multiple of the " +
                                           std::to_string(ggml_blck_size(type)) + " values of a block of " + name);
    }
    if (ggml_quantize_requires_imatrix(type)) {
        throw Error(ErrorKind::option, name + " needs an importance matrix");
    }
    if (type == GGML_TYPE_F32 || n == 0) {
        return rows;
    }
    const ggml_type_traits * traits = ggml_get_type_traits(type);
    if (!traits->to_float) {
        throw Error(ErrorKind::option, name + " cannot be read back");
    }
    std::vector<uint8_t> packed(ggml_row_size(type, n_per_row) * static_cast<size_t>(n / n_per_row));
    ggml_quantize_chunk(type, rows.data(), packed.data(), 0, n / n_per_row, n_per_row, nullptr);
    std::vector<float> result(rows.size());
    traits->to_float(packed.data(), result.data(), n);
    return result;
}

}  // namespace rim
