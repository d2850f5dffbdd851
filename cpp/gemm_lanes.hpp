// The general GEMM: a vector of outputs side by side, any datapath the engine knows, events,
// randomness.
//
// Domain (float or integer lanes) says what a term, a group, a step and a merge are; this file says
// in which order they happen (docs/accumulators.md, "Reference semantics").
#pragma once

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <type_traits>

#include "datapath.hpp"
#include "random_tile.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {

// Uninitialised memory of one call of a kernel.
template <class T>
class Scratch {
  public:
    explicit Scratch(std::int64_t count)
        : data_(static_cast<T*>(
              std::aligned_alloc(64, (std::size_t(count) * sizeof(T) + 63) / 64 * 64 + 64))) {
        if (!data_) throw std::bad_alloc();
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    operator T*() const { return data_; }

  private:
    T* data_;
};

// Random bits of `width` outputs side by side, in the order of their terms.
template <int width>
class LaneRandom {
  public:
    LaneRandom(const RandomSource& source, std::uint32_t call, int bits)
        : source_(source), bits_(bits) {
        source_.call = call;
    }

    // Lane j draws from index (output + j * stride) * per_output + k.
    void start(std::uint64_t output, std::int64_t per_output, std::uint64_t stride = 1) {
        output_ = output;
        stride_ = stride;
        per_output_ = per_output;
        filled_ = -1;
    }

    template <class U>
    U draw(std::int64_t k) {
        if (bits_ == 0) return U{};
        if (filled_ < 0 || k < filled_ || k >= filled_ + depth) {
            filled_ = k;
            const std::int64_t count = std::min<std::int64_t>(depth, per_output_ - k);
            for (int j = 0; j < width; ++j)
                draw_random_bits(
                    words_[j], source_,
                    (output_ + std::uint64_t(j) * stride_) * std::uint64_t(per_output_) +
                        std::uint64_t(k),
                    count, bits_);
        }
        U r{};
        for (int j = 0; j < width; ++j) r[j] = words_[j][k - filled_];
        return r;
    }

  private:
    static constexpr int depth = 64;
    RandomSource source_;
    int bits_;
    std::uint64_t output_ = 0, stride_ = 1;
    std::int64_t per_output_ = 0, filled_ = -1;
    std::uint32_t words_[width][depth];
};

// Events of `width` outputs side by side; masks are all ones in the lanes where something happened.
template <class V>
struct LaneEvents {
    using U = Rebind<V, std::uint64_t>;
    U counts[event_counts] = {};
    V smallest = V{} + extreme(true), largest = V{} + extreme(false);

    template <class M>
    void count(EventCount event, M mask) {
        counts[event] -= U(mask);
    }
    template <class M>
    void partial_sum(V v, M counted) {
        smallest = select(counted & (v < smallest), v, smallest);
        largest = select(counted & (v > largest), v, largest);
    }

  private:
    // Beyond every partial sum.
    static Element<V> extreme(bool high) {
        using Limits = std::numeric_limits<Element<V>>;
        if (Limits::has_infinity) return high ? Limits::infinity() : -Limits::infinity();
        return high ? Limits::max() : Limits::min();
    }
};

template <class Domain>
class LaneGemm {
    using Job = typename Domain::Job;
    using V = typename Domain::V;
    using E = Element<V>;
    using U = Rebind<V, std::uint64_t>;
    static constexpr int width = lanes<V>;
    static constexpr bool is_integer = std::is_integral_v<E>;
    static constexpr std::int64_t largest_panel = std::int64_t(1) << 19;  // elements

  public:
    LaneGemm(const Job& job, const typename Domain::Datapath& datapath, EventTotals& totals)
        : job_(job),
          datapath_(datapath),
          domain_(datapath),
          totals_(totals),
          chunk_(datapath.chunk > 0 ? std::min(datapath.chunk, std::max<std::int64_t>(job.terms, 1))
                                    : std::max<std::int64_t>(job.terms, 1)),
          chunks_((job.terms + chunk_ - 1) / chunk_),
          groups_((job.terms + datapath.group - 1) / datapath.group),
          packed_(job.terms * width <= largest_panel),
          panel_(packed_ ? job.terms * width : 0),
          results_(chunks_ > 1 ? chunks_ * width : 0),
          product_random_(job.random, 3 * job.random.call, domain_.product_random_bits()),
          step_random_(job.random, 3 * job.random.call + 1, domain_.step_random_bits()),
          merge_random_(job.random, 3 * job.random.call + 2, domain_.merge_random_bits()) {}

    void run(const Block& block) {
        for (std::int64_t n = block.column_begin; n < block.column_end; n += width) {
            valid_ = int(std::min<std::int64_t>(width, block.column_end - n));
            if (packed_)
                for (std::int64_t k = 0; k < job_.terms; ++k)
                    store(panel_ + k * width, gather(k, n));
            for (std::int64_t m = block.row_begin; m < block.row_end; ++m) output(m, n);
        }
    }

