"""Architectures that no file here has, run by transformers, around the engine's own attention and cache.

Asked for with `--model-impl transformers`, never chosen silently: products are torch's, slower than tenon's,
and their bits may depend on what else is in a step. What keeps K and V, and what reads them, are the ops of
every other model: transformers calls `attend` where it would call an attention kernel. A model is refused if
anything but causal attention over K and V connects its tokens, as that would see neighbours that are none.

Shape letters: T tokens, S rows whose logits are wanted, D model width, V vocabulary, H query heads,
G key/value heads, E head width.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.files import ModelFiles
from tenon.core.spec import KVGroup, ModelSpec
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.layers.kv import bytes_per_block, caches
from tenon.models._checkpoint import open_checkpoint

log = logging.getLogger(__name__)

NAME = "tenon"  # of the attention, in transformers' registry
_CHANGING = ("dynamic", "longrope")  # scalings of positions that go by the longest sequence of a step
_DTYPES = {"auto": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}


@dataclass(slots=True)
class _Layer:
    """What one layer asked of its attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int


class Fallback:
    """A causal language model of transformers, as a `Model` (tenon.core.spec)."""

    recordable = False

    def __init__(self, lm: Any, spec: ModelSpec, num_positions: int) -> None:
        self._layers: dict[int, _Layer] = {}  # by number
        self._keys: list[np.ndarray] = []  # of the probes
        self._step: tuple[Batch, list[Any]] | None = None
        self._no_rotation = np.zeros((num_positions, 0), np.float32)
        for module in lm.modules():
            module.tenon = self
        self._body = getattr(lm, lm.base_model_prefix)
        self._probe(spec.vocab_size)
        self.spec = replace(spec, kv_groups=(self._group(lm.config.num_hidden_layers),))
        # Logits are made of hidden states by the whole model, around a body that has them already.
        self._lm, self._held = lm, _held_body()
        setattr(lm, lm.base_model_prefix, self._held)

    def kv_bytes_per_block(self, block_size: int) -> int:
        return bytes_per_block(self.spec, block_size)

    def shorten(self, num_positions: int) -> None:
        pass  # transformers turns by itself

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        return caches(self.spec, num_blocks, block_size)

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        self._step = (batch, kv)
        try:
            return self._hidden(batch.token_ids_T, batch.positions_T)
        finally:
            self._step = None

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            self._held.states = torch.from_numpy(hidden_SD).to(self._lm.dtype)[None]
            output = self._lm(input_ids=torch.zeros((1, len(hidden_SD)), dtype=torch.long), use_cache=False)
        return np.ascontiguousarray(output.logits[0].float().numpy())

    def attend(self, module: Any, query: Any, key: Any, value: Any, scale: float | None, window: int) -> Any:
        """[1, T, H, E] of query [1, H, T, E], key and value [1, G, T, E], rotated already."""
        import torch

        layer = module.layer_idx
        scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
        if self._step is None:
            self._note(layer, _Layer(query.shape[1], key.shape[1], query.shape[3], scale, window), key, value)
            return torch.zeros_like(query).transpose(1, 2)
        batch, kv = self._step
        shape = self._layers[layer]
        heads: dict[str, Any] = {
            "num_heads": shape.num_heads,
            "num_kv_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
        }
        rows = [x[0].transpose(0, 1).reshape(x.shape[2], -1).float() for x in (query, key, value)]
        q_TX = ops.rope_kv_write(
            torch.cat(rows, dim=1).numpy(),
            self._no_rotation,
            kv[layer],
            batch,
            rot_dim=0,
            q_norm=None,
            k_norm=None,
            eps=0.0,
            **heads,
        )
        o_TX = ops.attention(q_TX, kv[layer], batch, scale=scale, window=shape.window, **heads)
        return _to_torch(o_TX).reshape(1, -1, shape.num_heads, shape.head_dim)

    def _hidden(self, ids_T: np.ndarray, positions_T: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            ids, positions = (torch.from_numpy(x.astype(np.int64))[None] for x in (ids_T, positions_T))
            states = self._body(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        return np.ascontiguousarray(states[0].float().numpy())

    def _probe(self, vocab_size: int) -> None:
        """Some tokens, of which attention tells each other nothing. Shows what each layer asks of attention;
        that K depends on positions; and that no token's state depends on another."""
        ids = np.linspace(0, vocab_size - 1, 8).astype(np.int32)
        positions = np.arange(len(ids))
        states_TD, keys = self._hidden(ids, positions), self._keys
        self._keys = []
        self._hidden(ids, positions + 3)
        if keys and all(np.array_equal(a, b) for a, b in zip(keys, self._keys, strict=True)):
            raise UnsupportedModel("it takes no notice of the positions it is given")
        others = ids.copy()
        others[::2] = ids[::-2]
        again_TD = self._hidden(others, positions)
        if not np.allclose(states_TD[1::2], again_TD[1::2], rtol=1e-3, atol=1e-3 * np.abs(states_TD).max()):
            raise UnsupportedModel("something beside attention connects its tokens")
        self._keys = []

    def _note(self, number: int, layer: _Layer, key: Any, value: Any) -> None:
        if value.shape != key.shape:
            raise UnsupportedModel(f"heads of k and v differ in layer {number}")
        if self._layers.setdefault(number, layer) != layer:
            raise UnsupportedModel(f"layer {number} attends more than once")
        self._keys.append(key.float().numpy())

    def _group(self, num_layers: int) -> KVGroup:
        if sorted(self._layers) != list(range(num_layers)):
            raise UnsupportedModel(
                f"{len(self._layers)} of {num_layers} layers have attention; what others keep is not known"
            )
        widths = {(layer.num_kv_heads, layer.head_dim) for layer in self._layers.values()}
        if len(widths) > 1:
            raise UnsupportedModel("its layers differ in heads of k and v")
        (width,) = widths
        return KVGroup("full", num_layers, *width)


def load_fallback(files: ModelFiles, dtype: str = "auto", max_model_len: int | None = None) -> Fallback:
    """The model in `files`, run by transformers. Raises ConfigError if it is not installed, UnsupportedModel,
    with the reason, for a model that cannot be run so, ModelFileError for files that are not whole."""
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"model_impl transformers needs {' and '.join(missing)}: pip install 'tenon[fallback]'"
        )
    checkpoint = open_checkpoint(files)
    if files.kind != "hf":
        raise UnsupportedModel(
            f"{checkpoint.file.path}: model_impl transformers takes directories of safetensors"
        )
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
    where = f"{files.directory}: transformers cannot run {checkpoint.architecture!r} for tenon"
    try:
        lm = _load(files, _DTYPES[dtype])
        positions = getattr(lm.config, "max_position_embeddings", None)
        if not isinstance(positions, int):
            raise UnsupportedModel("its configuration does not say how many positions it has")
        spec = ModelSpec(
            checkpoint.model_type,
            lm.config.vocab_size,
            positions,
            (),
            checkpoint.eos_token_ids,
            _DTYPES[dtype],
            implementation=f"transformers {_version()}: a fallback, slow; bits may depend on the batch",
        )
        model = Fallback(lm, spec, max_model_len or positions)
        log.warning("%s runs in transformers, as asked: a fallback, and slow", checkpoint.architecture)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{where}: {error}") from None
    except (AttributeError, TypeError, RuntimeError, IndexError) as error:  # a body unlike others
        raise UnsupportedModel(f"{where}: {type(error).__name__}: {error}") from error
    if max_model_len is not None and max_model_len > positions:
        raise ConfigError(f"max_model_len {max_model_len} is more than the {positions} positions")
    return model


def _load(files: ModelFiles, dtype: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    local = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(files.directory, **local)
    except Exception as error:  # its checks raise errors of many kinds
        raise _refused(error) from error
    try:
        _check(config, AutoModelForCausalLM._model_mapping)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.directory,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=NAME,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told of below
            **local,
        )
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise _refused(error) from error
    lm, report = loaded
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(what):
            one = sorted(map(str, report[what]))[0]
            raise ModelFileError(f"{files.directory}: {what.replace('_', ' ')}: {one}")
    return lm.eval()


def _refused(error: Exception) -> UnsupportedModel:
    return UnsupportedModel(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _check(config: Any, classes: Any) -> None:
    """What can be said before weights are read."""
    if type(config) not in classes:
        raise UnsupportedModel(f"{type(config).__name__} has no causal language model")
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(r for r in ropes.values() if isinstance(r, dict))):
        if rope.get("rope_type") in _CHANGING:
            raise UnsupportedModel(
                f"its positions are stretched by the longest sequence ({rope['rope_type']})"
            )
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise UnsupportedModel(f"it has layers of the kind {', '.join(sorted(kinds))}")
    if not getattr(config, "is_causal", True):
        raise UnsupportedModel("its attention looks both ways")


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """What transformers calls, in place of its own attention."""
    if attention_mask is not None or is_causal is False or not getattr(module, "is_causal", True):
        raise UnsupportedModel("its attention has a mask of its own")
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if others.get(name) is not None:
            raise UnsupportedModel(f"its attention has {name}")
    kinds = getattr(module.config, "layer_types", None)
    if kinds and kinds[module.layer_idx] == "sliding_attention" and not sliding_window:
        raise UnsupportedModel("its layers do not say how far they see")
    return module.tenon.attend(module, query, key, value, scaling, sliding_window or 0), None


def _held_body() -> Any:
    """A module that gives the hidden states it holds, whatever it is asked."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Output(BaseModelOutputWithPast):
        def __getattr__(self, name: str) -> None:
            """Families pass on more: states of routers, attention to an encoder."""
            if name.startswith("__"):
                raise AttributeError(name)

    class Held(torch.nn.Module):
        states: Any = None

        def forward(self, *args: Any, **options: Any) -> Any:
            return Output(last_hidden_state=self.states)

    return Held()


def _to_torch(x: np.ndarray) -> Any:
    import torch

    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(x).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(x))


def _version() -> str:
    from importlib.metadata import version

    return version("transformers")
