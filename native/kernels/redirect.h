// redirect.h: another function in place of one that a loaded library calls by name.
#pragma once

namespace rim::kernels {

// From now on the library that `inside` points into (a function of it) calls `function` wherever it calls `symbol` through its table of
// imported functions; nobody else does. False, and nothing is changed, where there is no such table (only ELF on 64 bits is known) or the
// library does not import the symbol.
bool redirect(const void * inside, const char * symbol, void * function);

// Whether that library's table has the symbol.
bool imports(const void * inside, const char * symbol);

}  // namespace rim::kernels
