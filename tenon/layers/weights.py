"""A checkpoint as a model's constructors see it: tensors under the names of the published (HF) layout.

A model pulls every tensor it needs, with the shape it must have; what is missing, misshaped or left over is
an error that names the tensor as the file does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

import numpy as np

from tenon import ops
from tenon.core import ggml
from tenon.core.tensors import BlockScales, RawTensor
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.formats.mapped import StoredTensor, TensorFile, TensorInfo
from tenon.formats.paddle import PaddleFile

Progress = Callable[[int, int], None]  # bytes of weights loaded so far, bytes in all


class Tensor(NamedTuple):
    """Rows of weights that a model asks for: a name below the prefix, and [rows, columns] or
    [experts, rows, columns]. How the file has them is `stored`: "rows", or "columns" (the last two axes are
    exchanged), or "mxfp4" (codes and exponents are tensors of their own, `<name>_blocks` and
    `<name>_scales`).
    """

    name: str
    shape: tuple[int, ...]
    stored: str = "rows"
    row_order: np.ndarray | None = None  # of each expert's rows in the file

    def file_tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names below the prefix and shapes."""
        *experts, rows, columns = self.shape
        if self.stored == "mxfp4":
            groups = (*experts, rows, columns // MXFP4_GROUP)
            return [(f"{self.name}_blocks", (*groups, MXFP4_GROUP // 2)), (f"{self.name}_scales", groups)]
        return [(self.name, (*experts, columns, rows) if self.stored == "columns" else self.shape)]


FP8 = "f8_e4m3"


class FP8Scales(NamedTuple):
    """So many rows and columns of a matrix in FP8 share a scale; 0: all. Files have the scales under the name
    of the matrix and one of `suffixes`."""

    rows: int
    columns: int
    suffixes: tuple[str, ...] = ("_scale_inv",)

    def name(self, matrix: str, tensors: Container[str]) -> str:
        """Where a file of these tensors has those of a matrix; the usual name, where it has none."""
        names = [matrix + suffix for suffix in self.suffixes]
        return next((name for name in names if name in tensors), names[0])

    def block(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return self.rows or shape[-2], self.columns or shape[-1]

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Those that files may have scales of such a tensor in. The only scale of a matrix has none."""
        grid = BlockScales.shape(shape, *self.block(shape))
        return [grid] if self.rows or self.columns or len(shape) > 2 else [(), (1,), grid]


class Stacked(NamedTuple):
    """Experts of a family whose files of safetensors have one tensor for all of them, or two."""

    stored: str = "rows"  # see Tensor
    alternating: bool = False  # rows of gate and up do

    def row_order(self, rows: list[int]) -> np.ndarray | None:
        """Where an expert's rows are in the file: those of gate, then those of up."""
        if not self.alternating or len(rows) != 2:
            return None
        return np.arange(sum(rows), dtype=np.int32).reshape(-1, 2).T.reshape(-1)


MXFP4_GROUP = ggml.BLOCKS["mxfp4"].elements
FP8_FORMAT = "f8_d32"  # packed, that keeps codes
_TABLES = ("embed_tokens", "word_embeddings", "lm_head")
_LAYER_NUMBER = re.compile(r"\.(\d+)\.")


class LinearScheme(Protocol):
    """How a quantization method stores a linear layer. `tenon/quant/<method>.py` has one, named `SCHEME`."""

    fp8: FP8Scales | None  # of matrices in FP8; None: it reads none
    ignored: tuple[str, ...]  # patterns of names of tensors that say nothing of weights

    def configured(self, settings: Mapping[str, Any]) -> LinearScheme:
        """The scheme with what config.json says of it. Raises UnsupportedModel for what it does not do."""
        ...

    def load(self, weights: Weights, names: list[str], rows: list[int], columns: int) -> LinearWeights:
        """The layers `names` (HF names, no suffix), stacked: [rows[0] + rows[1] + ..., columns]."""
        ...

    def load_experts(
        self,
        weights: Weights,
        names: list[str],
        rows: list[int],
        columns: int,
        num_experts: int,
        fused: str,
        stacked: Stacked | None = None,
    ) -> ops.PackedLinear:
        """The layers `names` of each expert, stacked, expert after expert; see `Weights.pack_experts`."""
        ...


class LinearWeights(Protocol):
    """Weights [N, K] ready to be multiplied with."""

    nbytes: int

    def apply(
        self, x_TK: np.ndarray, bias_N: np.ndarray | None, accumulate_into_TN: np.ndarray | None
    ) -> np.ndarray:
        """y_TN float32, as `ops.linear`."""
        ...


class Weights:
    """The tensors under one prefix of a checkpoint. `at` goes deeper; all views share one book-keeping.

    `act_bits` says to what integers layers over group-quantised weights quantise their input (see
    `ops.pack_linear`).
    `names` gives the file's name (without `.weight` or `.bias`) of an HF name in which the number of the
    layer is written `{i}`; None when the file uses HF names. `row_order` gives, for such a name, the order in
    which the file's rows make up the weight (see `RawTensor`). `quantization` (int8, int4 or None) says what
    matrices that the file has as floats are packed as. `in_place`: what the kernels can read as the file has
    it is not packed.
    """

    def __init__(
        self,
        file: TensorFile,
        scheme: LinearScheme,
        dtype: str,
        *,
        act_bits: int = 0,
        names: Mapping[str, str] | None = None,
        row_order: Mapping[str, np.ndarray] | None = None,
        quantization: str | None = None,
        in_place: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.file = file
        self.scheme = scheme
        self.quantization = quantization
        self.in_place = in_place
        self.act = ops.act_dtype(dtype)
        self.act_bits = act_bits
        self._names = names
        self._row_order = row_order or {}
        self._book = _Book(file.tensors, progress)
        self._prefix = ""

    def at(self, prefix: str | int) -> Weights:
        """The tensors whose names begin with `prefix.`"""
        deeper = self._copy()
        deeper._prefix = f"{self._prefix}{prefix}."
        return deeper

    def exact(self) -> Weights:
        """The same tensors, for layers that compute in float32 whatever the model's type is."""
        other = self._copy()
        other.act = ops.act_dtype("float32")
        other.act_bits = 0
        return other

    def unquantized(self) -> Weights:
        """The same tensors, of which none is quantised here: they stay what they are in the file."""
        other = self._copy()
        other.quantization = None
        return other

    def _copy(self) -> Weights:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    @property
    def gguf(self) -> bool:
        """Whether the file has GGUF's names, and what its converters make of the tensors."""
        return self._names is not None

    def has(self, name: str) -> bool:
        return self.file_name(name) in self.file.tensors

    def file_name(self, name: str) -> str:
        """What the file calls the tensor `name` of this prefix."""
        full = self._prefix + name
        if self._names is None:
            return full
        stem, _, suffix = full.rpartition(".")
        number = _LAYER_NUMBER.search(full)
        whole = self._names.get(_template(full))  # of tensors whose last part is another in GGUF
        name = whole or f"{self._names[_template(stem)]}.{suffix}"
        return name.format(i=number and number[1])

    def _spelled(self, file_name: str) -> str:
        """For messages: in some files tensors are seen under other names than they have."""
        return self.file.spelled(file_name) if isinstance(self.file, PaddleFile) else file_name

    def raw(self, name: str, shape: tuple[int, ...]) -> RawTensor:
        """The tensor as it lies in the file. Raises ModelFileError if it is missing or has another shape."""
        return self._read(name, shape)

    def _matrix(self, tensor: Tensor) -> RawTensor:
        """The rows that are asked for."""
        if tensor.stored == "mxfp4":
            raw = self._mxfp4(tensor)
        else:
            ((name, shape),) = tensor.file_tensors()
            if tensor.stored == "columns":
                self._refuse_fp8(name)
            raw = self._read(name, shape)
        if tensor.stored == "columns":
            raw = replace(raw, shape=tensor.shape, transposed=True)
        return raw if tensor.row_order is None else replace(raw, row_order=tensor.row_order)

    def _refuse_fp8(self, name: str) -> None:
        info = self.file.tensors.get(self.file_name(name))
        if info is not None and info.dtype == FP8:
            raise UnsupportedModel(
                f"{self.file.path}: tensor {info.name!r} is in FP8 with rows and columns exchanged, which "
                "is not read: use the model's files in bf16 (--quantization int8 makes them as small)"
            )

    def _mxfp4(self, tensor: Tensor) -> RawTensor:
        """A tensor of codes and one of exponents, as one."""
        if tensor.shape[-1] % MXFP4_GROUP:
            raise ModelFileError(
                f"{self.file.path}: tensor {self.file_name(tensor.name)!r} would have rows of "
                f"{tensor.shape[-1]} numbers; those of mxfp4 are multiples of {MXFP4_GROUP}"
            )
        codes, exponents = (self._bytes(name, shape) for name, shape in tensor.file_tensors())
        name = self.file_name(tensor.name)
        return RawTensor(name, "mxfp4", tensor.shape, codes, mapped=True, exponents=exponents)

    def _bytes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        info = self._info(name, shape)
        if info.dtype != "u8" or not isinstance(info, TensorInfo):
            raise UnsupportedModel(f"{self.file.path}: tensor {info.name!r} has type {info.dtype}, not u8")
        return info.file.slice(info.start, info.length)

    def _read(self, name: str, shape: tuple[int, ...]) -> RawTensor:
        raw = replace(self._info(name, shape).raw(), shape=shape)
        if raw.dtype == FP8:
            raw = replace(raw, scales=self._scales(name, shape))
        order = self._row_order.get(_template((self._prefix + name).rpartition(".")[0]))
        return raw if order is None else replace(raw, row_order=order)

    def _scales(self, name: str, shape: tuple[int, ...]) -> BlockScales:
        """Of a matrix in FP8."""
        scales, matrix = self.scheme.fp8, self.file_name(name)
        if scales is None or len(shape) < 2:
            raise UnsupportedModel(
                f"{self.file.path}: tensor {matrix!r} has type {FP8}, which is read where config.json has a "
                'quantization_config of quant_method "fp8" or "compressed-tensors", and of matrices only'
            )
        of_matrix = scales.name(matrix, self.file.tensors)
        info, shapes = self.file.tensors.get(of_matrix), scales.shapes(shape)
        wanted = info.shape if info is not None and info.shape in shapes else shapes[-1]
        values = self._info(f"{name}{of_matrix.removeprefix(matrix)}", wanted).raw().dequantize()
        if not np.isfinite(values).all():
            raise ModelFileError(f"{self.file.path}: tensor {of_matrix!r} has scales that are not finite")
        rows, columns = scales.block(shape)
        grid = np.ascontiguousarray(values, np.float32).reshape(shapes[-1])
        return BlockScales(grid, rows, columns)

    def _info(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Raises ModelFileError for a tensor that is missing or of another shape."""
        file_name = self.file_name(name)
        info = self.file.tensors.get(file_name)
        if info is None:
            raise ModelFileError(f"{self.file.path}: tensor {self._spelled(file_name)!r} is missing")
        if info.shape != shape and not (self.gguf and _long_axes(info.shape) == _long_axes(shape)):
            raise ModelFileError(
                f"{self.file.path}: tensor {self._spelled(file_name)!r} has shape {_text(info.shape)}; "
                f"the model's configuration says {_text(shape)}"
            )
        self._book.take(info)
        return info

    def vector(self, name: str, length: int) -> np.ndarray:
        """A norm's weight or a bias, float32 [length], in memory of its own."""
        return self.array(name, (length,))

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A small tensor in float32, in memory of its own."""
        return np.array(self.raw(name, shape).dequantize(), np.float32)

    def table(self, name: str, rows: int, columns: int) -> np.ndarray:
        """An embedding's rows, or a matrix that is not multiplied with as it is: float32 [rows, columns], in
        memory of its own."""
        raw = self.raw(name, (rows, columns))
        table = np.array(raw.dequantize(), np.float32)
        if raw.dtype == FP8:
            self._book.widened.append(raw.name)
        if raw.mapped:
            self._book.done(raw.name)
        return table

    def pack(self, names: list[str], rows: list[int], columns: int) -> ops.PackedLinear:
        """The matrices `<name>.weight`, [rows[0], columns] and so on, stacked in the backend's layout."""
        return self.pack_tensors(
            [Tensor(f"{name}.weight", (n, columns)) for name, n in zip(names, rows, strict=True)]
        )

    def pack_experts(
        self,
        names: list[str],
        rows: list[int],
        columns: int,
        num_experts: int,
        fused: str,
        stacked: Stacked | None = None,
    ) -> ops.PackedLinear:
        """For each expert the matrices `names`, as `pack` stacks them, expert after expert.

        Files have a tensor for each matrix of each expert, `experts.3.<name>.weight`; or, as in GGUF, one for
        each name, `experts.<name>.weight` [experts, rows, columns]; or, if the file has it, a single one that
        is called `experts.<fused>`, with the rows of all names. `stacked` says that it must, and how. Where
        GGUF has a name for that too, it is read unless the file has them apart.
        """
        named = list(zip(names, rows, strict=True))
        if self._names is not None and self._fused_in_gguf(names, fused):
            tensors = [Tensor(f"experts.{fused}.weight", (num_experts, sum(rows), columns))]
        elif self._names is not None:
            tensors = [Tensor(f"experts.{name}.weight", (num_experts, n, columns)) for name, n in named]
        elif stacked is not None or self.has(f"experts.{fused}"):
            how = stacked or Stacked()
            shape = (num_experts, sum(rows), columns)
            tensors = [Tensor(f"experts.{fused}", shape, how.stored, how.row_order(rows))]
        else:
            tensors = [
                Tensor(f"experts.{e}.{name}.weight", (n, columns))
                for e in range(num_experts)
                for name, n in named
            ]
        return self.pack_tensors(tensors)

    def _fused_in_gguf(self, names: list[str], fused: str) -> bool:
        assert self._names is not None
        known = _template(f"{self._prefix}experts.{fused}") in self._names
        return known and not all(self.has(f"experts.{name}.weight") for name in names)

    def expert_biases(
        self, names: list[str], rows: list[int], num_experts: int, fused: str, stacked: Stacked
    ) -> np.ndarray:
        """What is added to the rows that `pack_experts` packs: float32 [experts, rows]."""
        if self._names is not None:
            named = zip(names, rows, strict=True)
            parts = [self.table(f"experts.{name}.bias", num_experts, n) for name, n in named]
            return np.concatenate(parts, axis=1)
        bias_EN = self.table(f"experts.{fused}_bias", num_experts, sum(rows))
        order = stacked.row_order(rows)
        return bias_EN if order is None else np.ascontiguousarray(bias_EN[:, order])

    def pack_tensors(self, tensors: list[Tensor]) -> ops.PackedLinear:
        """Matrices [rows, columns], stacked; of tensors [experts, rows, columns] first every one's first
        matrix, then every one's second, and so on."""
        raws = [self._matrix(tensor) for tensor in tensors]
        quantize = self._quantized([tensor.name for tensor in tensors], raws)
        try:
            packed = ops.pack_linear(
                _interleaved(raws),
                self.act,
                act_bits=self.act_bits,
                quantize=quantize,
                in_place=self.in_place,
            )
        except ValueError as error:
            names = ", ".join(repr(raw.name) for raw in raws[:3])
            raise ModelFileError(f"{self.file.path}: in {names}: {error}") from None
        if packed.bytes_in_place:
            self._book.mapped_bytes += packed.bytes_in_place
            return packed
        for tensor in tensors:
            for name in self.names_of(tensor):
                self._book.done(self.file_name(name))
        if quantize is None:
            self._note_widened(tensors, packed)
        return packed

    @property
    def mapped_bytes(self) -> int:
        """Of what has been packed so far, how much is mapped files, used where they lie."""
        return self._book.mapped_bytes

    def names_of(self, tensor: Tensor) -> list[str]:
        """All that the file has of it, below the prefix: scales too."""
        names = [name for name, _ in tensor.file_tensors()]
        suffixes = () if self.scheme.fp8 is None else self.scheme.fp8.suffixes
        return names + [name + end for name in names for end in suffixes if self.has(name + end)]

    def _note_widened(self, tensors: list[Tensor], packed: ops.PackedLinear) -> None:
        """Of matrices in FP8, those that did not keep their codes."""
        names = [self.file_name(name) for tensor in tensors for name, _ in tensor.file_tensors()]
        infos = {name: self.file.tensors.get(name) for name in names}  # spoilt packed files may lack one
        coded = [name for name, info in infos.items() if info is not None and info.dtype == FP8]
        if self.act == ops.act_dtype("bfloat16") and coded and FP8_FORMAT not in packed.formats:
            self._book.widened += coded

    def kept_as(self, method: str) -> str:
        """What files of this quantization method have, and what of it is held otherwise, for people."""
        widened = list(dict.fromkeys(self._book.widened))
        if not widened:
            return method
        count = sum(info.dtype == FP8 for info in self.file.tensors.values())
        return f"{method}; held as bfloat16: {len(widened)} of {count} matrices in FP8, first {widened[0]!r}"

    def pack_made(self, matrices: list[np.ndarray]) -> ops.PackedLinear:
        """Matrices that were made of a `table`, float32 [rows, columns], stacked; each is a part of its
        own."""
        raws = [
            RawTensor("made", "f32", matrix.shape, np.ascontiguousarray(matrix).reshape(-1).view(np.uint8))
            for matrix in matrices
        ]
        return ops.pack_linear(raws, self.act)

    def _quantized(self, names: list[str], raws: list[RawTensor]) -> str | None:
        """The type that floats among these matrices become. Tables of the vocabulary keep eight bits, and
        rows that are no whole number of blocks what they have."""
        has_floats = any(raw.dtype in ggml.FLOATS for raw in raws)
        if self.quantization is None or not has_floats or raws[0].shape[-1] % ggml.BLOCKS["q8_0"].elements:
            return None
        self._book.num_quantized += 1
        eight = self.quantization == "int8" or any(name.removesuffix(".weight") in _TABLES for name in names)
        return "q8_0" if eight else "q4_1"

    def beyond(self, layers: str, count: int) -> list[str]:
        """The file's names of tensors in layers from number `count` on."""
        prefix = f"{layers}." if self._names is None else "blk."
        numbered = re.compile(re.escape(prefix) + r"(\d+)\.")
        return [n for n in self.file.tensors if (m := numbered.match(n)) and int(m[1]) >= count]

    def ignore(self, patterns: Iterable[str]) -> None:
        """Tensors of these names (the file's, with `*`) carry nothing that the model needs."""
        for name in self.file.tensors:
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                self._book.taken.add(name)

    def mark_taken(self, names: Iterable[str]) -> None:
        """These tensors have been asked for, though nothing was read."""
        self._book.taken.update(self.file_name(name) for name in names)

    def check_all_used(self) -> None:
        """Raises ModelFileError naming the tensors that nobody asked for: the model would be another one.
        Raises ConfigError when there was nothing to quantise."""
        if self.quantization and not self._book.num_quantized:
            raise ConfigError(
                f"{self.file.path}: quantization {self.quantization}: no weights here are floats"
            )
        extra = [name for name in self.file.tensors if name not in self._book.taken]
        if extra:
            more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
            listed = ", ".join(repr(self._spelled(name)) for name in extra[:3])
            raise ModelFileError(f"{self.file.path}: unexpected tensors: {listed}{more}")


class _Book:
    """Which tensors have been taken, and how far loading is."""

    def __init__(self, tensors: Mapping[str, StoredTensor], progress: Progress | None) -> None:
        self.taken: set[str] = set()
        self.num_quantized = 0
        self.mapped_bytes = 0
        self.widened: list[str] = []  # matrices in FP8 that are held in a wider type
        self._tensors = tensors
        self._progress = progress
        self._loaded = 0
        self._total = sum(info.length for info in tensors.values())

    def take(self, info: StoredTensor) -> None:
        if info.name not in self.taken:
            self.taken.add(info.name)
            self._loaded += info.length
            if self._progress:
                self._progress(self._loaded, self._total)

    def done(self, name: str) -> None:
        self._tensors[name].release()


def _interleaved(raws: list[RawTensor]) -> list[RawTensor]:
    """The matrices of tensors [count, rows, columns]: every one's first, every one's second, and so on."""
    if len(raws[0].shape) == 2:
        return raws
    return [part for parts in zip(*map(_split, raws), strict=True) for part in parts]


def _split(raw: RawTensor) -> list[RawTensor]:
    count = raw.shape[0]
    exponents = [None] * count if raw.exponents is None else np.split(raw.exponents, count)
    scales: list[BlockScales | None] = [None] * count
    if raw.scales is not None:
        scales = [raw.scales._replace(values=values) for values in raw.scales.values]
    return [
        replace(raw, shape=raw.shape[1:], data=data, exponents=apart, scales=factors)
        for data, apart, factors in zip(np.split(raw.data, count), exponents, scales, strict=True)
    ]


def _long_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """GGUF files drop axes of one, or add them."""
    return tuple(n for n in shape if n != 1)


def _template(stem: str) -> str:
    return _LAYER_NUMBER.sub(".{i}.", stem, count=1)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
