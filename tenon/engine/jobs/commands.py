"""What a pool asks of its nursery. Each is answered by one number."""

from __future__ import annotations

import msgspec

from tenon.engine.jobs.work import Grammar


class Fork(msgspec.Struct, tag="fork", frozen=True):
    """Comes with the worker's end of a socket pair. Answered by the worker's pid."""


class Reap(msgspec.Struct, tag="reap", frozen=True):
    """Answered by the exit status of a worker that has ended or been killed; its pid is free then."""

    pid: int


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Have ready what such a job needs, for the workers to come. Answered by 0."""

    job: Grammar


Command = Fork | Reap | Prepare
