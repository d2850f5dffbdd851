// Which compiled copy of the kernels runs: chosen once by CPUID, or by ABCDEEP_ISA.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "linalg.hpp"

namespace abcdeep {

// The tables of the selected instruction set. Thread-safe.
const Kernels& kernels();
const Linalg& linalg();

// "base", "x86-64-v3" or "x86-64-v4".
const char* selected_isa();
std::vector<std::string> supported_isas();

// Reads ABCDEEP_ISA, else takes the widest supported set. Called once, on import.
void select_isa_from_environment();

// Throws std::invalid_argument for a name that is unknown or that this machine does not support.
void select_isa(const std::string& name);

// CPU features outside the levels, by name, and whether this machine (CPU and system) has each.
std::vector<std::pair<std::string, bool>> cpu_features();

// Whether gemm_dot8 of the selected instruction set may run: it multiplies bytes with VNNI.
bool has_byte_dot_products();

}  // namespace abcdeep
