// Bindings: 2:4 packing and the search for a permutation of channels.
#include <nanobind/stl/optional.h>

#include <atomic>
#include <optional>

#include "bindings.hpp"
#include "channel_swap.hpp"
#include "dispatch.hpp"
#include "pack_24.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t bytes_per_piece = 1 << 18;

using Kernel = unsigned (*)(const PackJob&, std::int64_t, std::int64_t);

// Rows in pieces that tiles of reordered metadata do not cross.
unsigned run_rows(Kernel kernel, const PackJob& job, std::int64_t rows, int threads) {
    std::int64_t piece = bytes_per_piece / job.row_bytes + 1;
    piece = (piece + reordered_rows - 1) / reordered_rows * reordered_rows;
    std::atomic<unsigned> seen{0};
    parallel_ranges(rows, piece, threads,
                    [&](auto begin, auto end) { seen |= kernel(job, begin, end); });
    return seen;
}

// What a dtype and a layout fix.
struct Packing {
    int unit_bytes, element_bytes, test_bytes, word_bytes;
    std::uint32_t magnitude;
    bool reordered;

    PackJob job(std::int64_t rows, std::int64_t row_bytes) const {
        PackJob job;
        job.rows = rows;
        job.row_bytes = row_bytes;
        job.unit_bytes = unit_bytes;
        job.element_bytes = element_bytes;
        job.test_bytes = test_bytes;
        job.word_bytes = word_bytes;
        job.magnitude = magnitude;
        job.reordered = reordered;
        return job;
    }
};

// Whether no group keeps more than two units. codes: those of two groups each, see PackJob.
bool pack_24(ArrayIn<std::uint8_t> dense, std::optional<ArrayIn<std::uint8_t>> kept,
             ArrayOut<std::uint8_t> values, ArrayOut<std::uint8_t> metadata,
             ArrayIn<std::uint16_t> codes, const Packing& packing, std::int64_t rows,
             std::int64_t row_bytes, int threads) {
    const nb::gil_scoped_release release;
    PackJob job = packing.job(rows, row_bytes);
    job.in = dense.data();
    job.out = values.data();
    job.metadata = metadata.data();
    job.kept = kept ? kept->data() : nullptr;
    job.codes = codes.data();
    return !run_rows(kernels().pack_24, job, std::int64_t(dense.size()) / row_bytes, threads);
}

void unpack_24(ArrayIn<std::uint8_t> values, ArrayIn<std::uint8_t> metadata,
               ArrayOut<std::uint8_t> dense, const Packing& packing, std::int64_t rows,
               std::int64_t row_bytes, int threads) {
    const nb::gil_scoped_release release;
    PackJob job = packing.job(rows, row_bytes);
    job.in = values.data();
    job.out = dense.data();
    job.metadata = const_cast<std::uint8_t*>(metadata.data());  // only read
    run_rows(kernels().unpack_24, job, std::int64_t(dense.size()) / row_bytes, threads);
}

// Whether each byte of metadata is legal.
bool check_24(ArrayIn<std::uint8_t> metadata, ArrayIn<std::uint16_t> codes, int threads) {
    const nb::gil_scoped_release release;
    PackJob job;
    job.metadata = const_cast<std::uint8_t*>(metadata.data());  // only read
    job.codes = codes.data();
    job.row_bytes = 16;  // one byte of metadata
    return !run_rows(kernels().unpack_24, job, std::int64_t(metadata.size()), threads);
}

// out[i][j] = sum over rows of max(magnitudes[row][j], floors[i][row]).
void replacement_sums(ArrayIn<double, 2> magnitudes, ArrayIn<double, 2> floors,
                      ArrayOut<double, 2> out, int threads) {
    const nb::gil_scoped_release release;
    SwapJob job;
    job.magnitudes = magnitudes.data();
    job.rows = std::int64_t(magnitudes.shape(0));
    job.channels = std::int64_t(magnitudes.shape(1));
    job.floors = floors.data();
    job.out = out.data();
    parallel_ranges(std::int64_t(floors.shape(0)), 8, threads,
                    [&](auto begin, auto end) { kernels().swap_gains(job, begin, end); });
}

// out[p][c] = kept sum of the channels members[p] split by chosen[c]; magnitudes: channels x rows.
void split_sums(ArrayIn<double, 2> magnitudes, ArrayIn<std::int64_t, 2> members,
                ArrayIn<std::uint8_t, 2> chosen, int n, ArrayOut<double, 2> out, int threads) {
    if (members.shape(1) > swap_most_members || chosen.shape(0) > swap_most_choices)
        throw nb::value_error("too many members or choices");
    const nb::gil_scoped_release release;
    SwapJob job;
    job.magnitudes = magnitudes.data();
    job.channels = std::int64_t(magnitudes.shape(0));
    job.rows = std::int64_t(magnitudes.shape(1));
    job.members = members.data();
    job.chosen = chosen.data();
    job.choices = std::int64_t(chosen.shape(0));
    job.n = n;
    job.m = int(members.shape(1) / 2);
    job.out = out.data();
    parallel_ranges(std::int64_t(members.shape(0)), 4, threads,
                    [&](auto begin, auto end) { kernels().swap_gains(job, begin, end); });
}

}  // namespace

void bind_pack_24(nb::module_& m) {
    nb::class_<Packing>(m, "Packing")
        .def(nb::init<int, int, int, int, std::uint32_t, bool>(), "unit_bytes"_a, "element_bytes"_a,
             "test_bytes"_a, "word_bytes"_a, "magnitude"_a, "reordered"_a);
    m.attr("packing_fault") = packing_fault;
    m.attr("swap_most_members") = swap_most_members;
    m.attr("swap_most_choices") = swap_most_choices;
    m.def("pack_24", &pack_24, "dense"_a.noconvert(), "kept"_a.none().noconvert(),
          "values"_a.noconvert(), "metadata"_a.noconvert(), "codes"_a.noconvert(), "packing"_a,
          "rows"_a, "row_bytes"_a, "threads"_a);
    m.def("unpack_24", &unpack_24, "values"_a.noconvert(), "metadata"_a.noconvert(),
          "dense"_a.noconvert(), "packing"_a, "rows"_a, "row_bytes"_a, "threads"_a);
    m.def("check_24", &check_24, "metadata"_a.noconvert(), "codes"_a.noconvert(), "threads"_a);
    m.def("replacement_sums", &replacement_sums, "magnitudes"_a.noconvert(), "floors"_a.noconvert(),
          "out"_a.noconvert(), "threads"_a);
    m.def("split_sums", &split_sums, "magnitudes"_a.noconvert(), "members"_a.noconvert(),
          "chosen"_a.noconvert(), "n"_a, "out"_a.noconvert(), "threads"_a);
}

}  // namespace abcdeep
