// Straight-through gradients: the chain again, and the terms it let through.
#include "float_environment.hpp"
#include "float_lanes.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// Vectors over rows of `lane`; the other operand's rows one after the other, which is the order in
// which a gradient is summed. One mask a term says whether the gradient passes.
class GradientLanes {
    using V = FloatLanes::V;
    using U = FloatLanes::U;
    using Mask = FloatLanes::Mask;
    using F = Vector<float, sizeof(V) / 2>;
    using FloatMask = Vector<std::int32_t, sizeof(V) / 2>;
    static constexpr int width = FloatLanes::width;

  public:
    GradientLanes(const GradientJob& job, const FloatDatapath& datapath)
        : job_(job),
          datapath_(datapath),
          lanes_(datapath),
          chunk_(datapath.chunk > 0 ? datapath.chunk : std::max<std::int64_t>(job.terms, 1)),
          chunks_((job.terms + chunk_ - 1) / chunk_),
          operand_(job.terms * width),
          sums_(job.terms * width),
          passes_(job.terms * width),
          results_(chunks_ * width),
          product_random_(job.random, 3 * job.random.call, lanes_.product_random_bits()),
          step_random_(job.random, 3 * job.random.call + 1, lanes_.step_random_bits()),
          merge_random_(job.random, 3 * job.random.call + 2, lanes_.merge_random_bits()) {}

    // Adds what rows [begin, end) of the other operand give to the gradients of `valid` rows.
    void rows(std::int64_t first, int valid, std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = 0; k < job_.terms; ++k) {
            V v{};
            for (int j = 0; j < valid; ++j) v[j] = job_.lane(first + j, place(k));
            store(operand_ + k * width, v);
            F sums{};
            for (int j = 0; j < valid; ++j) sums[j] = job_.out(first + j, place(k));
            store(sums_ + k * width, sums);
        }
        for (std::int64_t s = begin; s < end; ++s) {
            F g{};
            V start{};
            for (int j = 0; j < valid; ++j) {
                g[j] = job_.gradient(first + j, s);
                if (job_.start.data) start[j] = job_.start(first + j, s);
            }
            chain(first, s, job_.start.data ? lanes_.start(start) : V{});
            for (std::int64_t k = 0; k < job_.terms; ++k) {
                const F term = g * job_.other(s, place(k));
                const FloatMask pass =
                    __builtin_convertvector(load<Mask>(passes_ + k * width), FloatMask);
                store(sums_ + k * width, load<F>(sums_ + k * width) + select(pass != 0, term, F{}));
            }
        }
        for (std::int64_t k = 0; k < job_.terms; ++k)
            for (int j = 0; j < valid; ++j) {
                const float sum = sums_[k * width + j];
                job_.out(first + j, place(k)) = sum == sum ? sum : __builtin_nanf("");
            }
    }

  private:
    std::int64_t place(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    void chain(std::int64_t first, std::int64_t s, V start) {
        const std::uint64_t index = job_.first_output + std::uint64_t(first) * job_.lane_stride +
                                    std::uint64_t(s) * job_.other_stride;
        product_random_.start(index, job_.terms, job_.lane_stride);
        step_random_.start(index, job_.terms, job_.lane_stride);
        merge_random_.start(index, chunks_, job_.lane_stride);
        for (std::int64_t j = 0; j < chunks_; ++j) {
            V sum = j == 0 ? start : V{};
            const std::int64_t end = std::min(job_.terms, (j + 1) * chunk_);
            for (std::int64_t k = j * chunk_; k < end; ++k) {
                Mask product_over, over;
                const V other = broadcast<V>(double(job_.other(s, place(k))));
                const V p = lanes_.product(load<V>(operand_ + k * width), other,
                                           product_random_.draw<U>(k), product_over);
                product_over |= lanes_.product_at_largest(load<V>(operand_ + k * width), other, p);
                const V next = lanes_.accumulate(p, sum, step_random_.draw<U>(k), over);
                const Mask pass = job_.estimator == Estimator::immediate_difference
                                      ? Mask(next != sum)
                                      : Mask(~(over | product_over));
                store(passes_ + k * width, pass);
                sum = next;
            }
            store(results_ + j * width, sum);
        }
        if (chunks_ > 1 && datapath_.merge_kind == Merge::quantized)
            merge();
        else if (job_.estimator == Estimator::recursive_overflow)
            for (std::int64_t j = 0; j < chunks_; ++j) close_chunk(j, ~Mask{});
    }

    // Terms of chunk j pass where its merges do, and, recursively, all later steps of the chunk.
    void close_chunk(std::int64_t j, Mask merged) {
        const bool recursive = job_.estimator == Estimator::recursive_overflow;
        for (std::int64_t k = std::min(job_.terms, (j + 1) * chunk_) - 1; k >= j * chunk_; --k) {
            const Mask pass = load<Mask>(passes_ + k * width) & merged;
            store(passes_ + k * width, pass);
            if (recursive) merged = pass;
        }
    }

    void merge() {
        const bool back = datapath_.merge_order == MergeOrder::first_then_back;
        auto chunk_at = [&](std::int64_t i) { return back && i > 0 ? chunks_ - i : i; };
        V sum{};
        for (std::int64_t i = 0; i < chunks_; ++i) {
            const std::int64_t j = chunk_at(i);
            Mask over;
            sum = lanes_.accumulate_merge(load<V>(results_ + j * width), sum,
                                          merge_random_.draw<U>(j), over);
            store(results_ + j * width, Mask(~over));
        }
        Mask later = ~Mask{};
        for (std::int64_t i = chunks_ - 1; i >= 0; --i) {
            const std::int64_t j = chunk_at(i);
            const Mask pass = load<Mask>(results_ + j * width);
            later &= pass;
            close_chunk(j, job_.estimator == Estimator::recursive_overflow ? later : pass);
        }
    }

    const GradientJob& job_;
    const FloatDatapath& datapath_;
    FloatLanes lanes_;
    std::int64_t chunk_, chunks_;
    Scratch<double> operand_;
    Scratch<float> sums_;
    Scratch<std::int64_t> passes_;
    Scratch<double> results_;
    LaneRandom<width> product_random_, step_random_, merge_random_;
};

[[gnu::noinline]] void run(const GradientJob& job, const FloatDatapath& datapath,
                           const Block& block) {
    GradientLanes lanes(job, datapath);
    constexpr int width = FloatLanes::width;
    for (std::int64_t l = block.row_begin; l < block.row_end; l += width) {
        const int valid = int(std::min<std::int64_t>(width, block.row_end - l));
        lanes.rows(l, valid, block.column_begin, block.column_end);
    }
}

}  // namespace

void estimate_gradient(const GradientJob& job, const FloatDatapath& datapath, const Block& block) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    run(job, datapath, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
