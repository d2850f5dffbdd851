// The thread pool: workers that sleep on a condition variable and share one loop at a time.
#include "parallel.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "float_environment.hpp"

namespace abcdeep {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto poll_interval = std::chrono::milliseconds(50);
constexpr int max_threads = 1024;

std::atomic<void (*)()> interrupt_poll{nullptr};

// A loop inside a loop runs on its own thread: the pool serves one loop at a time.
thread_local bool inside_loop = false;

struct Loop {
    Loop(detail::BodyRef loop_body, std::int64_t loop_count) : body(loop_body), count(loop_count) {}

    detail::BodyRef body;
    std::int64_t count;
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> stopped{false};
    std::mutex error_mutex;
    std::exception_ptr error;

    void fail() noexcept {
        const std::lock_guard lock(error_mutex);
        if (!error) {
            error = std::current_exception();
        }
        stopped.store(true, std::memory_order_relaxed);
    }
};

// Looks at the interrupt hook at most once an interval; only ever used by a calling thread.
class Poller {
  public:
    void poll(Loop& loop) noexcept {
        const auto now = Clock::now();
        if (now < due_ || loop.stopped.load(std::memory_order_relaxed)) {
            return;
        }
        due_ = now + poll_interval;
        if (auto* hook = interrupt_poll.load(std::memory_order_relaxed)) {
            try {
                hook();
            } catch (...) {
                loop.fail();
            }
        }
    }

  private:
    Clock::time_point due_ = Clock::now() + poll_interval;
};

// Takes indices until none is left. `poller` is null on workers.
void work(Loop& loop, Poller* poller) noexcept {
    while (!loop.stopped.load(std::memory_order_relaxed)) {
        const std::int64_t index = loop.next.fetch_add(1, std::memory_order_relaxed);
        if (index >= loop.count) {
            return;
        }
        try {
            loop.body.call(loop.body.object, index);
        } catch (...) {
            loop.fail();
        }
        if (poller) {
            poller->poll(loop);
        }
    }
}

class Pool {
  public:
    // False if another caller has the pool.
    bool run(Loop& loop, int helpers, Poller& poller) {
        const std::unique_lock owner(owner_, std::try_to_lock);
        if (!owner) {
            return false;
        }
        std::unique_lock lock(mutex_);
        grow(helpers);
        loop_ = &loop;
        vacancies_ = helpers < workers_ ? helpers : workers_;
        lock.unlock();
        wake_.notify_all();
        work(loop, &poller);
        lock.lock();
        vacancies_ = 0;
        while (active_ != 0) {
            idle_.wait_for(lock, poll_interval);
            lock.unlock();
            poller.poll(loop);
            lock.lock();
        }
        loop_ = nullptr;
        return true;
    }

  private:
    // Too few threads is slower, never wrong.
    void grow(int wanted) {
        while (workers_ < wanted) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error&) {
                return;
            }
            ++workers_;
        }
    }

    void serve() {
        inside_loop = true;
        // A thread starts with its creator's rounding mode, which may be anything.
        const FloatEnvironment environment(FloatRounding::nearest, false);
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return vacancies_ > 0; });
            --vacancies_;
            ++active_;
            Loop& loop = *loop_;
            lock.unlock();
            work(loop, nullptr);
            lock.lock();
            if (--active_ == 0) {
                idle_.notify_one();
            }
        }
    }

    std::mutex owner_;
    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    Loop* loop_ = nullptr;
    int workers_ = 0, vacancies_ = 0, active_ = 0;
};

// Never destroyed: workers sleep in it until the process ends. A forked child has none of its
// parent's threads and may have inherited locked mutexes, so it starts with a fresh pool.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
    static const int registered = pthread_atfork(
        nullptr, nullptr, [] { current_pool.store(nullptr, std::memory_order_relaxed); });
    (void)registered;
    Pool* existing = current_pool.load(std::memory_order_acquire);
    if (existing) {
        return *existing;
    }
    Pool* fresh = new Pool;
    if (current_pool.compare_exchange_strong(existing, fresh)) {
        return *fresh;
    }
    delete fresh;
    return *existing;
}

int available_cpus() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return CPU_COUNT(&set);
    }
    const unsigned count = std::thread::hardware_concurrency();
    return count > 0 ? int(count) : 1;
}

}  // namespace

int default_threads() {
    const char* text = std::getenv("ABCDEEP_NUM_THREADS");
    if (text == nullptr) {
        return available_cpus();
    }
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < 1 || value > max_threads) {
        throw std::invalid_argument("ABCDEEP_NUM_THREADS: expected an integer from 1 to " +
                                    std::to_string(max_threads) + ", got '" + text + "'");
    }
    return int(value);
}

void set_interrupt_poll(void (*poll)()) { interrupt_poll.store(poll); }

void detail::parallel_for(std::int64_t count, int threads, BodyRef body) {
    Loop loop(body, count);
    Poller poller;
    std::int64_t wanted = threads > 0 ? threads : default_threads();
    wanted = std::min<std::int64_t>({wanted, count, max_threads});
    const bool nested = inside_loop;
    inside_loop = true;
    if (nested || wanted <= 1 || !pool().run(loop, int(wanted) - 1, poller)) {
        work(loop, &poller);
    }
    inside_loop = nested;
    if (loop.error) {
        std::rethrow_exception(loop.error);
    }
}

}  // namespace abcdeep
