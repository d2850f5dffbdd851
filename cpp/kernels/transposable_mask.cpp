// Transposable N:M masks of any size: the exact solver and the greedy variants.
#include "float_environment.hpp"
#include "kernels.hpp"
#include "transposable_greedy.hpp"
#include "transposable_solver.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <class T, int size>
[[gnu::noinline]] unsigned solve_blocks(const TransposableJob& job, std::int64_t begin,
                                        std::int64_t end) {
    TransposableSolver<size> solver(job.n, job.m);
    unsigned wrong = 0;
    TransposableJob::Cursor cursor(job, begin);
    for (std::int64_t block = begin; block < end; ++block, cursor.advance(1)) {
        const std::int64_t origin = cursor.origin();
        if (!solver.load_block(static_cast<const T*>(job.in) + origin, job.columns)) {
            wrong |= transposable_nonfinite;
            continue;
        }
        solver.solve();
        write_rows(solver.rows(), job.m, job.out + origin, job.columns);
        if (job.u == nullptr) continue;
        for (int i = 0; i < job.m; ++i) {
            job.u[block * job.m + i] = std::int64_t(solver.u()[i]);
            job.v[block * job.m + i] = std::int64_t(solver.v()[i]);
        }
    }
    return wrong;
}

template <class T>
[[gnu::noinline]] unsigned greedy_blocks(const TransposableJob& job, std::int64_t begin,
                                         std::int64_t end) {
    constexpr int at_once = GreedyBlocks<T>::at_once;
    GreedyBlocks<T> blocks(job.n, job.m, job.method == TransposableMethod::heavy_first);
    const T* in = static_cast<const T*>(job.in);
    std::uint32_t rows[transposable_largest_size];
    std::int64_t origins[at_once];
    unsigned wrong = 0;
    TransposableJob::Cursor cursor(job, begin);
    for (std::int64_t block = begin; block < end; block += at_once) {
        const int count = int(std::min<std::int64_t>(at_once, end - block));
        for (int b = 0; b < count; ++b, cursor.advance(1)) {
            origins[b] = cursor.origin();
            if (!blocks.load_block(b, in + origins[b], job.columns))
                wrong |= transposable_nonfinite;
        }
        blocks.sort();
        for (int b = 0; b < count; ++b) {
            blocks.choose(b, in + origins[b], job.columns, rows);
            write_rows(rows, job.m, job.out + origins[b], job.columns);
        }
    }
    return wrong;
}

template <class T>
unsigned mask_blocks(const TransposableJob& job, std::int64_t begin, std::int64_t end) {
    if (job.method != TransposableMethod::exact) return greedy_blocks<T>(job, begin, end);
    if (job.m <= 8) return solve_blocks<T, 8>(job, begin, end);
    if (job.m <= 16) return solve_blocks<T, 16>(job, begin, end);
    return solve_blocks<T, 32>(job, begin, end);
}

}  // namespace

unsigned transposable_mask(const TransposableJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    return job.is_double ? mask_blocks<double>(job, begin, end)
                         : mask_blocks<float>(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
