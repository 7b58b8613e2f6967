"""Downloads that go on as they should, and others."""

import random

from tenon.util.flow import SLACK_BYTES, STEP_BYTES, Flow

MiB = 1 << 20


def test_one_that_gets_on_is_let_be(seed):
    rng, flow, now, size = random.Random(seed), Flow(10.0, 5 * MiB, 0.0, 900 * MiB), 0.0, 5 * MiB
    while size < 900 * MiB:
        now, size = now + rng.uniform(0, 9.9), size + rng.randrange(STEP_BYTES, 20 * MiB)
        assert flow.look(now, size) is None


def test_more_than_was_announced():
    flow = Flow(10.0, 5 * MiB, 0.0, MiB)
    assert flow.look(1.0, 6 * MiB + SLACK_BYTES) is None
    assert "more comes than the 1048576 bytes" in flow.look(2.0, 6 * MiB + SLACK_BYTES + 1)
    late = Flow(10.0, 0, 0.0)
    assert late.look(1.0, 999 * SLACK_BYTES) is None
    late.most = 0
    assert late.look(1.0, 999 * SLACK_BYTES)


def test_nothing_or_next_to_nothing():
    flow = Flow(10.0, 0, 100.0)
    assert flow.look(110.0, STEP_BYTES - 1) is None
    assert flow.look(110.1, STEP_BYTES - 1) == "nothing has come for 10 s"
    assert flow.look(110.1, STEP_BYTES) is None
    assert flow.look(120.1, STEP_BYTES + 1) is None
    assert flow.look(120.2, STEP_BYTES + 1, 1) is None, "a file more"
    assert flow.look(130.3, STEP_BYTES + 1, 1)
    assert flow.look(130.3, 0, 1) is None, "it began again"
