// bind_gguf.cpp: Python face of the checked GGUF reading (gguf_file.h).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cctype>
#include <cstring>
#include <memory>

#include "bind.h"
#include "gguf_file.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using rim::GgufFile;
using rim::GgufTensor;
using rim::GgufValue;

nb::object decoded(std::string_view text) {
    PyObject * object = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    if (!object) {
        throw nb::python_error();
    }
    return nb::steal(object);
}

// An array of strings, read one by one when asked: a vocabulary has 100,000 of them.
struct StringArray {
    std::shared_ptr<const GgufFile> file;
    const GgufValue * value;

    size_t size() const { return value->count; }

    nb::bytes get(nb::ssize_t index) const {
        const auto count = static_cast<nb::ssize_t>(value->count);
        if (index < 0) {
            index += count;
        }
        if (index < 0 || index >= count) {
            throw nb::index_error("no such string");
        }
        const std::string_view text = file->string(*value, static_cast<uint64_t>(index));
        return nb::bytes(text.data(), text.size());
    }
};

struct Reader {
    std::shared_ptr<const GgufFile> file;
    bool arrays;
};

template <typename T> nb::object numbers(const GgufFile & file, const GgufValue & value) {
    auto copy = std::make_unique<T[]>(value.count);
    if constexpr (std::is_same_v<T, bool>) {
        for (uint64_t i = 0; i < value.count; ++i) {
            copy[i] = file.data(value)[i] != 0;
        }
    } else {
        std::memcpy(copy.get(), file.data(value), value.count * sizeof(T));
    }
    T * data = copy.get();
    nb::capsule owner(copy.release(), [](void * pointer) noexcept { delete[] static_cast<T *>(pointer); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {static_cast<size_t>(value.count)}, owner));
}

template <typename T> T scalar(const GgufFile & file, const GgufValue & value) {
    T number;
    std::memcpy(&number, file.data(value), sizeof number);
    return number;
}

nb::object to_python(const std::shared_ptr<const GgufFile> & pointer, const GgufValue & value) {
    const GgufFile & file = *pointer;
    if (value.type == GGUF_TYPE_STRING) {
        return value.is_array ? nb::cast(StringArray{pointer, &value}) : decoded(file.string(value, 0));
    }
    const auto convert = [&](auto kind) -> nb::object {
        using T = decltype(kind);
        return value.is_array ? numbers<T>(file, value) : nb::cast(scalar<T>(file, value));
    };
    switch (value.type) {
        case GGUF_TYPE_UINT8: return value.is_array ? numbers<uint8_t>(file, value) : nb::int_(scalar<uint8_t>(file, value));
        case GGUF_TYPE_INT8: return value.is_array ? numbers<int8_t>(file, value) : nb::int_(scalar<int8_t>(file, value));
        case GGUF_TYPE_BOOL: return value.is_array ? numbers<bool>(file, value) : nb::bool_(scalar<uint8_t>(file, value) != 0);
        case GGUF_TYPE_UINT16: return convert(uint16_t{});
        case GGUF_TYPE_INT16: return convert(int16_t{});
        case GGUF_TYPE_UINT32: return convert(uint32_t{});
        case GGUF_TYPE_INT32: return convert(int32_t{});
        case GGUF_TYPE_UINT64: return convert(uint64_t{});
        case GGUF_TYPE_INT64: return convert(int64_t{});
        case GGUF_TYPE_FLOAT32: return convert(float{});
        case GGUF_TYPE_FLOAT64: return convert(double{});
        default: return nb::none();
    }
}

// The keys and values of a file, as a Python mapping. A value is made when it is asked for: an array of numbers takes numpy, which takes
// longer to import than all else does here.
struct Metadata {
    std::shared_ptr<const GgufFile> file;
    bool arrays;

    bool has(const GgufValue & value) const { return arrays || !value.is_array; }
    const GgufValue * find(const std::string & key) const {
        const GgufValue * const value = file->find(key);
        return value && has(*value) ? value : nullptr;
    }
    nb::object get(const std::string & key, nb::object otherwise) const {
        const GgufValue * const value = find(key);
        return value ? to_python(file, *value) : otherwise;
    }
    nb::object item(const std::string & key) const {
        const GgufValue * const value = find(key);
        if (!value) {
            throw nb::key_error(key.c_str());
        }
        return to_python(file, *value);
    }
    template <class Of> nb::list list(const Of & of) const {
        nb::list result;
        for (const auto & [key, value] : file->values()) {
            if (has(value)) {
                result.append(of(key, value));
            }
        }
        return result;
    }
    nb::list keys() const {
        return list([](const std::string & key, const GgufValue &) { return decoded(key); });
    }
    nb::list values() const {
        return list([this](const std::string &, const GgufValue & value) { return to_python(file, value); });
    }
    nb::list items() const {
        return list([this](const std::string & key, const GgufValue & value) { return nb::make_tuple(decoded(key), to_python(file, value)); });
    }
};

