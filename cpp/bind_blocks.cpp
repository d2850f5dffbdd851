// Bindings: block formats.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cfloat>

#include "bindings.hpp"
#include "block.hpp"
#include "dispatch.hpp"
#include "float_environment.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t elements_per_piece = 1 << 15;

using Words = std::optional<ArrayIn<std::uint32_t>>;
using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

// Pieces of about as many elements, whatever the size of a block.
template <class Kernel>
void run(const BlockJob& job, int threads, Kernel kernel) {
    const BlockLayout& layout = job.layout;
    const std::int64_t elements = layout.block_rows * layout.block_columns;
    const std::int64_t grain = elements < elements_per_piece ? elements_per_piece / elements : 1;
    parallel_ranges(layout.blocks(), grain, threads,
                    [&](auto begin, auto end) { kernel(job, begin, end); });
}

// Rows without a short block follow each other in memory and in the order of the scales.
void join_rows(BlockLayout& layout, bool row_scaled) {
    if (layout.block_rows != 1 || row_scaled || layout.columns % layout.block_columns != 0) return;
    layout.columns *= layout.matrices * layout.rows;
    layout.matrices = layout.rows = 1;
}

BlockLayout layout_of(Sizes sizes, std::pair<int, int> block, bool row_scaled) {
    const auto [matrices, rows, columns] = sizes;
    BlockLayout layout{matrices, rows, columns, block.first, block.second};
    join_rows(layout, row_scaled);
    return layout;
}

[[gnu::noinline]] void scale_pair(float largest, float target, float& encode, float& decode) {
    encode = target / largest;
    if (encode > FLT_MAX) encode = FLT_MAX;
    if (largest == 0 || encode == 0) encode = 1;
    decode = 1.0f / encode;
}

// The float32 scales of tensors whose largest magnitudes become `target`.
void tensor_scales(ArrayIn<float> largest, float target, ArrayOut<float> encode,
                   ArrayOut<float> decode) {
    const nb::gil_scoped_release release;
    const FloatEnvironment environment(FloatRounding::nearest, false);
    for (std::size_t i = 0; i < largest.size(); ++i)
        scale_pair(largest.data()[i], target, encode.data()[i], decode.data()[i]);
}

// Returns how many elements were clipped, and whether some value was not finite where it has to be.
std::pair<std::int64_t, bool> quantize_blocks(
    const BlockJob& format, ArrayIn<float> values, ArrayOut<std::uint8_t> codes, AnyOut scales,
    Sizes sizes, std::pair<int, int> block, ArrayIn<float> encode, ArrayIn<float> decode,
    float tensor_max, ArrayIn<float> element_values, std::uint64_t seed, std::uint32_t stream,
    std::uint32_t call, Words words, Words scale_words, int threads, bool general) {
    const nb::gil_scoped_release release;
    BlockJob job = format;
    job.row_scaled = encode.size() > 1;
    job.layout = layout_of(sizes, block, job.row_scaled);
    job.values = values.data();
    job.codes = codes.data();
    job.scale_codes = scales.data();
    job.float_scales = scales.itemsize() == 4;
    job.encode_scale = encode.data();
    job.decode_scale = decode.data();
    job.tensor_max = tensor_max;
    job.element_values = element_values.data();
    job.random = {seed, stream, call, words ? words->data() : nullptr};
    job.scale_random = {seed, stream, call, scale_words ? scale_words->data() : nullptr};
    job.general = general;
    std::int64_t clipped = 0;
    int failed = 0;
    job.clipped = &clipped;
    job.failed = &failed;
    run(job, threads, kernels().quantize_blocks);
    return {clipped, failed != 0};
}

void decode_blocks(ArrayIn<std::uint8_t> codes, ArrayIn<float> scales, ArrayIn<float> tensor_scale,
                   ArrayOut<float> out, Sizes sizes, std::pair<int, int> block,
                   ArrayIn<float> element_values, bool few_words, int threads) {
    const nb::gil_scoped_release release;
    BlockJob job;
    job.row_scaled = tensor_scale.size() > 1;
    job.layout = layout_of(sizes, block, job.row_scaled);
    job.decoded_codes = codes.data();
    job.scales = scales.data();
    job.decode_scale = tensor_scale.data();
    job.element_values = element_values.data();
    job.few_words = few_words;
    job.decoded = out.data();
    run(job, threads, kernels().decode_blocks);
}

}  // namespace

void bind_blocks(nb::module_& m) {
    nb::class_<BlockJob> job(m, "BlockJob");
    job.def(nb::init<>());
    job.def_rw("element", &BlockJob::element).def_rw("scale", &BlockJob::scale);
    job.def_rw("twos_complement", &BlockJob::twos_complement);
    job.def_rw("element_max", &BlockJob::element_max).def_rw("scale_max", &BlockJob::scale_max);
    job.def_rw("headroom", &BlockJob::headroom).def_rw("scale_factor", &BlockJob::scale_factor);
    job.def_rw("scaled_max", &BlockJob::scaled_max);
    job.def_prop_rw(
        "rule", [](const BlockJob& j) { return int(j.rule); },
        [](BlockJob& j, int value) { j.rule = ScaleRule(value); });
    job.def_prop_rw(
        "four_over_six", [](const BlockJob& j) { return int(j.four_over_six); },
        [](BlockJob& j, int value) { j.four_over_six = FourOverSix(value); });

    m.def("tensor_scales", &tensor_scales, "largest"_a.noconvert(), "target"_a,
          "encode"_a.noconvert(), "decode"_a.noconvert());
    m.def("quantize_blocks", &quantize_blocks, "format"_a, "values"_a.noconvert(),
          "codes"_a.noconvert(), "scales"_a.noconvert(), "sizes"_a, "block"_a,
          "encode"_a.noconvert(), "decode"_a.noconvert(), "tensor_max"_a,
          "element_values"_a.noconvert(), "seed"_a, "stream"_a, "call"_a, "words"_a.none(),
          "scale_words"_a.none(), "threads"_a, "general"_a = false);
    m.def("decode_blocks", &decode_blocks, "codes"_a.noconvert(), "scales"_a.noconvert(),
          "tensor_scale"_a.noconvert(), "out"_a.noconvert(), "sizes"_a, "block"_a,
          "element_values"_a.noconvert(), "few_words"_a, "threads"_a);
}

}  // namespace abcdeep
