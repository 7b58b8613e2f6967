"""Which texts go together, and what a score is made of."""

import numpy as np
import pytest

from tenon.core.outputs import PoolingOutput, PoolingRequestOutput
from tenon.core.pooling import PoolingSpec
from tenon.engine.scoring import Scoring
from tenon.errors import InvalidRequest

EMBED = PoolingSpec(task="embed", pooling="mean", width=2, normalize=True)
CROSS = PoolingSpec(task="classify", pooling="cls", width=1, activation="sigmoid", labels=("LABEL_0",))


def result(name, *numbers):
    data = np.array(numbers, np.float32)
    return PoolingRequestOutput(
        request_id=name, prompt_token_ids=[len(name)], outputs=PoolingOutput(data=data)
    )


def test_embeddings_are_made_once_for_each_text_and_compared():
    scoring = Scoring(EMBED, "a", ["b", "a", "b"])
    assert scoring.inputs == [("a",), ("b",)]
    assert scoring.params.normalize
    scores = scoring.scores([result("a", 1, 0), result("b", 0.6, 0.8)])
    assert [s.outputs.score for s in scores] == pytest.approx([0.6, 1.0, 0.6])


def test_a_cross_encoder_reads_both():
    scoring = Scoring(CROSS, ["a", "b"], ["c", "d"])
    assert scoring.inputs == [("a", "c"), ("b", "d")]
    scores = scoring.scores([result("x", 0.25), result("y", 0.75)])
    assert [s.outputs.score for s in scores] == [0.25, 0.75]
    assert Scoring(CROSS, "a", ["c", "d"]).inputs == [("a", "c"), ("a", "d")]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (["a", "b"], ["c"], "as many"),
        (["a", "b"], ["c", "d", "e"], "as many"),
        ([], ["c"], "text_1 is empty"),
        ("a", [], "text_2 is empty"),
        ("a", [3], "text_2 must be text"),
    ],
)
def test_texts_that_do_not_match(first, second, says):
    with pytest.raises(InvalidRequest, match=says):
        Scoring(EMBED, first, second)


def test_a_classifier_of_several_labels_scores_nothing():
    spec = PoolingSpec(task="classify", pooling="cls", width=3)
    with pytest.raises(InvalidRequest, match="3 labels"):
        Scoring(spec, "a", "b")
