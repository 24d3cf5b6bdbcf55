// What every operator of an instruction set answers to one series of inputs: a digest a case.
//
//   kernel_digests INSTRUCTION_SET NUM_THREADS
//
// Two outputs, of whatever processors, are equal where all results have the same bits. Any NaN is as
// good as another.
#include "kernel_digests.hpp"

#include <cstdlib>

#include "context.hpp"
#include "entries.hpp"

extern "C" {
void* tiedlm_open(const char* name, int threads);
void tiedlm_close(void* context);
const char* tiedlm_name(void* context);
}

using namespace tiedlm;

namespace {

struct Shape {
    int64_t rows, width, outputs;
};

void linear(void* handle, Chance& chance, Values values) {
    constexpr Shape SHAPES[] = {{1, 1, 1},    {1, 64, 19},  {2, 17, 3},    {3, 31, 2},
                                {4, 16, 5},   {7, 33, 8},   {13, 100, 7},  {97, 48, 11},
                                {5, 576, 40}, {200, 80, 33}, {1, 2048, 129}};
    for (const Shape& at : SHAPES)
        for (const int matrix : {0, 1}) {
            const auto x = chance.floats(at.rows * at.width, values);
            const auto weight = chance.floats(at.outputs * at.width, values);
            const auto bias = chance.floats(at.outputs, values);
            const void* data = weight.data();
            std::vector<uint16_t> upper;
            for (const float& each : weight) upper.push_back(uint16_t(bits_of(each) >> 16));
            if (matrix == 1) data = upper.data();
            std::vector<float> plain(size_t(at.rows * at.outputs)), added(plain.size());
            tiedlm_linear(handle, x.data(), matrix, at.rows, at.width,  //
                          data, nullptr, plain.data(), at.outputs,      //
                          data, bias.data(), added.data(), at.outputs,  //
                          nullptr, nullptr, nullptr, 0);
            tell(named("linear", {matrix, at.rows, at.width, at.outputs}), plain);
            tell(named("linear with bias", {matrix, at.rows, at.width, at.outputs}), added);
        }
}

// Scales and offsets are finite, as in any checkpoint that is served.
std::vector<uint8_t> random_codes(Chance& chance, const Codes& shape) {
    std::vector<uint8_t> data(size_t(shape.tiles() * shape.tile_bytes()));
    for (uint8_t& each : data) each = uint8_t(chance.next());
    for (int64_t tile = 0; tile < shape.tiles(); ++tile)
        for (int64_t i = 0; i < shape.multiples(); i += 2) {
            uint8_t& high = data[size_t(tile * shape.tile_bytes() + i + 1)];
            if ((high & 0x7C) == 0x7C) high &= 0x83;  // infinity or NaN: made the least of its sign
        }
    return data;
}

void quantised(void* handle, Chance& chance, Values values) {
    constexpr CodeKind KINDS[] = {  // weights/quant.py
        {4, 8, 0, 32, 1},   {4, 0, 1, 32, 1}, {5, 16, 0, 32, 1}, {5, 0, 1, 32, 1},
        {8, 128, 0, 32, 1}, {4, 0, 1, 32, 8}, {5, 0, 1, 32, 8},  {6, 32, 0, 16, 16}};
    constexpr Shape SHAPES[] = {{1, 1, 1},   {1, 576, 64}, {2, 31, 5},   {3, 32, 16}, {5, 33, 17},
                                {9, 300, 53}, {64, 64, 40}, {70, 300, 53}, {131, 96, 203}};
    for (const CodeKind& kind : KINDS)
        for (const Shape& at : SHAPES) {
            const auto data = random_codes(chance, {nullptr, kind, at.outputs, at.width});
            const auto x = chance.floats(at.rows * at.width, values);
            const auto bias = chance.floats(at.outputs, values);
            std::vector<float> plain(size_t(at.rows * at.outputs)), added(plain.size());
            for (const int is_wide : {0, 1}) {
                tiedlm_quantised_linear(handle, x.data(), &kind.bits, is_wide, at.rows, at.width,
                                        data.data(), nullptr, plain.data(), at.outputs,      //
                                        data.data(), bias.data(), added.data(), at.outputs,  //
                                        nullptr, nullptr, nullptr, 0);
                const auto sizes = {int64_t(kind.bits), int64_t(kind.zero),
                                    int64_t(kind.groups_per_scale), at.rows, at.width, at.outputs,
                                    int64_t(is_wide)};
                tell(named("quantised", sizes), plain);
                tell(named("quantised with bias", sizes), added);
            }
        }
}

struct Heads {
    int64_t num_heads, num_kv_heads, head_dim, page_size, window;
    float cap;
    int bias;  // by distance: none, ALiBi's, Falcon's
};

void attend(void* handle, Chance& chance, Values values) {
    constexpr Heads ALL[] = {{1, 1, 1, 1, 0, 0, 0},      {4, 2, 8, 8, 3, 0, 1},
                             {3, 1, 16, 16, 0, 50, 0},   {9, 3, 64, 16, 0, 0, 0},
                             {2, 2, 24, 20, 17, 0, 2},   {4, 1, 80, 32, 40, 30, 1},
                             {64, 1, 20, 16, 0, 0, 0},   {2, 1, 256, 16, 33, 20, 2},
                             {6, 2, 33, 48, 0, 0, 1}};
    constexpr int64_t PAGES = 60;
    for (const Heads& at : ALL) {
        std::vector<int64_t> rows, pages;
        int64_t num_tokens = 0;
        for (const int64_t count : {1, 5, 37, 2}) {
            const int64_t position = chance.below(120);
            rows.insert(rows.end(), {num_tokens, position, count, int64_t(pages.size())});
            for (int64_t p = 0; p * at.page_size < position + count; ++p)
                pages.push_back(chance.below(PAGES));
            num_tokens += count;
        }
        const int64_t size = PAGES * at.num_kv_heads * at.head_dim * at.page_size;
        const auto q = chance.floats(num_tokens * at.num_heads * at.head_dim, values);
        const auto keys = chance.floats(size, values), cached = chance.floats(size, ORDINARY);
        const auto slopes = chance.floats(at.num_heads, ORDINARY);
        const float* sloped = at.bias == 0 ? nullptr : slopes.data();
        std::vector<float> out(q.size());
        tiedlm_attend(handle, q.data(), keys.data(), cached.data(), out.data(), rows.data(),
                      int64_t(rows.size()) / 4, pages.data(), at.num_heads, at.num_kv_heads,
                      at.head_dim, at.page_size, sloped, at.bias == 2, 0.3f, at.window, at.cap);
        tell(named("attend", {at.num_heads, at.num_kv_heads, at.head_dim, at.page_size, at.window,
                              int64_t(at.cap), at.bias}),
             out);
    }
}

constexpr int64_t SIZES[] = {1, 2, 15, 16, 17, 31, 63, 64, 65, 100, 1023, 1024, 1025, 5000, 40000};

void elementwise(void* handle, Chance& chance, Values values) {
    constexpr Gate GATES[] = {Gate::SILU, Gate::GELU_TANH, Gate::RELU};
    const Kernels& kernels = static_cast<Context*>(handle)->kernels;
    for (const int64_t size : SIZES) {
        const auto before = chance.floats(size, values), other = chance.floats(size, values);
        for (const float* up : {static_cast<const float*>(nullptr), other.data()})
            for (const Gate gate : GATES) {
                auto x = before;
                tiedlm_gate(handle, int(gate), x.data(), up, size);
                tell(named("gate", {int64_t(gate), size, up != nullptr}), x);
            }
        auto capped = before, clamped = before, added = before, scaled = before;
        kernels.cap(30.0f, capped.data(), size);
        tell(named("cap", {size}), capped);
        kernels.rowwise.clamp(0.75f, clamped.data(), size);
        tell(named("clamp", {size}), clamped);
        kernels.rowwise.add(added.data(), other.data(), 1.0f, size);
        tell(named("add", {size}), added);
        kernels.rowwise.add(scaled.data(), other.data(), 0.22f, size);
        tell(named("add scaled", {size}), scaled);
    }
}

void rows(void* handle, Chance& chance, Values values) {
    for (const int64_t width : {1, 15, 16, 17, 64, 100, 576})
        for (const int has_mean : {0, 1}) {
            const int64_t size = 12 * width;
            const auto x = chance.floats(size, values), weight = chance.floats(3 * width, values);
            const auto bias = chance.floats(width, values), onto = chance.floats(size, values);
            std::vector<float> out(x.size());
            tiedlm_normalize(handle, has_mean, x.data(), weight.data(), 3, nullptr, nullptr, 1e-5f,
                             out.data(), 12, width);
            tell(named("normalize", {width, has_mean}), out);
            tiedlm_normalize(handle, has_mean, x.data(), weight.data(), 3, bias.data(), onto.data(),
                             1e-5f, out.data(), 12, width);
            tell(named("normalize onto", {width, has_mean}), out);
        }
    for (const int64_t half : {1, 7, 16, 32})
        for (const int pairs : {0, 1}) {
            const int64_t head_dim = 2 * half + 3;
            auto x = chance.floats(5 * 3 * head_dim, values);
            const auto cosines = chance.floats(5 * half, ORDINARY);
            const auto sines = chance.floats(5 * half, ORDINARY);
            tiedlm_rotate(handle, pairs, cosines.data(), sines.data(), x.data(), 5, 3, head_dim,
                          half);
            tell(named("rotate", {half, pairs}), x);
        }
}

// By the C library's functions, whose last bits are those of its build.
void by_library(void* handle, Chance& chance, Values values) {
    const auto frequencies = chance.floats(32, values);
    std::vector<int64_t> positions;
    for (int64_t i = 0; i < 2000; ++i) positions.push_back(i);
    std::vector<float> cosines(2000 * 32), sines(2000 * 32);
    tiedlm_angles(handle, positions.data(), frequencies.data(), 1.1f, cosines.data(), sines.data(),
                  2000, 32);
    tell("library cosines", cosines);
    tell("library sines", sines);
    for (const int64_t size : SIZES) {
        auto x = chance.floats(size, values);
        tiedlm_gate(handle, int(Gate::GELU), x.data(), nullptr, size);
        tell(named("library gelu", {size}), x);
    }
}

// Which of equals is the largest: zeros of both signs, and NaN, which no comparison finds.
void largest_of_equals(const Distributions& passes, Chance& chance, Values values, int64_t size) {
    std::vector<float> row(static_cast<size_t>(size)), maxima(size_t((size + MAXIMA - 1) / MAXIMA));
    for (float& each : row) each = of_bits(chance.below(2) == 0 ? 0x80000000 : 0);
    for (int64_t i = 0; values == SPECIAL && i < (size + 9) / 10; ++i)
        row[size_t(chance.below(size))] = of_bits(0x7FC00000);
    const float largest = passes.largest(row.data(), size);
    tell(named("equals largest", {size}), &largest, 1);
    passes.maxima(row.data(), size, maxima.data());
    tell(named("equals maxima", {size}), maxima);
}

void distributions(void* handle, Chance& chance, Values values) {
    const Distributions& passes = static_cast<Context*>(handle)->kernels.distributions;
    for (const int64_t size : SIZES) {
        largest_of_equals(passes, chance, values, size);
        auto row = chance.floats(size, values);
        for (float& each : row)  // some are equal, some nearly
            if (-8.0f < each && each < 8.0f) each = float(int32_t(each * 64.0f)) / 4.0f;
        for (int64_t i = 0; i < size / 4; ++i) row[chance.below(size)] = row[chance.below(size)];
        const float largest = passes.largest(row.data(), size);
        tell(named("largest", {size}), &largest, 1);
        std::vector<float> out(row.size()), maxima(size_t((size + MAXIMA - 1) / MAXIMA));
        passes.maxima(row.data(), size, maxima.data());
        tell(named("maxima", {size}), maxima);
        passes.divide(row.data(), size, 0.7f, out.data());
        tell(named("divide", {size}), out);
        for (const float divisor : {1.0f, 0.7f}) {
            std::vector<double> sums(size_t((size + BLOCK - 1) / BLOCK));
            passes.exponentials(row.data(), size, divisor, largest / divisor, out.data(),
                                sums.data());
            tell(named("exponentials", {size, divisor == 1.0f}), out);
            tell(named("sums", {size, divisor == 1.0f}), sums);
        }
        const LogSum sum{largest + 3.0f, 1e-7f};
        passes.log_softmax(row.data(), size, sum, out.data());
        tell(named("log_softmax", {size}), out);
        for (const bool has_moment : {false, true}) {
            const int64_t count = std::min(size, BLOCK);
            const Summary found = passes.summarise(row.data(), count, has_moment);
            const double told[] = {found.largest, found.sum, found.moment};
            tell(named("summarise", {count, has_moment}), told, 3);
        }
        int64_t counts[2] = {passes.is_finite(row.data(), size), 0};
        counts[0] += 2 * passes.num_above(row.data(), size, -0.5f, 1.0f, &counts[1]);
        const double told[] = {double(counts[0]), double(counts[1])};
        tell(named("is_finite and num_above", {size}), told, 2);
        for (const int64_t id : {int64_t(0), size / 2, size - 1}) {
            const int64_t before = passes.num_before(row.data(), size, sum, id);
            tell(named("num_before", {size, id}), &before, 1);
        }
        std::vector<int32_t> ids(row.size());
        const int64_t count = passes.at_least(row.data(), size, row[size_t(size / 3)], ids.data());
        tell(named("at_least", {size, count}), ids.data(), count);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    void* const handle = tiedlm_open(argv[1], std::atoi(argv[2]));
    if (handle == nullptr) return 3;  // this processor lacks it
    const Quantised& chosen = static_cast<Context*>(handle)->quantised;
    std::printf("%s\n", named(tiedlm_name(handle), {chosen.narrow_bytes}).c_str());
    for (const Values values : {ORDINARY, WIDE, SPECIAL}) {
        std::printf("%s\n", named("values", {values}).c_str());
        Chance chance{uint64_t(values)};
        for (const auto each :
             {linear, quantised, attend, elementwise, rows, distributions, by_library})
            each(handle, chance, values);
    }
    tiedlm_close(handle);
}