  private:
    std::int64_t operand_index(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    V gather(std::int64_t k, std::int64_t n) const {
        V v{};
        const std::int64_t row = operand_index(k);
        for (int j = 0; j < valid_; ++j) v[j] = E(job_.b(row, n + j));
        return v;
    }

    void output(std::int64_t m, std::int64_t n) {
        const std::uint64_t index = job_.first_output + std::uint64_t(job_.place(m, n));
        product_random_.start(index, job_.terms);
        step_random_.start(index, job_.terms);
        merge_random_.start(index, datapath_.exact_chunks ? groups_ : chunks_);
        LaneEvents<V> events;
        V start{};
        if (job_.c.data)
            for (int j = 0; j < valid_; ++j) start[j] = E(job_.c(m, n + j));
        domain_.begin(start);
        if (job_.c.data) start = domain_.start(start);
        V sum = start;
        for (std::int64_t j = 0; j < chunks_; ++j) {
            V s = j == 0 ? start : V{};
            const std::int64_t end = std::min(job_.terms, (j + 1) * chunk_);
            s = steps_are_products() ? chain(m, n, j * chunk_, end, s, events)
                                     : groups(m, n, j * chunk_, end, s, events);
            if (chunks_ > 1) store(results_ + j * width, s);
            sum = s;
        }
        if (chunks_ > 1) sum = merge(events);
        if (job_.event_level) {
            domain_.finish(events);
            record(m, n, events);
        }
        if constexpr (is_integer) sum = domain_.result(sum);
        job_.write(m, n, valid_, reinterpret_cast<const E*>(&sum));
    }

    V term(std::int64_t m, std::int64_t n, std::int64_t k, LaneEvents<V>& events) {
        const V a = broadcast<V>(E(job_.a(m, operand_index(k))));
        const V b = packed_ ? load<V>(panel_ + k * width) : gather(k, n);
        return domain_.term(a, b, product_random_.template draw<U>(k), job_.event_level, events);
    }

    // Of the step that starts with term k; steps of exact chunks are merges of chunks.
    U step_word(std::int64_t k) {
        if (datapath_.exact_chunks) return merge_random_.template draw<U>(k / datapath_.group);
        return step_random_.template draw<U>(k);
    }

    bool steps_are_products() const {
        if constexpr (is_integer)
            if (datapath_.tree || !datapath_.node_exact) return false;
        return datapath_.group == 1;
    }

    V chain(std::int64_t m, std::int64_t n, std::int64_t begin, std::int64_t end, V s,
            LaneEvents<V>& events) {
        for (std::int64_t k = begin; k < end; ++k) {
            const V p = term(m, n, k, events);
            s = domain_.step(p, s, step_word(k), job_.event_level, events);
        }
        return s;
    }

    V groups(std::int64_t m, std::int64_t n, std::int64_t begin, std::int64_t end, V s,
             LaneEvents<V>& events) {
        for (std::int64_t k = begin; k < end; k += datapath_.group) {
            const std::int64_t stop = std::min(end, k + datapath_.group);
            const U random = step_word(k);
            if constexpr (is_integer) {
                if (datapath_.tree) {
                    const V sum = halves(
                        k, stop,
                        [&](std::int64_t i) { return domain_.node(term(m, n, i, events)); },
                        [&](V r, V l, std::int64_t) { return domain_.node(l, r); });
                    s = domain_.step(sum, s, random, job_.event_level, events);
                    continue;
                }
            }
            domain_.open_group(s);
            for (std::int64_t i = k; i < stop; ++i) domain_.add_to_group(term(m, n, i, events));
            if (domain_.group_is_inexact()) {
                domain_.open_exact_group(s);
                LaneEvents<V> again;
                for (std::int64_t i = k; i < stop; ++i)
                    domain_.add_to_exact_group(term(m, n, i, again));
            }
            s = domain_.close_group(s, random, job_.event_level, events);
        }
        return s;
    }

    V merge(LaneEvents<V>& events) {
        if (datapath_.merge_kind == Merge::exact)
            return domain_.exact_merge(results_, chunks_, job_.wide_out);
        V sum{};
        auto add = [&](V r, V s, std::int64_t j) {
            return domain_.merge(r, s, merge_random_.template draw<U>(j), job_.event_level, events);
        };
        auto result = [&](std::int64_t j) { return load<V>(results_ + j * width); };
        if (datapath_.merge_order == MergeOrder::pairwise) return halves(0, chunks_, result, add);
        const bool back = datapath_.merge_order == MergeOrder::first_then_back;
        for (std::int64_t i = 0; i < chunks_; ++i) {
            const std::int64_t j = back && i > 0 ? chunks_ - i : i;
            sum = add(result(j), sum, j);
        }
        return sum;
    }

    // Sum of leaves [begin, end) by recursive halves, the left one the longer.
    template <class Leaf, class Add>
    V halves(std::int64_t begin, std::int64_t end, const Leaf& leaf, const Add& add) const {
        if (end - begin == 1) return leaf(begin);
        const std::int64_t middle = begin + (end - begin + 1) / 2;
        const V left = halves(begin, middle, leaf, add);
        return add(halves(middle, end, leaf, add), left, middle);
    }

    void record(std::int64_t m, std::int64_t n, const LaneEvents<V>& events) {
        const EventTable& table = job_.table;
        for (int j = 0; j < valid_; ++j) {
            const std::int64_t at = job_.place(m, n + j);
            for (int e = 0; e < event_counts; ++e) {
                totals_.counts[e] += std::int64_t(events.counts[e][j]);
                if (table.counts)
                    table.counts[e * table.plane + at] = std::int64_t(events.counts[e][j]);
            }
            if (!(events.smallest[j] <= events.largest[j])) continue;  // no step
            const double low = double(events.smallest[j]), high = double(events.largest[j]);
            totals_.smallest = totals_.any ? std::min(totals_.smallest, low) : low;
            totals_.largest = totals_.any ? std::max(totals_.largest, high) : high;
            totals_.any = true;
            if (table.extremes) {
                table.extremes[at] = low;
                table.extremes[table.plane + at] = high;
            }
        }
    }

    const Job& job_;
    const typename Domain::Datapath& datapath_;
    Domain domain_;
    EventTotals& totals_;
    std::int64_t chunk_, chunks_, groups_;
    bool packed_;
    Scratch<E> panel_, results_;
    LaneRandom<width> product_random_, step_random_, merge_random_;
    int valid_ = width;
};

}  // namespace
}  // namespace abcdeep
