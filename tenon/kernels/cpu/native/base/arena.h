// Memory for the outputs of ops: reused within a step, kept between steps.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace tenon {

// Blocks out of large zero-initialised mappings (with huge pages where the system has them), first fit by
// address, aligned to 64 bytes. Grows when needed; pages cost memory once they are touched.
class Arena : public std::enable_shared_from_this<Arena> {
  public:
    enum Policy { kKeepFree, kUnmapFree };  // what happens to a mapping that has become entirely free

    explicit Arena(size_t chunk_bytes = size_t(64) << 20, Policy policy = kKeepFree)
        : chunk_bytes_(chunk_bytes), policy_(policy) {}
    ~Arena();
    Arena(const Arena&) = delete;

    void* allocate(size_t bytes);  // throws std::bad_alloc
    void release(void* block);

    size_t bytes_reserved() const;
    size_t bytes_used() const;

  private:
    struct Chunk {
        char* base;
        size_t size;
        std::map<size_t, size_t> free;  // offset -> size
    };
    void* take(Chunk& chunk, size_t bytes);
    static void give(Chunk& chunk, size_t offset, size_t size);

    mutable std::mutex mutex_;
    size_t chunk_bytes_;
    Policy policy_;
    std::vector<Chunk> chunks_;
    std::map<char*, size_t> used_;
};

// Anonymous zeroed pages, backed by huge pages where possible; throws std::bad_alloc. Unmap with the same
// size.
void* map_pages(size_t bytes);
void unmap_pages(void* base, size_t bytes);

// Takes the whole pages among these bytes of a mapped file out of the process's memory; reading them again
// reads the file.
void release_file_pages(const void* bytes, size_t size);

}  // namespace tenon
