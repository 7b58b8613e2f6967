// Executes the AMX instructions that tenon uses on a processor without AMX, so that the machine code of its
// kernels runs there (test_amx_machine_code.py):
//   g++ -std=c++20 -O3 -mavx512f -ffp-contract=off -shared -fPIC amx_trap.cpp -o amx_trap.so
//   LD_PRELOAD=./amx_trap.so python ...
//
// To such a processor each of them is an invalid instruction, which raises SIGILL. The handler decodes its
// bytes, does what Intel's Software Developer's Manual says (volume 1, "Programming with Intel AMX"; volume
// 2, "Instruction Format", "Intel AMX Instruction Exception Classes", and each instruction by its name) and
// goes on behind it. What the processor would refuse (#UD, #GP), or is not decoded here, ends the process,
// with a line that says why.
#include <dlfcn.h>
#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

constexpr int kTiles = 8, kRows = 16, kRowWords = 16;

// What LDTILECFG reads; palette 0 is "no tiles configured".
struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

// Each thread has its own.
thread_local Config t_config;
alignas(64) thread_local uint32_t t_tile[kTiles][kRows][kRowWords];

std::atomic<long> g_products;

using Refusal = const char*;  // why; nullptr where the instruction was done

bool is_configured(int t) {
    return t_config.palette == 1 && t_config.rows[t] && t_config.row_bytes[t];
}

Refusal configure(const uint8_t* from) {
    Config config;
    std::memcpy(&config, from, sizeof config);
    if (config.palette != 1) return "LDTILECFG: palette 1 is the one with tiles";
    if (config.start_row) return "LDTILECFG: nothing to resume";
    for (uint8_t byte : config.reserved)
        if (byte) return "LDTILECFG: reserved bytes must be zero";
    for (int t = 0; t < 16; ++t) {
        if (t >= kTiles && (config.rows[t] || config.row_bytes[t])) return "LDTILECFG: eight tiles";
        if (config.rows[t] > kRows || config.row_bytes[t] > kRowWords * 4)
            return "LDTILECFG: a tile too large";
        if (!config.rows[t] != !config.row_bytes[t]) return "LDTILECFG: rows without columns, or the reverse";
    }
    t_config = config;
    std::memset(t_tile, 0, sizeof t_tile);
    return nullptr;
}

void release() {
    t_config = {};
    std::memset(t_tile, 0, sizeof t_tile);
}

Refusal zero(int t) {
    if (!is_configured(t)) return "TILEZERO: the tile is not configured";
    std::memset(t_tile[t], 0, sizeof t_tile[t]);
    return nullptr;
}

Refusal load(int t, const uint8_t* from, int64_t stride) {
    if (!is_configured(t)) return "TILELOADD: the tile is not configured";
    std::memset(t_tile[t], 0, sizeof t_tile[t]);
    for (int row = 0; row < t_config.rows[t]; ++row)
        std::memcpy(t_tile[t][row], from + row * stride, t_config.row_bytes[t]);
    return nullptr;
}

Refusal store(int t, uint8_t* to, int64_t stride) {
    if (!is_configured(t)) return "TILESTORED: the tile is not configured";
    for (int row = 0; row < t_config.rows[t]; ++row)
        std::memcpy(to + row * stride, t_tile[t][row], t_config.row_bytes[t]);
    return nullptr;
}

// The bf16 at the even place of a pair, and the one at the odd place.
float even_of(uint32_t pair) {
    return std::bit_cast<float>(pair << 16);
}
float odd_of(uint32_t pair) {
    return std::bit_cast<float>(pair & 0xffff0000);
}

// C += A B, A of pairs along its rows, B of pairs along its columns. For each element two sums of fused
// multiply-adds from zero, over even and over odd places; their sum is added to C.
Refusal dot(int c, int a, int b) {
    if (c == a || c == b || a == b) return "TDPBF16PS: one tile twice";
    for (int t : {c, a, b})
        if (!is_configured(t) || t_config.row_bytes[t] % 4) return "TDPBF16PS: a tile is not configured";
    if (t_config.rows[c] != t_config.rows[a] || t_config.row_bytes[c] != t_config.row_bytes[b] ||
        t_config.row_bytes[a] / 4 != t_config.rows[b])
        return "TDPBF16PS: shapes that do not fit";
    for (int row = 0; row < t_config.rows[c]; ++row) {
        float even[kRowWords] = {}, odd[kRowWords] = {};
        for (int k = 0; k < t_config.rows[b]; ++k) {
            const uint32_t x = t_tile[a][row][k];
            for (int n = 0; n < kRowWords; ++n) {
                const uint32_t y = t_tile[b][k][n];
                even[n] = std::fma(even_of(x), even_of(y), even[n]);
                odd[n] = std::fma(odd_of(x), odd_of(y), odd[n]);
            }
        }
        for (int n = 0; n < t_config.row_bytes[c] / 4; ++n) {
            uint32_t& sum = t_tile[c][row][n];
            sum = std::bit_cast<uint32_t>(std::bit_cast<float>(sum) + (even[n] + odd[n]));
        }
    }
    ++g_products;
    return nullptr;
}

// An instruction of a three-byte VEX prefix, opcode map 0F38, W and L zero.
struct Instruction {
    enum Prefix { none = 0, f3 = 2, f2 = 3 };  // the field pp

