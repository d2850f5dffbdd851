// Integer accumulators in 32-bit lanes: wrapping, and saturating after every product.
#include "fixed.hpp"
#include "gemm_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <bool saturate>
class IntegerStep {
  public:
    using V = Vector<std::int32_t>;

    explicit IntegerStep(const IntegerTile& t)
        : bits_(t.bits),
          is_signed_(t.is_signed),
          lowest_(V{} + std::int32_t(saturate ? t.lowest : 0)),
          highest_(V{} + std::int32_t(saturate ? t.highest : 0)) {}

    template <class T>
    T pack_a(T x) const {
        return x;
    }
    template <class T>
    T pack_b(T x) const {
        return x;
    }

    V step(V a, V b, V s) const {
        using U = Vector<std::uint32_t>;
        return limit(V(U(a) * U(b) + U(s)));  // modulo 2^32
    }
    V merge(V r, V s) const { return limit(r + s); }
    std::int32_t start(std::int64_t c) const {
        if constexpr (saturate)
            return std::int32_t(std::clamp<std::int64_t>(c, lowest_[0], highest_[0]));
        return std::int32_t(std::uint32_t(std::uint64_t(c)));
    }
    V finish(V s) const {
        if constexpr (saturate) return s;
        for (int j = 0; j < lanes<V>; ++j)
            s[j] = std::int32_t(low_bits(std::uint32_t(s[j]), bits_, is_signed_));
        return s;
    }

  private:
    V limit(V v) const {
        if constexpr (!saturate) return v;
        v = select(v < lowest_, lowest_, v);
        return select(v > highest_, highest_, v);
    }

    int bits_;
    bool is_signed_;
    V lowest_, highest_;
};

template <bool saturate>
void run(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    const IntegerStep<saturate> step(tile);
    run_tiles(step, job, tile.chunk, block);
}

}  // namespace

void gemm_integer(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    (tile.saturate ? run<true> : run<false>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
