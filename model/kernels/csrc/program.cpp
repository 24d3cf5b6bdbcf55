// A step's calls, recorded once and made again for any number of tokens (model/program.py).
#include <cstring>
#include <type_traits>
#include <utility>

#include "entries.hpp"

namespace {

constexpr int MAX_ARGUMENTS = 20;

using Played = void (*)(void* context, const int64_t* arguments);

// What an argument is made of, by its kind.
enum class Kind : uint8_t {
    CONSTANT = 0,  // the value
    ROWS = 1,      // the value times the number of tokens
    ARENA = 2,     // an address: the arena's and value bytes a token
    BOUND = 3,     // what the step brings in place `value` of its own list
};

struct Call {
    Played function;
    int64_t values[MAX_ARGUMENTS];
    Kind kinds[MAX_ARGUMENTS];
};

template <class T>
T as(int64_t bits) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(bits);
    } else if constexpr (std::is_same_v<T, float>) {
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    } else {
        return T(bits);
    }
}

template <class... A, size_t... I>
void unpack(void (*function)(void*, A...), void* context, const int64_t* arguments,
            std::index_sequence<I...>) {
    static_assert(sizeof...(A) <= MAX_ARGUMENTS);
    function(context, as<A>(arguments[I])...);
}

template <class... A>
void unpack(void (*function)(void*, A...), void* context, const int64_t* arguments) {
    unpack(function, context, arguments, std::index_sequence_for<A...>{});
}

template <auto FUNCTION>
void play(void* context, const int64_t* arguments) {
    unpack(FUNCTION, context, arguments);
}

struct Named {
    const char* name;
    Played function;
};

const Named PLAYED[] = {
    {"linear", play<tiedlm_linear>},   {"quantised_linear", play<tiedlm_quantised_linear>},
    {"attend", play<tiedlm_attend>},
    {"gate", play<tiedlm_gate>},       {"normalize", play<tiedlm_normalize>},
    {"add", play<tiedlm_add>},         {"clamp", play<tiedlm_clamp>},
    {"rotate", play<tiedlm_rotate>},   {"columns", play<tiedlm_columns>},
    {"write", play<tiedlm_write>},     {"angles", play<tiedlm_angles>},
};

}  // namespace

extern "C" {

// -> what Call::function is for tiedlm_<name>; null where it cannot be recorded
void* tiedlm_played(const char* name) {
    for (const Named& each : PLAYED)
        if (std::strcmp(each.name, name) == 0) return reinterpret_cast<void*>(each.function);
    return nullptr;
}

void tiedlm_play(void* context, const Call* calls, int64_t count, int64_t num_tokens, char* arena,
                 const int64_t* bound) {
    for (const Call* call = calls; call < calls + count; ++call) {
        int64_t arguments[MAX_ARGUMENTS];
        for (int i = 0; i < MAX_ARGUMENTS; ++i) {
            const int64_t value = call->values[i];
            switch (call->kinds[i]) {
                case Kind::CONSTANT: arguments[i] = value; break;
                case Kind::ROWS: arguments[i] = value * num_tokens; break;
                case Kind::ARENA: arguments[i] = int64_t(arena) + value * num_tokens; break;
                case Kind::BOUND: arguments[i] = bound[value]; break;
            }
        }
        call->function(context, arguments);
    }
}

}  // extern "C"