// Some elements of an array of so many numbers; None where the file has no such array.
nb::object numbers_at(const Reader & reader, const std::string & key, uint64_t count, const std::vector<uint64_t> & indices) {
    const GgufValue * const value = reader.file->find(key);
    if (!value || !value->is_array || value->type == GGUF_TYPE_STRING || value->count != count) {
        return nb::none();
    }
    nb::list result;
    for (const uint64_t index : indices) {
        if (index >= count) {
            throw nb::index_error("no such element");
        }
        const uint64_t size = value->length / count;
        result.append(to_python(reader.file, GgufValue{value->type, false, 1, value->position + index * size, size, {}}));
    }
    return result;
}

std::string type_name(const GgufTensor & tensor) {
    std::string name = ggml_type_name(tensor.type);
    for (char & c : name) {
        c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    return name;
}

nb::tuple shape(const GgufTensor & tensor) {
    nb::list sizes;
    for (const uint64_t size : tensor.shape) {
        sizes.append(size);
    }
    return nb::tuple(sizes);
}

}  // namespace

std::string path_bytes(nb::object path) {
    PyObject * bytes = nullptr;
    if (!PyUnicode_FSConverter(path.ptr(), &bytes)) {
        throw nb::python_error();
    }
    const nb::object owner = nb::steal(bytes);
    return {PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes))};
}

nb::object file_system_text(const std::string & path) {
    PyObject * text = PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()));
    if (!text) {
        throw nb::python_error();
    }
    return nb::steal(text);
}

void bind_gguf(nb::module_ & m) {
    nb::class_<GgufTensor>(m, "GgufTensor", "What a GGUF file says of one tensor.")
        .def_prop_ro("name", [](const GgufTensor & t) { return decoded(t.name); }, nb::sig("def name(self) -> str"))
        .def_prop_ro("shape", &shape, nb::sig("def shape(self) -> tuple[int, ...]"), "Fastest dimension first, as in the file.")
        .def_prop_ro("type", &type_name, "\"F32\", \"Q4_0\", ...")
        .def_ro("size_bytes", &GgufTensor::size_bytes)
        .def_ro("offset", &GgufTensor::offset, "Bytes from the start of the file.");

    nb::class_<StringArray>(m, "StringArray", "An array of strings of a GGUF file, as bytes.")
        .def("__len__", &StringArray::size)
        .def("__getitem__", &StringArray::get, "index"_a);

    nb::class_<Metadata>(m, "GgufMetadata", "Keys and values of a GGUF file, a read-only mapping; values are made when asked for.")
        .def("__len__", [](const Metadata & d) { return nb::len(d.keys()); })
        .def("__iter__", [](const Metadata & d) { return nb::iter(d.keys()); })
        .def("__contains__", [](const Metadata & d, const std::string & key) { return d.find(key) != nullptr; })
        .def("__getitem__", &Metadata::item, "key"_a)
        .def("get", &Metadata::get, "key"_a, "default"_a = nb::none())
        .def("keys", &Metadata::keys)
        .def("values", &Metadata::values)
        .def("items", &Metadata::items);
    nb::module_::import_("collections.abc").attr("Mapping").attr("register")(m.attr("GgufMetadata"));

    nb::class_<Reader>(m, "GgufFile",
                       "The head of a GGUF file: metadata and tensor list, every step checked.\n\n"
                       "Raises ModelFileError naming what is wrong and where, whatever the bytes are. `arrays=False` leaves arrays out of `metadata`.")
        .def(
            "__init__",
            [](Reader * self, nb::object path, bool arrays) {
                const std::string name = path_bytes(std::move(path));
                std::shared_ptr<const GgufFile> file;
                {
                    nb::gil_scoped_release release;
                    file = std::make_shared<const GgufFile>(name);
                }
                new (self) Reader{std::move(file), arrays};
            },
            "path"_a, "arrays"_a = true,
            nb::sig("def __init__(self, path: str | bytes | os.PathLike[str], arrays: bool = True) -> None"))
        .def_prop_ro("path", [](const Reader & r) { return file_system_text(r.file->path()); }, nb::sig("def path(self) -> str"))
        .def_prop_ro("size_bytes", [](const Reader & r) { return r.file->size_bytes(); })
        .def_prop_ro("version", [](const Reader & r) { return r.file->version(); })
        .def_prop_ro("alignment", [](const Reader & r) { return r.file->alignment(); })
        .def_prop_ro("data_offset", [](const Reader & r) { return r.file->data_offset(); }, "Bytes from the start of the file.")
        .def_prop_ro("metadata", [](const Reader & r) { return Metadata{r.file, r.arrays}; },
                     "Every key in the file's order: int, float, bool, str; arrays of numbers as numpy arrays, of strings as StringArray.")
        .def("numbers_at", &numbers_at, "key"_a, "count"_a, "indices"_a,
             nb::sig("def numbers_at(self, key: str, count: int, indices: Sequence[int]) -> list[int | float | bool] | None"),
             "Some elements of an array of `count` numbers, without numpy; None where the file has no such array.")
        .def_prop_ro("tensors", [](const Reader & r) { return r.file->tensors(); });
}
