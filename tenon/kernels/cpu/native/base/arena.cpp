#include "base/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace tenon {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;

size_t round_up(size_t bytes, size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

}  // namespace

void* map_pages(size_t bytes) {
    // One huge page more than needed, then the ends are cut off, so that the start is aligned to one.
    const bool huge = bytes >= kHugePage;
    const size_t size = round_up(bytes, 4096), padded = huge ? size + kHugePage : size;
    void* mapped =
        mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    if (!huge) return mapped;
    char* raw = static_cast<char*>(mapped);
    char* base = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(raw), kHugePage));
    if (base > raw) munmap(raw, size_t(base - raw));
    const size_t tail = size_t(raw + padded - (base + size));
    if (tail) munmap(base + size, tail);
#ifdef MADV_HUGEPAGE
    madvise(base, size, MADV_HUGEPAGE);
#endif
    return base;
}

void unmap_pages(void* base, size_t bytes) {
    munmap(base, round_up(bytes, 4096));
}

void release_file_pages(const void* bytes, size_t size) {
    const size_t start = reinterpret_cast<uintptr_t>(bytes), first = round_up(start, 4096);
    const size_t end = (start + size) / 4096 * 4096;
    if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

Arena::~Arena() {
    for (const Chunk& chunk : chunks_) unmap_pages(chunk.base, chunk.size);
}

void* Arena::take(Chunk& chunk, size_t bytes) {
    for (auto it = chunk.free.begin(); it != chunk.free.end(); ++it) {
        if (it->second < bytes) continue;
        const size_t offset = it->first, left = it->second - bytes;
        chunk.free.erase(it);
        if (left) chunk.free.emplace(offset + bytes, left);
        used_.emplace(chunk.base + offset, bytes);
        return chunk.base + offset;
    }
    return nullptr;
}

void* Arena::allocate(size_t bytes) {
    std::lock_guard lock(mutex_);
    bytes = round_up(std::max(bytes, size_t(1)), 64);
    for (Chunk& chunk : chunks_)
        if (void* block = take(chunk, bytes)) return block;
    const size_t size = std::max(chunk_bytes_, round_up(bytes, kHugePage));
    chunks_.push_back({static_cast<char*>(map_pages(size)), size, {{0, size}}});
    return take(chunks_.back(), bytes);
}

// Back into the free list, joined with free neighbours.
void Arena::give(Chunk& chunk, size_t offset, size_t size) {
    auto it = chunk.free.emplace(offset, size).first;
    const auto next = std::next(it);
    if (next != chunk.free.end() && offset + size == next->first) {
        it->second += next->second;
        chunk.free.erase(next);
    }
    if (it == chunk.free.begin()) return;
    const auto before = std::prev(it);
    if (before->first + before->second == offset) {
        before->second += it->second;
        chunk.free.erase(it);
    }
}

void Arena::release(void* block) {
    std::lock_guard lock(mutex_);
    char* address = static_cast<char*>(block);
    const auto used = used_.find(address);
    const size_t size = used->second;
    used_.erase(used);
    for (auto chunk = chunks_.begin(); chunk != chunks_.end(); ++chunk) {
        if (address < chunk->base || address >= chunk->base + chunk->size) continue;
        give(*chunk, size_t(address - chunk->base), size);
        if (policy_ == kUnmapFree && chunk->free.begin()->second == chunk->size) {
            unmap_pages(chunk->base, chunk->size);
            chunks_.erase(chunk);
        }
        return;
    }
}

size_t Arena::bytes_reserved() const {
    std::lock_guard lock(mutex_);
    size_t total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.size;
    return total;
}

size_t Arena::bytes_used() const {
    std::lock_guard lock(mutex_);
    size_t total = 0;
    for (const auto& [block, size] : used_) total += size;
    return total;
}

}  // namespace tenon