    int prefix, opcode, vvvv;
    bool in_memory, has_sib;
    int reg, rm;       // the fields of ModRM, extended by R and B
    uint8_t* address;  // of the operand, where it is in memory; without the index, if tiles are moved there
    int64_t index;     // index register times scale
    int length;
};

using Registers = const greg_t*;

int64_t value_of(Registers registers, int number) {
    constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return registers[kOrder[number]];
}

template <class T>
T read(const uint8_t* code) {
    T value;
    std::memcpy(&value, code, sizeof value);
    return value;
}

Refusal decode(const uint8_t* code, Registers registers, Instruction& i) {
    if (code[0] != 0xc4 || (code[1] & 31) != 2 || code[2] & 0x84) return "not an AMX instruction";
    const int R = ~code[1] >> 7 & 1, X = ~code[1] >> 6 & 1, B = ~code[1] >> 5 & 1;
    i.vvvv = ~code[2] >> 3 & 15;
    i.prefix = code[2] & 3;
    i.opcode = code[3];
    const int mod = code[4] >> 6, rm = code[4] & 7;
    i.reg = (code[4] >> 3 & 7) | R << 3;
    i.rm = rm | B << 3;
    i.in_memory = mod != 3;
    i.length = 5;
    i.has_sib = i.in_memory && rm == 4;
    if (!i.in_memory) return nullptr;
    int base = i.rm;
    if (i.has_sib) {
        const int sib = code[i.length++], index = (sib >> 3 & 7) | X << 3;
        base = (sib & 7) | B << 3;
        if (index != 4) i.index = value_of(registers, index) << (sib >> 6);
    }
    if (mod == 0 && (base & 7) == 5) return "addresses without a base register are not decoded";
    int64_t address = value_of(registers, base);
    if (mod == 1) address += read<int8_t>(code + i.length), i.length += 1;
    if (mod == 2) address += read<int32_t>(code + i.length), i.length += 4;
    i.address = reinterpret_cast<uint8_t*>(address);
    return nullptr;
}

Refusal execute(const Instruction& i) {
    const bool tile_registers = i.reg < kTiles && (i.in_memory || i.rm < kTiles) && i.vvvv < kTiles;
    if (!tile_registers) return "there are eight tiles";
    if (i.opcode == 0x5c && i.prefix == Instruction::f3 && !i.in_memory) return dot(i.reg, i.rm, i.vvvv);
    if (i.vvvv) return "vvvv must be 1111b";
    if (i.opcode == 0x49 && i.prefix == Instruction::none && i.reg == 0) {
        if (i.in_memory) return configure(i.address + i.index);
        if (i.rm == 0) return release(), nullptr;
    }
    if (i.opcode == 0x49 && i.prefix == Instruction::f2 && !i.in_memory && i.rm == 0) return zero(i.reg);
    if (i.opcode == 0x4b && i.has_sib) {
        if (i.prefix == Instruction::f2) return load(i.reg, i.address, i.index);
        if (i.prefix == Instruction::f3) return store(i.reg, i.address, i.index);
    }
    return "not an instruction that tenon uses";
}

// The instruction that RIP points to; RIP points behind it if it was done.
Refusal step(greg_t* registers) {
    Instruction instruction = {};
    Refusal why = decode(reinterpret_cast<const uint8_t*>(registers[REG_RIP]), registers, instruction);
    if (!why) why = execute(instruction);
    if (!why) registers[REG_RIP] += instruction.length;
    return why;
}

void end_with(Refusal why, const uint8_t* code) {
    char line[200];
    const int size =
        std::snprintf(line, sizeof line, "amx_trap: %02x %02x %02x %02x %02x at %p: %s\n", code[0], code[1],
                      code[2], code[3], code[4], static_cast<const void*>(code), why);
    if (write(2, line, size_t(size)) < 0) _exit(1);
    signal(SIGILL, SIG_DFL);  // the instruction is met again
}

void on_invalid_instruction(int, siginfo_t*, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    // TDPBF16PS rounds to nearest, takes denormals for zero and flushes them, whatever MXCSR says; the
    // program's MXCSR comes back with its other registers.
    _mm_setcsr(0x1f80 | 0x8040);
    if (Refusal why = step(registers))
        return end_with(why, reinterpret_cast<const uint8_t*>(registers[REG_RIP]));
    while (!step(registers)) continue;  // those that follow at once: signals are slow
}

__attribute__((constructor)) void start() {
    struct sigaction action = {};
    action.sa_sigaction = on_invalid_instruction;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
}

}  // namespace

// How many TDPBF16PS were done: whether a test ran what it meant to.
extern "C" long amx_trap_products() {
    return g_products;
}

// The threads of the pool block all signals; this one they must take (a blocked SIGILL ends the process).
extern "C" int pthread_sigmask(int how, const sigset_t* set, sigset_t* before) noexcept {
    using Function = int (*)(int, const sigset_t*, sigset_t*);
    static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_sigmask"));
    if (!set || how == SIG_UNBLOCK) return real(how, set, before);
    sigset_t taken = *set;
    sigdelset(&taken, SIGILL);
    return real(how, &taken, before);
}
