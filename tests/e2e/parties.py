"""A deployment as processes on loopback, each started as its container starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.deploy import health, keys
from experiments.deploy.place import Place

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0  # seconds, on a machine that does other things, too
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(met: Callable[[], bool], process: Process | None = None) -> None:
    """Wait; fail where it takes too long, or ``process`` ends before."""
    ends = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < ends, "took too long"
        assert process is None or process.poll() is None or met(), "the process has ended"
        time.sleep(0.1)


@dataclass
class Parties:
    """A SuperLink and SuperNodes; the end of the ``with`` ends what it started, and nothing else."""

    place: Place
    insecure: bool = False
    port: int = field(default_factory=free_port)
    superlink: Process | None = None
    nodes: dict[int, Process] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self, clients: int) -> None:
        keys.make(self.place, clients)
        self.start_superlink()

    def start_superlink(self) -> None:
        self.superlink = self._start("superlink", "--port", str(self.port))
        ca = None if self.insecure else self.place.ca
        until(lambda: health.healthy(self.address, ca), self.superlink)

    def start_node(self, client: int, address: str | None = None) -> Process:
        folder, where = str(self.place.client(client)), ["--superlink", address or self.address]
        self.nodes[client] = self._start("supernode", folder, *where, "--port", str(free_port()), place=False)
        return self.nodes[client]

    def run(self, study: Path, *options: str) -> Process:
        """``fl-sim deploy run``; what it says is in run.log."""
        return self._start("run", str(study), "--address", self.address, *options)

    def do(self, *words: str) -> str:
        """A command that ends: what it prints."""
        command = self._command(*words, "--place", str(self.place.path))
        return subprocess.run(command, env=_environment(), capture_output=True, check=True, text=True).stdout

    def said(self, part: str) -> str:
        return (self.place.path / f"{part}.log").read_text()

    def kill(self, process: Process | None) -> None:
        """At once, with all that it started, as a container dies."""
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> "Parties":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.poll() is None:
                self.kill(process)

    def _start(self, part: str, *options: str, place: bool = True) -> Process:
        command = self._command(part, *options) + (["--place", str(self.place.path)] if place else [])
        command += ["--insecure"] if self.insecure else []
        with (self.place.path / f"{part}.log").open("ab") as log:
            settings = {"env": _environment(), "stdout": log, "stderr": log, "start_new_session": True}
            self.started.append(subprocess.Popen(command, **settings))  # type: ignore[call-overload]
        return self.started[-1]

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "experiments.cli", "deploy", *words]


def _environment() -> dict[str, str]:
    """This checkout's code, and Flower's questions to itself five times a second instead of once."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
