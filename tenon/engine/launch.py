"""What the two processes of `tenon.engine.process` and `tenon.engine.worker` agree on."""

from __future__ import annotations

import signal
import struct

import msgspec

from tenon.config import EngineConfig

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
DUMP_SIGNAL = signal.SIGUSR1  # has the child write the stacks of its threads to standard error
HELD_SIGNALS = (*STOP_SIGNALS, DUMP_SIGNAL)  # blocked in the child until it can tell what they mean
LENGTH = struct.Struct("<I")  # before each message on the lifeline


class Launch(msgspec.Struct):
    """What the child is told first."""

    config: EngineConfig
    directory: str  # of the sockets; the child removes it too, should the parent not be able to
    log_level: int
    log_texts: bool  # see tenon.util.log

    @property
    def requests_address(self) -> str:
        return f"ipc://{self.directory}/requests"

    @property
    def outputs_address(self) -> str:
        return f"ipc://{self.directory}/outputs"
