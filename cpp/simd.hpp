// Native vector types of the instruction set a kernel is compiled for, and what scalars share with them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifndef ABCDEEP_VECTOR_BYTES
#define ABCDEEP_VECTOR_BYTES 16
#endif

namespace abcdeep {

template <class T, int bytes = ABCDEEP_VECTOR_BYTES>
struct VectorOf {
    typedef T type __attribute__((vector_size(bytes)));
};
template <class T, int bytes = ABCDEEP_VECTOR_BYTES>
using Vector = typename VectorOf<T, bytes>::type;

template <class V>
struct ElementOf {
    using type = std::remove_cvref_t<decltype(V{}[0])>;
};
template <class T>
    requires std::is_arithmetic_v<T>
struct ElementOf<T> {
    using type = T;
};
template <class V>
using Element = typename ElementOf<V>::type;

template <class V>
inline constexpr int lanes = sizeof(V) / sizeof(Element<V>);

// The same number of lanes with another element of the same size.
template <class V, class T>
struct RebindTo {
    typedef T type __attribute__((vector_size(sizeof(V))));
};
template <class V, class T>
    requires std::is_arithmetic_v<V>
struct RebindTo<V, T> {
    using type = T;
};
template <class V, class T>
using Rebind = typename RebindTo<V, T>::type;

template <class To, class From>
static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class V, class T>
static inline V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
static inline void store(T* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

template <class V>
static inline V broadcast(Element<V> x) {
    if constexpr (std::is_arithmetic_v<V>)
        return x;
    else
        return x - V{};  // keeps -0
}

// true lanes -> a, false lanes -> b; the mask is what a comparison of V returns
template <class M, class V>
static inline V select(M mask, V a, V b) {
    return mask ? a : b;
}

template <class M>
static inline bool any(M mask) {
    if constexpr (std::is_arithmetic_v<M>) {
        return mask;
    } else {
        bool found = false;
        for (int i = 0; i < lanes<M>; ++i) found |= mask[i] != 0;
        return found;
    }
}

}  // namespace abcdeep
