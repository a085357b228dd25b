"""Signals that ask a process to end."""

from __future__ import annotations

import asyncio
import signal


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second for a quick one."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.insisted = asyncio.Event()

    def install(self) -> None:
        """Take the signals over from here on."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(sig, self._received)

    def _received(self) -> None:
        if self.requested.is_set():
            self.insisted.set()
        self.requested.set()
