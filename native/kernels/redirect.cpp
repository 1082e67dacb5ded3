#include "redirect.h"

#if defined(__linux__) && defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace rim::kernels {

namespace {

#if defined(__x86_64__)
constexpr uint32_t called = R_X86_64_JUMP_SLOT, taken = R_X86_64_GLOB_DAT;
#else
constexpr uint32_t called = R_AARCH64_JUMP_SLOT, taken = R_AARCH64_GLOB_DAT;
#endif

// What a library says of itself (System V ABI, "Dynamic Section").
struct Tables {
    const char * names = nullptr;
    const ElfW(Sym) * symbols = nullptr;
    struct {
        const ElfW(Rela) * first = nullptr;
        size_t bytes = 0;
    } of_calls, of_all;

    explicit Tables(const link_map & map) {
        // glibc has added the library's place to these addresses, musl has not.
        const auto address = [&map](ElfW(Addr) value) { return value < map.l_addr ? value + map.l_addr : value; };
        for (const ElfW(Dyn) * entry = map.l_ld; entry->d_tag != DT_NULL; ++entry) {
            switch (entry->d_tag) {
                case DT_STRTAB: names = reinterpret_cast<const char *>(address(entry->d_un.d_ptr)); break;
                case DT_SYMTAB: symbols = reinterpret_cast<const ElfW(Sym) *>(address(entry->d_un.d_ptr)); break;
                case DT_JMPREL: of_calls.first = reinterpret_cast<const ElfW(Rela) *>(address(entry->d_un.d_ptr)); break;
                case DT_PLTRELSZ: of_calls.bytes = entry->d_un.d_val; break;
                case DT_RELA: of_all.first = reinterpret_cast<const ElfW(Rela) *>(address(entry->d_un.d_ptr)); break;
                case DT_RELASZ: of_all.bytes = entry->d_un.d_val; break;
                default: break;
            }
        }
    }
};

struct Range {
    uintptr_t first, end;
};

// The pages of the library at `place` that the linker made read-only after it had filled them in.
Range read_only_after_loading(uintptr_t place) {
    struct Wanted {
        uintptr_t place;
        Range range;
    } wanted{place, {0, 0}};
    dl_iterate_phdr(
        [](dl_phdr_info * info, size_t, void * data) {
            auto & found = *static_cast<Wanted *>(data);
            if (info->dlpi_addr != found.place) {
                return 0;
            }
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const ElfW(Phdr) & header = info->dlpi_phdr[i];
                if (header.p_type == PT_GNU_RELRO) {
                    found.range = {info->dlpi_addr + header.p_vaddr, info->dlpi_addr + header.p_vaddr + header.p_memsz};
                }
            }
            return 1;
        },
        &wanted);
    return wanted.range;
}

bool write(void ** slot, void * function, Range read_only) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto at = reinterpret_cast<uintptr_t>(slot);
    const bool locked = at >= read_only.first / page * page && at < read_only.end / page * page;
    auto * const start = reinterpret_cast<void *>(at / page * page);
    if (locked && mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    __atomic_store_n(slot, function, __ATOMIC_RELEASE);
    if (locked) {
        mprotect(start, page, PROT_READ);
    }
    return true;
}

// Calls use(slot, place of the library) for every slot of the symbol in the table of the library that `inside` points into; whether one of
// these calls said true.
template <class Use>
bool any_slot(const void * inside, const char * symbol, const Use & use) {
    Dl_info library;
    link_map * map = nullptr;
    if (!dladdr1(inside, &library, reinterpret_cast<void **>(&map), RTLD_DL_LINKMAP) || !map) {
        return false;
    }
    const Tables tables(*map);
    if (!tables.names || !tables.symbols) {
        return false;
    }
    bool any = false;
    for (const auto & table : {tables.of_calls, tables.of_all}) {
        for (size_t i = 0; i < table.bytes / sizeof(ElfW(Rela)); ++i) {
            const ElfW(Rela) & entry = table.first[i];
            const auto type = static_cast<uint32_t>(ELF64_R_TYPE(entry.r_info));
            const ElfW(Sym) & imported = tables.symbols[ELF64_R_SYM(entry.r_info)];
            if ((type == called || type == taken) && strcmp(tables.names + imported.st_name, symbol) == 0) {
                any |= use(reinterpret_cast<void **>(map->l_addr + entry.r_offset), map->l_addr);
            }
        }
    }
    return any;
}

}  // namespace

bool redirect(const void * inside, const char * symbol, void * function) {
    return any_slot(inside, symbol,
                    [function](void ** slot, uintptr_t place) { return write(slot, function, read_only_after_loading(place)); });
}

bool imports(const void * inside, const char * symbol) {
    return any_slot(inside, symbol, [](void **, uintptr_t) { return true; });
}

}  // namespace rim::kernels

#else

namespace rim::kernels {

bool redirect(const void *, const char *, void *) {
    return false;
}

bool imports(const void *, const char *) {
    return false;
}

}  // namespace rim::kernels

#endif
