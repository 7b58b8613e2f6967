// A step's input, written into its buffers: lists of Python in, arrays of int32 out.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "bind.h"

namespace tenon {
namespace {

// Throws nb::python_error for what is no number, std::invalid_argument for lists of other lengths.
class Ints {
  public:
    explicit Ints(const nb::list& list) : list_(list.ptr()) {}

    int64_t size() const { return PyList_GET_SIZE(list_); }
    int32_t operator[](int64_t i) const {
        const long value = PyLong_AsLong(PyList_GET_ITEM(list_, i));
        if (value == -1 && PyErr_Occurred()) throw nb::python_error();
        return int32_t(value);
    }
    void write(int32_t* to) const {
        for (int64_t i = 0; i < size(); ++i) to[i] = (*this)[i];
    }

  private:
    PyObject* list_;
};

struct BatchBuffers {
    int32_t *token_ids_T, *positions_T, *query_start_R1, *context_len_R;
};

// What layers of one group are told: where their tokens go, and the blocks that they see.
struct GroupBuffers {
    int32_t *slots_T, *block_table_RB;
};

struct BlockTable {
    const int32_t* blocks_RB;
    int64_t max_blocks;  // of a row
    int block_size, window, local_chunk;

    // The first block that a token at `position`, or any after it, sees.
    int64_t first(int32_t position) const {
        int32_t seen = window ? std::max(0, position - window + 1) : 0;
        if (local_chunk) seen = std::max(seen, position - position % local_chunk);
        return seen / block_size;
    }
};

void fill(const BatchBuffers& to, const Ints& token_ids, const Ints& starts, const Ints& counts) {
    token_ids.write(to.token_ids_T);
    int32_t t = 0;
    to.query_start_R1[0] = 0;
    for (int64_t r = 0; r < starts.size(); ++r) {
        const int32_t start = starts[r], count = counts[r];
        if (count < 1 || t + count > token_ids.size())
            throw std::invalid_argument("the counts of a step do not add up to its tokens");
        for (int32_t position = start; position < start + count; ++position) to.positions_T[t++] = position;
        to.query_start_R1[r + 1] = t;
        to.context_len_R[r] = start + count;
    }
}

void fill_group(const GroupBuffers& to, const BlockTable& table, const Ints& rows, const Ints& starts,
                const Ints& counts) {
    int32_t t = 0;
    for (int64_t r = 0; r < rows.size(); ++r) {
        const int32_t* blocks = table.blocks_RB + rows[r] * table.max_blocks;
        const int32_t start = starts[r], end = start + counts[r];
        const int64_t first = table.first(start), stop = (end - 1) / table.block_size + 1;
        std::memcpy(to.block_table_RB + r * table.max_blocks + first, blocks + first,
                    (stop - first) * sizeof(int32_t));
        for (int32_t position = start; position < end; ++position)
            to.slots_T[t++] =
                blocks[position / table.block_size] * table.block_size + position % table.block_size;
    }
}

}  // namespace

void bind_batch(nb::module_& m) {
    m.def("fill_batch", [](nb::handle token_ids_T, nb::handle positions_T, nb::handle query_start_R1,
                           nb::handle context_len_R, nb::handle logit_rows_S, const nb::list& token_ids,
                           const nb::list& starts, const nb::list& counts, const nb::list& logit_rows) {
        fill({dense<int32_t>(token_ids_T), dense<int32_t>(positions_T), dense<int32_t>(query_start_R1),
              dense<int32_t>(context_len_R)},
             Ints(token_ids), Ints(starts), Ints(counts));
        Ints(logit_rows).write(dense<int32_t>(logit_rows_S));
    });
    m.def("fill_group", [](nb::handle slots_T, nb::handle block_table_RB, nb::handle table_RB,
                           int64_t max_blocks, int block_size, int window, int local_chunk,
                           const nb::list& rows, const nb::list& starts, const nb::list& counts) {
        fill_group({dense<int32_t>(slots_T), dense<int32_t>(block_table_RB)},
                   {dense<int32_t>(table_RB), max_blocks, block_size, window, local_chunk}, Ints(rows),
                   Ints(starts), Ints(counts));
    });
}

}  // namespace tenon
