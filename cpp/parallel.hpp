// Loops over independent pieces of work on a small fork-safe thread pool.
#pragma once

#include <cstdint>
#include <type_traits>

namespace abcdeep {

// Threads used where a call does not say: ABCDEEP_NUM_THREADS, else the CPUs this process may use.
// Throws std::invalid_argument if ABCDEEP_NUM_THREADS is not a positive integer.
int default_threads();

// `poll` runs on the calling thread between pieces, at most every 50 ms; it may throw, which stops
// the loop. The module sets it to a look at Python's signals; this file knows nothing of Python.
void set_interrupt_poll(void (*poll)());

namespace detail {

struct BodyRef {
    const void* object;
    void (*call)(const void* object, std::int64_t index);
};

void parallel_for(std::int64_t count, int threads, BodyRef body);

}  // namespace detail

// body(index) for every index in [0, count), in any order, on up to `threads` threads of which the
// caller is one (threads <= 0: the default). The first exception stops the loop and is rethrown
// here. Results must not depend on the order. Keep one index below about 0.1 s of work, so that
// Ctrl-C is noticed. Call without the GIL. Nested loops, and a second loop while the pool is busy,
// run on the calling thread alone.
template <class Body>
void parallel_for(std::int64_t count, int threads, const Body& body) {
    detail::parallel_for(count, threads, {&body, [](const void* object, std::int64_t index) {
                                              (*static_cast<const Body*>(object))(index);
                                          }});
}

// body(begin, end) over [0, count) cut at multiples of `grain`: the cuts do not depend on threads.
template <class Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, int threads, const Body& body) {
    parallel_for((count + grain - 1) / grain, threads, [&](std::int64_t piece) {
        const std::int64_t begin = piece * grain;
        body(begin, begin + grain < count ? begin + grain : count);
    });
}

}  // namespace abcdeep
