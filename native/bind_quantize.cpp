// bind_quantize.cpp: Python face of libllama's quantizer (quantize.h).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <tuple>
#include <utility>

#include "bind.h"
#include "quantize.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using rim::QuantizeOptions;
using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Metadata = std::vector<std::pair<std::string, std::variant<uint32_t, std::string>>>;

std::optional<ggml_type> optional_type(const std::optional<std::string> & name) {
    return name ? std::optional<ggml_type>(rim::tensor_type(*name)) : std::nullopt;
}

void make_options(QuantizeOptions * self, int file_type, const std::vector<std::pair<std::string, std::string>> & tensor_types,
                  const std::optional<std::string> & output_type, const std::optional<std::string> & embedding_type,
                  const std::vector<std::pair<std::string, Values>> & importance, Metadata metadata, bool requantize, int32_t n_threads) {
    QuantizeOptions options;
    options.file_type = static_cast<llama_ftype>(file_type);
    for (const auto & [pattern, type] : tensor_types) {
        options.tensor_types.emplace_back(pattern, rim::tensor_type(type));
    }
    options.output_type = optional_type(output_type);
    options.embedding_type = optional_type(embedding_type);
    for (const auto & [name, values] : importance) {
        options.importance.emplace_back(name, std::vector<float>(values.data(), values.data() + values.size()));
    }
    options.metadata = std::move(metadata);
    options.requantize = requantize;
    options.n_threads = n_threads;
    new (self) QuantizeOptions(std::move(options));
}

nb::dict file_types() {
    nb::dict result;
    for (const rim::FileType & type : rim::file_types()) {
        result[type.name] = nb::make_tuple(static_cast<int>(type.number), rim::tensor_type_name(type.base));
    }
    return result;
}

nb::dict tensor_types() {
    nb::dict result;
    for (const ggml_type type : rim::tensor_types()) {
        result[rim::tensor_type_name(type).c_str()] = nb::make_tuple(ggml_blck_size(type), ggml_type_size(type), ggml_quantize_requires_imatrix(type));
    }
    return result;
}

using Planned = std::tuple<std::string, std::string, std::optional<std::string>>;

std::vector<Planned> plan(nb::object source, const QuantizeOptions & options) {
    const std::string path = path_bytes(std::move(source));
    nb::gil_scoped_release release;
    std::vector<Planned> result;
    for (const rim::PlannedTensor & tensor : rim::plan_quantization(path, options)) {
        result.emplace_back(tensor.name, rim::tensor_type_name(tensor.type),
                            tensor.asked ? std::optional<std::string>(rim::tensor_type_name(*tensor.asked)) : std::nullopt);
    }
    return result;
}

void quantize(nb::object source, nb::object target, const QuantizeOptions & options, nb::object on_tensor) {
    const std::string from = path_bytes(std::move(source));
    const std::string to = path_bytes(std::move(target));
    QuantizeOptions copy = options;
    if (!on_tensor.is_none()) {
        copy.on_tensor = [&on_tensor](const std::string & name) {
            nb::gil_scoped_acquire gil;
            on_tensor(name);
        };
    }
    nb::gil_scoped_release release;
    rim::quantize(from, to, copy);
}

}  // namespace

void bind_quantize(nb::module_ & m) {
    nb::class_<QuantizeOptions>(m, "QuantizeOptions", "What a quantized file shall be.")
        .def("__init__", &make_options, nb::kw_only(), "file_type"_a, "tensor_types"_a = std::vector<std::pair<std::string, std::string>>(),
             "output_type"_a = nb::none(), "embedding_type"_a = nb::none(), "importance"_a = std::vector<std::pair<std::string, Values>>(),
             "metadata"_a = Metadata(), "requantize"_a = false, "n_threads"_a = 0,
             nb::sig("def __init__(self, *, file_type: int, tensor_types: collections.abc.Sequence[tuple[str, str]] = (), "
                     "output_type: str | None = None, embedding_type: str | None = None, "
                     "importance: collections.abc.Sequence[tuple[str, numpy.typing.NDArray[numpy.float32]]] = (), "
                     "metadata: collections.abc.Sequence[tuple[str, int | str]] = (), requantize: bool = False, n_threads: int = 0) -> None"),
             "`file_type`: number of file_types(). `tensor_types`: (regex, type), the first match wins. `importance`: (tensor name, mean "
             "square of each input column, experts one after the other). `metadata`: keys to set, texts up to 127 bytes. `requantize`: "
             "take quantized tensors as input. Raises OptionError for an unknown type.");
    m.def("file_types", &file_types, nb::sig("def file_types() -> dict[str, tuple[int, str]]"),
          "Every file type that the quantizer makes: its number and the type of most tensors.");
    m.def("tensor_types", &tensor_types, nb::sig("def tensor_types() -> dict[str, tuple[int, int, bool]]"),
          "Every tensor type that the quantizer makes: values per block, bytes per block, whether it needs an importance matrix.");
    m.def("tensor_matches", &rim::tensor_matches, "pattern"_a, "names"_a,
          "Which names the quantizer finds a pattern in. Raises OptionError where it is no regular expression.");
    m.def("plan_quantization", &plan, "source"_a, "options"_a,
          nb::sig("def plan_quantization(source: str | bytes | os.PathLike[str], options: QuantizeOptions) -> list[tuple[str, str, str | None]]"),
          "The tensors that quantize() would write: name, type, and the type that a row's length did not allow. Reads the head of the "
          "file only. Raises ModelFileError, OptionError.");
    m.def("quantize", &quantize, "source"_a, "target"_a, "options"_a, "on_tensor"_a = nb::none(),
          nb::sig("def quantize(source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str], options: QuantizeOptions, "
                  "on_tensor: collections.abc.Callable[[str], object] | None = None) -> None"),
          "Write `target`, deterministically. Cannot be stopped, and a broken weight may end the process: use a process of its own. "
          "on_tensor(name): work on a tensor begins. Raises ModelFileError, OptionError.");
}
