"""Flower's command line against one SuperLink. It exits with 0 after a failed run, too: its JSON is read."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from experiments.deploy.place import Place
from fl_sim.core.errors import FlSimError

_EVERY = 3.0  # seconds between two questions: each starts Flower's command line


@dataclass(frozen=True)
class Flower:
    """A SuperLink, as its operator reaches it.

    Args:
        address: HOST:PORT, by a name that is in the SuperLink's certificate.
        patience: Seconds that the SuperLink may be away, as while it is restarted.
    """

    place: Place
    address: str
    insecure: bool
    patience: float = 90.0

    def ask(self, *words: str) -> dict[str, Any]:
        """The answer of ``flwr WORDS``.

        Raises:
            FlSimError: It has none, or it is a refusal.
        """
        with self._settings() as settings:
            command = [*self._command(*words), "--format", "json"]
            done = subprocess.run(command, **settings, capture_output=True, check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            said = (done.stderr or done.stdout).decode().strip()
            raise FlSimError(f"flwr {words[0]} at {self.address} gave no answer: {said}") from error
        if not answer.get("success"):
            said = str(answer.get("error-message", answer)).rpartition("\n")[2]
            raise FlSimError(f"flwr {' '.join(words[:2])} at {self.address}: {said}")
        return answer

    def register(self) -> None:
        """Let every client in that has a key here; those that are in already stay."""
        for path in sorted(self.place.path.glob("clients/*/key.pub")):
            try:
                self.ask("supernode", "register", str(path.absolute()))
            except FlSimError as error:
                if "already in use" not in str(error):
                    raise

    def online(self) -> int:
        """SuperNodes that are there."""
        return sum(node["status"] == "online" for node in self.ask("supernode", "list")["nodes"])

    def submit(self, text: str, name: str, folder: str) -> str:
        """Start a run of a study; its number.

        Args:
            text: The whole study, as TOML.
            folder: Where the ServerApp writes, from the deployment's folder.
        """
        with TemporaryDirectory(prefix="fl-sim-") as app:
            written = tomli_w.dumps(_app({"study": name, "text": text, "out": folder}))
            Path(app, "pyproject.toml").write_text(written)
            return str(self.ask("run", app)["run-id"])

    def follow(self, run: str) -> dict[str, Any]:
        """Show the run's log on stderr until it ends; its last line in Flower's list of runs.

        Raises:
            FlSimError: The SuperLink has been away for longer than ``patience``.
        """
        with self._settings() as settings:
            subprocess.run(self._command("log", run, "--stream"), **settings, stdout=sys.stderr, check=False)
        seen = time.monotonic()
        while True:
            try:
                row: dict[str, Any] = self.ask("list", "--run-id", run)["runs"][0]
                seen = time.monotonic()
                if str(row["status"]).startswith("finished"):
                    return {**row, "status-details": str(row["status-details"]).replace("N/A", "")}
            except FlSimError:
                if time.monotonic() - seen > self.patience:
                    raise
            time.sleep(_EVERY)

    def _command(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("flwr")), *words]

    @contextmanager
    def _settings(self) -> Iterator[dict[str, Any]]:
        """Of the process: Flower reads the SuperLink's address from a file in its home, which no two of us share."""
        trust = {"insecure": True} if self.insecure else {"root-certificates": str(self.place.ca.absolute())}
        link = {"superlink": {"default": "fl-sim", "fl-sim": {"address": self.address, **trust}}}
        with TemporaryDirectory(prefix="fl-sim-") as home:
            Path(home, "config.toml").write_text(tomli_w.dumps(link))
            yield {"env": {**os.environ, "FLWR_HOME": home}, "cwd": home}


def _app(run_config: dict[str, str]) -> dict[str, Any]:
    """Flower wants an app to run. This one has no code: every part has fl-sim installed."""
    components = {"serverapp": "experiments.app:server_app", "clientapp": "experiments.app:client_app"}
    flower = {"app": {"publisher": "fl-sim", "components": components, "config": run_config}}
    project = {"name": "fl-sim-study", "version": "0.1.0", "license": "Apache-2.0", "dependencies": []}
    return {"project": project, "tool": {"flwr": flower}}
