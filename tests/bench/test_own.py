from types import SimpleNamespace

from tenon.bench import own
from tenon.bench.own import OwnTime
from tenon.config import EngineArgs
from tenon.core.messages import AddRequest
from tenon.core.sampling import SamplingParams
from tenon.engine.client import InProcessClient


def test_time_in_the_passes_does_not_count(monkeypatch):
    now = 0.0
    monkeypatch.setattr(own, "time", SimpleNamespace(perf_counter=lambda: now))
    client = InProcessClient(EngineArgs(load_format="oracle").resolve())
    client.load()
    runner = client.engine.runner
    passes, forward, sample = runner.passes, runner.passes.forward, runner.sampler.sample

    def slow_forward(batch):
        nonlocal now
        now += 100.0
        forward(batch)

    def slow_sample(*args):
        nonlocal now
        now += 3.0
        return sample(*args)

    passes.forward, runner.sampler.sample = slow_forward, slow_sample
    with OwnTime(client) as timed:
        assert timed.seconds is None
        params = SamplingParams(max_tokens=5, ignore_eos=True, seed=0)
        timed.send([AddRequest(request_id="a", prompt_token_ids=[1, 2, 3], params=params)])
        while timed.has_work:
            timed.step()
        assert timed.seconds == 3.0
        timed.begin()
        assert timed.seconds is None
    assert runner.passes is passes
