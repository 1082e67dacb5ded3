#include "ggml_private.h"

#include <dlfcn.h>
#include <llama.h>

#include <cstring>

namespace rim::kernels::ggml_private {

std::string why_unknown(ExtraBufferTypes & types) {
    if (strcmp(ggml_version(), ggml_version_mirrored) != 0 || strcmp(llama_version(), llama_version_mirrored) != 0) {
        return std::string("they are made for ggml ") + ggml_version_mirrored + ", this is " + ggml_version();
    }
    types = reinterpret_cast<ExtraBufferTypes>(dlsym(RTLD_DEFAULT, extra_buffer_types_symbol));
    if (!types || !dlsym(RTLD_DEFAULT, barrier_symbol)) {
        return "libggml-cpu does not offer what they need";
    }
    return "";
}

}  // namespace rim::kernels::ggml_private
