import numpy as np
import pytest

from tenon import ops


def test_more_than_there_are_is_refused():
    logits_SV = np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match="between 0 and 4"):
        ops.logprobs(logits_SV, np.zeros(1, np.int32), 5)


def test_logprobs_of_all_tokens_sum_to_one(seed):
    logits_SV = np.random.default_rng(seed).standard_normal((2, 300)).astype(np.float32) * 5
    ids = np.array([0, 299], np.int32)
    logprob_S, rank_S, top_ids_Sn, top_Sn = ops.logprobs(logits_SV, ids, 300)
    np.testing.assert_allclose(np.exp(top_Sn).sum(axis=1), 1, rtol=1e-5)
    for row in range(2):
        where = int(np.flatnonzero(top_ids_Sn[row] == ids[row])[0])
        assert rank_S[row] == where + 1
        assert logprob_S[row] == top_Sn[row, where]


def test_equal_logits_go_by_id_and_share_a_rank():
    logits_SV = np.array([[1, 3, 3, 0, 3]], np.float32)
    _, rank_S, top_ids_Sn, _ = ops.logprobs(logits_SV, np.array([4], np.int32), 4)
    assert top_ids_Sn.tolist() == [[1, 2, 4, 0]]
    assert rank_S.tolist() == [1]
