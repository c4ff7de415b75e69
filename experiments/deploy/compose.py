"""docker-compose.yml at the repository's root, driven: who runs it, with how many clients, with which settings."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.deploy.place import Place
from fl_sim.core.errors import FlSimError, MissingDataError

ROOT = Path(__file__).parents[2]
_USER = 49999  # of the image; takes part where the host's user is root, for nothing in a container is root


@dataclass(frozen=True)
class Compose:
    """The containers of a deployment.

    Args:
        port: Of the SuperLink, on this machine's loopback.
        gpu: The SuperLink gets the machine's GPUs, for attacks.
    """

    place: Place
    data_dir: Path | None
    port: int
    insecure: bool
    gpu: bool

    def __call__(self, *words: str) -> None:
        """Run ``docker compose WORDS``; what it says goes to stderr.

        Raises:
            FlSimError: It failed.
        """
        command = [*_program(), *self._files(), *words]
        if subprocess.run(command, env=self._environment(), cwd=ROOT, stdout=2, check=False).returncode:
            raise FlSimError(f"{' '.join(command)} failed: what it said stands above")

    def hand_over(self) -> None:
        """Make the folders, owned by who works in them; a link that a container left is not followed."""
        folders = [self.place.server, self.place.runs, self.place.path / "clients"]
        for folder in [*folders, self._data()]:
            folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(self.place.path, _USER, _USER)
            for folder in folders:
                for path in [folder, *folder.rglob("*")]:
                    os.chown(path, _USER, _USER, follow_symlinks=False)

    def _files(self) -> list[str]:
        """The file at the root has client 0; a file beside the keys has the others, each like it."""
        template, others = ROOT / "docker-compose.yml", self.place.path.absolute() / "clients.compose.json"
        if not template.exists():
            raise MissingDataError(f"expected {template}: run this in a clone of fl-sim's repository")
        services = {
            f"supernode-{number}": {
                "extends": {"file": str(template), "service": "supernode-0"},
                "volumes": [f"{self.place.client(number).absolute()}:/client"],
            }
            for number in range(1, self.place.clients())
        }
        others.write_text(json.dumps({"services": services}, indent=1))
        used = [template, *([others] if services else []), *([Path(__file__).with_name("gpu.yml")] if self.gpu else [])]
        return [word for path in used for word in ("-f", str(path))]

    def _environment(self) -> dict[str, str]:
        """What docker-compose.yml reads."""
        user, group = (os.getuid(), os.getgid()) if os.getuid() else (_USER, _USER)
        return {
            **os.environ,
            "FL_SIM_DEPLOY": str(self.place.path.absolute()),
            "FL_SIM_DATA": str(self._data()),
            "FL_SIM_USER": f"{user}:{group}",
            "FL_SIM_PORT": str(self.port),
            "FL_SIM_INSECURE": "1" if self.insecure else "",
        }

    def _data(self) -> Path:
        return (self.data_dir or self.place.path / "data").absolute()


def _program() -> Sequence[str]:
    """``docker compose``, or ``docker-compose`` from 1.28.

    Raises:
        FlSimError: There is neither.
    """
    plugin = ["docker", "compose"]
    if shutil.which("docker") and not subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise FlSimError(
        "expected docker with its compose plugin, got neither that nor docker-compose: install one, or start the parts "
        "yourself with `fl-sim deploy superlink` and `fl-sim deploy supernode`"
    )
