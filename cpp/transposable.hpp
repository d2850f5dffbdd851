// Transposable N:M masks: what a call of the kernels carries.
#pragma once

#include <cstdint>

namespace abcdeep {

enum class TransposableMethod { exact, heavy_first, light_first };

inline constexpr int transposable_largest_size = 32;

// What went wrong in some block.
inline constexpr unsigned transposable_nonfinite = 1;

// Rows of `columns` elements, cut into blocks of m x m; block b is block b % (columns / m) of m
// rows. out: one byte an element, 1 where it is kept; 1 <= n < m.
// u, v: m dual variables a block, of its rows and of its columns, or null.
struct TransposableJob {
    const void* in = nullptr;
    bool is_double = false;
    std::uint8_t* out = nullptr;
    std::int64_t columns = 0;
    int n = 0, m = 0;
    TransposableMethod method = TransposableMethod::exact;
    std::int64_t* u = nullptr;
    std::int64_t* v = nullptr;

    class Cursor;
};

// The blocks of a job in turn, without a division each.
class TransposableJob::Cursor {
  public:
    Cursor(const TransposableJob& job, std::int64_t block)
        : job_(job),
          in_a_row_(job.columns / job.m),
          strip_(block / in_a_row_),
          left_(in_a_row_ - block % in_a_row_) {}

    std::int64_t origin() const {
        return strip_ * job_.m * job_.columns + (in_a_row_ - left_) * job_.m;
    }

    // Blocks of the strip from this one on.
    std::int64_t left() const { return left_; }

    // By at most left() blocks.
    void advance(std::int64_t blocks) {
        left_ -= blocks;
        if (left_ == 0) {
            left_ = in_a_row_;
            ++strip_;
        }
    }

  private:
    const TransposableJob& job_;
    std::int64_t in_a_row_, strip_, left_;
};

}  // namespace abcdeep
