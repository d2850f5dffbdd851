// Which compiled copy of the kernels runs: CPUID, the operating system's XCR0, and ABCDEEP_ISA.
#include "dispatch.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace abcdeep {

#if defined(__x86_64__)
#define ABCDEEP_ISA_LIST(ISA) ISA(base, "base") ISA(v3, "x86-64-v3") ISA(v4, "x86-64-v4")
#else
#define ABCDEEP_ISA_LIST(ISA) ISA(base, "base")
#endif

#define ISA(space, name)          \
    namespace space {             \
    extern const Kernels kernels; \
    extern const Linalg linalg;   \
    }
ABCDEEP_ISA_LIST(ISA)
#undef ISA

namespace {

struct Isa {
    const char* name;
    const Kernels* kernels;
    const Linalg* linalg;
};

// Narrowest first.
constexpr Isa isas[] = {
#define ISA(space, name) {name, &space::kernels, &space::linalg},
    ABCDEEP_ISA_LIST(ISA)
#undef ISA
};
constexpr int isa_count = int(sizeof isas / sizeof isas[0]);

std::atomic<const Isa*> selected{&isas[0]};

#if defined(__x86_64__)

struct Cpuid {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    Cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
        __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx);
    }
};

constexpr bool all(std::uint64_t word, std::uint64_t mask) { return (word & mask) == mask; }
constexpr std::uint64_t bit(int position) { return std::uint64_t(1) << position; }

struct Cpu {
    Cpuid leaf1{1, 0}, leaf7{7, 0}, leaf7_1{7, 1}, extended{0x80000001u, 0};
    std::uint64_t xcr0 = 0;

    Cpu() {
        if (leaf1.ecx & bit(27)) {  // OSXSAVE: xgetbv may be executed
            std::uint32_t low, high;
            asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            xcr0 = (std::uint64_t(high) << 32) | low;
        }
    }
    // What the operating system saves on a context switch.
    bool avx_state() const { return all(xcr0, bit(1) | bit(2)); }
    bool avx512_state() const { return avx_state() && all(xcr0, bit(5) | bit(6) | bit(7)); }
    bool amx_state() const { return all(xcr0, bit(17) | bit(18)); }

    bool avx_vnni() const { return avx_state() && (leaf7_1.eax & bit(4)); }
    bool avx512_vnni() const { return avx512_state() && (leaf7.ecx & bit(11)); }
    bool fma() const { return avx_state() && (leaf1.ecx & bit(12)); }

    // The levels of the x86-64 psABI.
    bool v3() const {
        constexpr auto v2_bits = bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23);
        constexpr auto avx_fma_f16c_movbe = bit(28) | bit(12) | bit(29) | bit(22);
        constexpr auto bmi1_avx2_bmi2 = bit(3) | bit(5) | bit(8);
        return avx_state() && all(leaf1.ecx, v2_bits | avx_fma_f16c_movbe) &&
               all(leaf7.ebx, bmi1_avx2_bmi2) && (extended.ecx & bit(5));  // LZCNT
    }
    bool v4() const {
        constexpr auto f_dq_cd_bw_vl = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);
        return v3() && avx512_state() && all(leaf7.ebx, f_dq_cd_bw_vl);
    }
};

const Cpu& cpu() {
    static const Cpu instance;
    return instance;
}

bool supported(const Isa& isa) {
    const std::string name = isa.name;
    return name == "base" || (name == "x86-64-v3" && cpu().v3()) ||
           (name == "x86-64-v4" && cpu().v4());
}

#else

bool supported(const Isa&) { return true; }

#endif

}  // namespace

const Kernels& kernels() { return *selected.load(std::memory_order_relaxed)->kernels; }
const Linalg& linalg() { return *selected.load(std::memory_order_relaxed)->linalg; }
const char* selected_isa() { return selected.load(std::memory_order_relaxed)->name; }

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas) {
        if (supported(isa)) {
            names.emplace_back(isa.name);
        }
    }
    return names;
}

void select_isa(const std::string& name) {
    for (const Isa& isa : isas) {
        if (name == isa.name && supported(isa)) {
            selected.store(&isa, std::memory_order_relaxed);
            return;
        }
    }
    std::string allowed;
    for (const std::string& candidate : supported_isas()) {
        allowed += (allowed.empty() ? "" : ", ") + candidate;
    }
    throw std::invalid_argument(
        "ABCDEEP_ISA: expected one of the instruction sets this machine supports (" + allowed +
        "), got '" + name + "'");
}

void select_isa_from_environment() {
    if (const char* forced = std::getenv("ABCDEEP_ISA")) {
        select_isa(forced);
        return;
    }
    for (int i = isa_count - 1; i >= 0; --i) {
        if (supported(isas[i])) {
            selected.store(&isas[i], std::memory_order_relaxed);
            return;
        }
    }
}

bool has_byte_dot_products() {
#if defined(__x86_64__)
    const std::string name = selected_isa();
    return (name == "x86-64-v3" && cpu().avx_vnni()) ||
           (name == "x86-64-v4" && cpu().avx512_vnni());
#else
    return false;
#endif
}

std::vector<std::pair<std::string, bool>> cpu_features() {
#if defined(__x86_64__)
    const Cpu& c = cpu();
    const bool avx512 = c.avx512_state(), amx = c.amx_state();
    return {
        {"fma", c.fma()},
        {"avx_vnni", c.avx_vnni()},
        {"avx512_vnni", c.avx512_vnni()},
        {"avx512_bf16", avx512 && (c.leaf7_1.eax & bit(5))},
        {"avx512_fp16", avx512 && (c.leaf7.edx & bit(23))},
        {"amx_tile", amx && (c.leaf7.edx & bit(24))},
        {"amx_int8", amx && (c.leaf7.edx & bit(25))},
        {"amx_bf16", amx && (c.leaf7.edx & bit(22))},
    };
#else
    return {{"neon", true}};
#endif
}

}  // namespace abcdeep
