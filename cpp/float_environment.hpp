// Sets rounding mode and flush-to-zero for a scope and restores the caller's state after it.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace abcdeep {
namespace {

enum class FloatRounding { nearest, upward, toward_zero };

// The compiler does not know that arithmetic depends on this state: memory barriers stop loads and
// stores, not operations between registers. So construct it in a function that then calls a
// [[gnu::noinline]] function with the arithmetic. A thread's state is its own: construct it inside
// each piece of a parallel loop (in the kernel), not around the loop.
class FloatEnvironment {
  public:
    FloatEnvironment(FloatRounding rounding, bool flush_to_zero) {
#if defined(__x86_64__)
        // MXCSR: 0x1f80 masks every exception, bits 13-14 round, 0x8000 flushes results (FTZ), not
        // operands: float32's subnormal numbers may be widened.
        saved_ = _mm_getcsr();
        std::uint32_t state = 0x1f80u;
        state |= rounding == FloatRounding::toward_zero ? 0x6000u
                 : rounding == FloatRounding::upward    ? 0x4000u
                                                        : 0u;
        state |= flush_to_zero ? 0x8000u : 0u;
        barrier();
        _mm_setcsr(state);
        barrier();
#elif defined(__aarch64__)
        // FPCR: bits 22-23 round (1 = upward, 3 = toward zero), bit 24 flushes operands and
        // results.
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        std::uint64_t state = rounding == FloatRounding::toward_zero ? std::uint64_t(3) << 22
                              : rounding == FloatRounding::upward    ? std::uint64_t(1) << 22
                                                                     : 0;
        state |= flush_to_zero ? std::uint64_t(1) << 24 : 0;
        asm volatile("msr fpcr, %0" : : "r"(state) : "memory");
#else
#error "FloatEnvironment: unknown processor"
#endif
    }

    ~FloatEnvironment() {
#if defined(__x86_64__)
        barrier();
        _mm_setcsr(saved_);
        barrier();
#elif defined(__aarch64__)
        asm volatile("msr fpcr, %0" : : "r"(saved_) : "memory");
#endif
    }

    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;

  private:
    static void barrier() { asm volatile("" : : : "memory"); }

#if defined(__x86_64__)
    std::uint32_t saved_;
#elif defined(__aarch64__)
    std::uint64_t saved_;
#endif
};

}  // namespace
}  // namespace abcdeep
