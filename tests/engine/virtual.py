"""Front end, engine and clients in one process under a virtual clock: what happens next is drawn from a seed.

Events have times: a client asks, leaves, or gives up at its deadline; messages and outputs arrive late, but
in order; a step takes its time; the engine dies and another one is started. Equal seeds give equal runs, so
a seed that fails can be run again. At the end every client's history is judged: its text is a prefix of the
right one, it ended once, and complete unless something happened to it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tenon.config import EngineArgs
from tenon.core.messages import Abort, Outputs, ToEngine
from tenon.core.sampling import SamplingParams
from tenon.engine.engine import Engine
from tenon.engine.frontend import Frontend, Generation
from tenon.errors import EngineDead

from .poison import poison
from .simulation import make_engine, right_answer


@dataclass
class Client:
    """One request's history."""

    generation: Generation
    adds: list
    seen: list[list[int]]  # tokens of each choice, as far as it was told
    ends: int = 0
    left: bool = False  # by itself, or at its deadline
    killed: bool = False  # its engine died


@dataclass
class World:
    """Everything, and the time."""

    rng: random.Random
    crashes: bool = True
    clock: float = 0.0
    number: int = 0  # of events so far
    clients: list[Client] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    deaths: int = 0
    preemptions: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self._queue: list[tuple[float, int, str, Callable[[], None]]] = []
        self._prefixes = [[self.rng.randrange(50) for _ in range(24)] for _ in range(3)]
        self._born = 0
        self._config = EngineArgs(load_format="oracle").resolve()
        self._arrived = [0.0, 0.0]  # when the last message, and the last outputs, arrive: no overtaking
        self._start_engine()
        self.frontend = Frontend(None, self.engine.ready, self._config)

    # --- time

    def after(self, seconds: float, what: str, action: Callable[[], None]) -> None:
        self._at(self.clock + seconds, what, action)

    def _at(self, time: float, what: str, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, self.number, what, action))  # at one time, in order
        self.number += 1

    def delay(self, mean: float) -> float:
        return self.rng.expovariate(1 / mean)

    def run(self, seconds: float) -> None:
        """Clients come for so long; then the world runs until nothing is left to happen."""
        self.after(0.0, "ask", lambda: self._ask(seconds))
        if self.crashes:
            self.after(self.delay(seconds / 3), "crash", lambda: self._crash(seconds))
        while self._queue:
            self.clock, _, what, action = heapq.heappop(self._queue)
            self.log.append(f"{self.clock:.6f} {what}")
            assert len(self.log) < 200_000, "it does not end"
            action()
        self._judge()

    # --- the engine, and the ways to it and back

    def _start_engine(self) -> None:
        self._born += 1
        self.alive = True
        self._stepping = False
        self.engine: Engine = make_engine(
            num_blocks=18, max_model_len=60, max_num_batched_tokens=20, max_num_seqs=6
        )
        poison(self.engine)

    def _send(self, messages: list[ToEngine]) -> None:
        born = self._born

        def arrive() -> None:
            if born == self._born and self.alive:
                for message in messages:
                    self.engine.handle(message)
                self._wake()

        self._in_order(0, 0.002, "messages arrive", arrive)

    def _wake(self) -> None:
        if not self._stepping and self.engine.has_work:
            self._stepping = True
            born = self._born
            self.after(self.delay(0.005), "step", lambda: self._step(born))

    def _step(self, born: int) -> None:
        if born != self._born or not self.alive:
            return
        self._stepping = False
        outputs = self.engine.step()
        self.engine.check_integrity()
        late = 0.05 if self.rng.random() < 0.1 else 0.001
        self._in_order(1, late, "outputs arrive", lambda: self._receive(born, outputs))
        self._wake()

    def _receive(self, born: int, outputs: Outputs) -> None:
        if born != self._born or not self.alive:
            return  # the process that sent them is gone, and its socket with it
        if aborts := self.frontend.apply(outputs):
            self._send([Abort(aborts)])

    def _in_order(self, way: int, mean: float, what: str, action: Callable[[], None]) -> None:
        at = max(self._arrived[way], self.clock + self.delay(mean))
        self._arrived[way] = at
        self._at(at, what, action)

    def _crash(self, until: float) -> None:
        self.deaths += 1
        self.preemptions += self.engine.stats().num_preemptions
        self.alive = False
        for client in self.clients:
            client.killed = client.killed or not client.generation.finished
        self.frontend.fail_all(EngineDead("killed"))
        self.after(self.delay(0.2), "restart", self._start_engine)
        if self.clock < until:
            self.after(self.delay(until / 3), "crash", lambda: self._crash(until))

    # --- clients

    def _ask(self, until: float) -> None:
        if self.clock < until:
            self.after(self.delay(0.02), "ask", lambda: self._ask(until))
        if not self.alive:
            return  # the server would say 503
        prompt = self.rng.choice(self._prefixes)[: self.rng.choice([0, 8, 24])]
        prompt = prompt + [self.rng.randrange(50) for _ in range(self.rng.randint(1, 12))]
        params = SamplingParams(
            max_tokens=self.rng.randint(1, 20),
            n=self.rng.choice([1, 1, 3]),
            seed=self.rng.randrange(2**32),
            temperature=self.rng.choice([0.0, 1.0]),
            ignore_eos=self.rng.random() < 0.5,
        )
        generation, adds = self.frontend.add(prompt, params, request_id=f"c{len(self.clients)}")
        client = Client(generation, adds, [[] for _ in range(params.n)])
        self.clients.append(client)
        generation.on_change = lambda: self._told(client)
        self._send(list(adds))
        if self.rng.random() < 0.3:
            self.after(self.delay(0.1), "leave", lambda: self._leave(client))
        elif self.rng.random() < 0.2:
            self.after(0.15, "deadline", lambda: self._leave(client))

    def _leave(self, client: Client) -> None:
        if client.generation.finished:
            return
        client.left = True
        if (ids := self.frontend.abort(client.generation.request_id)) and self.alive:
            self._send([Abort(ids)])

    def _told(self, client: Client) -> None:
        output = client.generation.snapshot()
        assert not client.ends, "told something after the end"
        for seen, choice in zip(client.seen, output.outputs, strict=True):
            ids = list(choice.token_ids)
            assert ids[: len(seen)] == seen, "what was told was taken back"
            seen[:] = ids
        client.ends += output.finished

    # --- the end

    def _judge(self) -> None:
        if self.alive:
            self.engine.check_integrity()
            assert not self.engine.has_work
            assert self.engine.stats().kv_blocks_used == 0
            self.preemptions += self.engine.stats().num_preemptions
        assert not self.frontend.generations
        for client in self.clients:
            assert client.ends == 1, f"{client.generation.request_id} ended {client.ends} times"
            for add, seen, choice in zip(client.adds, client.seen, client.generation.choices, strict=True):
                right, reason, _ = right_answer(add, self.engine)
                assert seen == right[: len(seen)], f"{add.request_id}: a lost, doubled or foreign token"
                if not (client.left or client.killed):
                    assert seen == right
                    assert choice.finish_reason == reason
                self.tokens += len(seen)
