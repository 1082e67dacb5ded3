// gguf_check.h: what a well-formed GGUF file must say besides, so that libllama loads it or refuses it, but never aborts.
//
// Checks what libllama takes for granted: sizes that it divides by or asserts on, and a vocabulary that fits the embedding.
// Everything that libllama itself reports as an error is left to it.
#pragma once

#include "gguf_file.h"

namespace rim {

// The file, and every part of it where a model is split in several. Throws Error model_file.
void check_model(const GgufFile & file, bool vocab_only);

}  // namespace rim
