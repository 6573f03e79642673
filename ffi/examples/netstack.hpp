// netstack for C++11 and later, in one header: handles that free themselves, results that are exceptions. What is not
// wrapped here is called in C, with get().
#ifndef NETSTACK_HPP
#define NETSTACK_HPP

#include <netstack.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace netstack {

// A call that did not return OK.
class Error : public std::runtime_error {
public:
    Error(uint32_t code, const std::string &words) : std::runtime_error(words), code_(code) {}
    uint32_t code() const { return code_; }

private:
    uint32_t code_;
};

// Throws unless a result is OK. `words` are what a function wrote as `char **error`; they are freed.
inline void check(netstack_result result, char *words = nullptr) {
    if (result == NETSTACK_RESULT_OK)
        return;
    const uint32_t code = static_cast<uint32_t>(result);
    char text[128] = "?";
    netstack_result_message(code, text, sizeof text, nullptr);
    std::string all = text;
    if (words != nullptr) {
        all += ": ";
        all += words;
        netstack_string_free(words);
    }
    throw Error(code, all);
}

// A text of the library.
inline std::string take(char *text) {
    std::string copy = text;
    netstack_string_free(text);
    return copy;
}

// A handle that frees itself, and goes from one owner to another.
template <typename T, netstack_result (*Free)(T *)> class Handle {
public:
    explicit Handle(T *handle = nullptr) : handle_(handle) {}
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    Handle(Handle &&other) noexcept : handle_(other.release()) {}
    Handle &operator=(Handle &&other) noexcept {
        if (this != &other) {
            Free(handle_);
            handle_ = other.release();
        }
        return *this;
    }
    ~Handle() { Free(handle_); }

    T *get() const { return handle_; }
    // For functions that take a handle.
    T *release() {
        T *handle = handle_;
        handle_ = nullptr;
        return handle;
    }

private:
    T *handle_;
};

// Frames in buffers of the library.
class Batch : public Handle<netstack_batch, netstack_batch_free> {
public:
    Batch() : Handle(make()) {}
    size_t count() const {
        size_t count = 0;
        check(netstack_batch_count(get(), &count));
        return count;
    }
    // Where the frames are, until the next call with this batch.
    std::vector<netstack_view> frames() {
        std::vector<netstack_view> views(count());
        size_t count = 0;
        check(netstack_batch_frames(get(), views.data(), views.size(), &count));
        return views;
    }
    void push(const uint8_t *data, size_t length) { check(netstack_batch_push(get(), data, length)); }
    void clear() { check(netstack_batch_clear(get())); }

private:
    static netstack_batch *make() {
        netstack_batch *batch = nullptr;
        check(netstack_batch_new(&batch));
        return batch;
    }
};

// What a switch is to be.
class Config : public Handle<netstack_config, netstack_config_free> {
public:
    explicit Config(const std::string &json) : Handle(make(json)) {}
    explicit Config(netstack_config *config) : Handle(config) {}
    std::string json() const {
        char *text = nullptr;
        check(netstack_config_to_json(get(), &text));
        return take(text);
    }

private:
    static netstack_config *make(const std::string &json) {
        netstack_config *config = nullptr;
        char *error = nullptr;
        check(netstack_config_from_json(json.data(), json.size(), &config, &error), error);
        return config;
    }
};

// A switch.
class Switch : public Handle<netstack_switch, netstack_switch_free> {
public:
    explicit Switch(const uint8_t *seed = nullptr, const netstack_limits *limits = nullptr)
        : Handle(make(seed, limits)) {}
    void install(const Config &config) {
        char *error = nullptr;
        check(netstack_switch_install(get(), config.get(), &error), error);
    }
    void handle(uint64_t now_us, uint16_t port, Batch &batch) {
        check(netstack_switch_handle_batch(get(), now_us, port, batch.get()));
    }
    // Fills an empty batch; false if nothing is to be sent.
    bool poll(Batch &batch, uint16_t &port) {
        size_t count = 0;
        check(netstack_switch_poll_batch(get(), batch.get(), &port, &count));
        return count > 0;
    }
    void timeout(uint64_t now_us) { check(netstack_switch_handle_timeout(get(), now_us)); }
    uint64_t deadline() const {
        uint64_t deadline = NETSTACK_NEVER;
        check(netstack_switch_poll_timeout(get(), &deadline));
        return deadline;
    }
    netstack_counters counters(uint32_t port = NETSTACK_ALL_PORTS) const {
        netstack_counters counters = {};
        counters.struct_size = sizeof counters;
        check(netstack_switch_counters(get(), port, &counters));
        return counters;
    }
    std::string trace(uint64_t now_us, uint16_t port, const uint8_t *data, size_t length) const {
        char *text = nullptr;
        check(netstack_switch_trace_text(get(), now_us, port, data, length, &text));
        return take(text);
    }

private:
    static netstack_switch *make(const uint8_t *seed, const netstack_limits *limits) {
        netstack_switch *made = nullptr;
        check(netstack_switch_new(limits, seed, &made));
        return made;
    }
};

// A host without a kernel.
class Host : public Handle<netstack_host, netstack_host_free> {
public:
    explicit Host(const netstack_host_options &options, const uint8_t *seed = nullptr)
        : Handle(make(options, seed)) {}
    void handle(uint64_t now_us, Batch &batch) {
        check(netstack_host_handle_batch(get(), now_us, batch.get()));
    }
    // Fills an empty batch; false if nothing is to be sent.
    bool poll(Batch &batch) {
        size_t count = 0;
        check(netstack_host_poll_batch(get(), batch.get(), &count));
        return count > 0;
    }

private:
    static netstack_host *make(const netstack_host_options &options, const uint8_t *seed) {
        netstack_host *made = nullptr;
        char *error = nullptr;
        check(netstack_host_new(&options, seed, &made, &error), error);
        return made;
    }
};

} // namespace netstack

#endif
