"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT trained otherwise, and other details.

Positions count from behind the padding token's id; texts of a pair are told apart by separators alone; a
classifier has a head of its own in place of BERT's pooler.
"""

from __future__ import annotations

from typing import Any

from tenon.core.pooling import PoolingSpec
from tenon.layers.pooling import Dense, Head
from tenon.layers.weights import Weights
from tenon.models import bert
from tenon.models._checkpoint import Checkpoint

ARCHITECTURES = ()
POOLING_ARCHITECTURES = {
    "RobertaModel": "embed",
    "RobertaForMaskedLM": "embed",
    "RobertaForSequenceClassification": "classify",
    "XLMRobertaModel": "embed",
    "XLMRobertaForMaskedLM": "embed",
    "XLMRobertaForSequenceClassification": "classify",
}
ENCODER = True
GGUF_ARCHITECTURES = ()
WEIGHTS: dict[str, str] = {}
IGNORED = ("*position_ids", "lm_head.*")

TINY: dict[str, Any] = {
    **bert.TINY,
    "model_type": "roberta",
    "architectures": ["RobertaModel"],
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}


class Roberta(bert.Bert):
    def make_head(self, pooling: PoolingSpec, weights: Weights, body: Weights, width: int) -> Head:
        weights.ignore(["*pooler.dense.*"])
        if pooling.task == "embed":
            return Head()
        head = weights.at("classifier")
        return Head(
            [
                Dense(head, "dense", width, width, activation="tanh"),
                Dense(head, "out_proj", pooling.width, width),
            ]
        )


MODEL = Roberta


def read_config(checkpoint: Checkpoint) -> bert.BertConfig:
    padding = checkpoint.fields.whole("pad_token_id", 1, low=0)
    return bert.read_bert_config(checkpoint, "roberta", first_position=padding + 1)
