// Words of a block format to float32: element * scale, exact, times the scale of the tensor.
#include "block.hpp"
#include "block_lookup.hpp"
#include "block_runs.hpp"
#include "float_environment.hpp"
#include "kernels.hpp"
#include "narrow_lanes.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

constexpr int vector = lanes<FloatLanes>;

template <bool few>
[[gnu::noinline]] void decode_range(const BlockJob& job, std::int64_t begin, std::int64_t end) {
    const Lookup<few> value(job.element_values);
    for_block_runs(job.layout, begin, end, [&](const BlockRun& run) {
        for (int r = 0; r < run.rows; ++r) {
            const std::int64_t row = run.row + r, first = row * job.layout.columns + run.column;
            const float tensor = job.decode_scale[job.row_scaled ? row : 0];
            if (run.has_single_columns()) {
                const std::uint8_t* codes = job.decoded_codes + first;
                const float* scales = job.scales + run.first_block;
                float* out = job.decoded + first;
                int i = 0;
                for (; i + vector <= run.columns; i += vector) {
                    const FloatLanes scaled =
                        value(widen(codes + i)) * load<FloatLanes>(scales + i);
                    store(out + i, FloatLanes(scaled * tensor));
                }
                for (; i < run.columns; ++i)
                    out[i] = job.element_values[codes[i]] * scales[i] * tensor;
                continue;
            }
            for (int b = 0; b < run.blocks; ++b) {
                const float scale = job.scales[run.first_block + b];
                const int at = b * run.block_columns, rest = run.columns - at;
                const int count = rest < run.block_columns ? rest : run.block_columns;
                const std::uint8_t* codes = job.decoded_codes + first + at;
                float* out = job.decoded + first + at;
                int i = 0;
                for (; i + vector <= count; i += vector)
                    store(out + i,
                          FloatLanes(FloatLanes(value(widen(codes + i)) * scale) * tensor));
                for (; i < count; ++i) out[i] = job.element_values[codes[i]] * scale * tensor;
            }
        }
    });
}

}  // namespace

void decode_blocks(const BlockJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    (job.few_words ? decode_range<true> : decode_range<false>)(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
