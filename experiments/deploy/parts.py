"""How a SuperLink and a SuperNode are started: the same in docker-compose.yml, on a machine of one's own, in tests."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.deploy.place import Place
from fl_sim.core.errors import ConfigError

FOLDER = "FL_SIM_CLIENT"
"""Names a client's folder to the ClientApp, which Flower starts for each message."""


@dataclass(frozen=True)
class Command:
    """A program of Flower's that takes this process's place."""

    arguments: Sequence[str]
    folder: Path  # in which it works
    environment: Mapping[str, str]

    def execute(self) -> None:
        """Does not return."""
        tools = Path(sys.executable).parent  # Flower starts its own helpers by name
        path = os.pathsep.join([str(tools), os.environ.get("PATH", os.defpath)])
        os.chdir(self.folder)
        os.execve(tools / self.arguments[0], list(self.arguments), {**os.environ, **self.environment, "PATH": path})


def superlink(place: Place, *, host: str, port: int, data_dir: Path | None, insecure: bool) -> Command:
    """The server; its ServerApp writes to ``place.runs``, and its database outlives it.

    Raises:
        ConfigError: There are no keys, and ``insecure`` was not asked for.
    """
    folder = place.server.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["flower-superlink", "--host", host, "--port", str(port), "--database", str(folder / "state.db")]
    arguments.append("--disable-runtime-dependency-installation")  # else Flower installs torch anew for each run
    if insecure:
        arguments.append("--insecure")
    else:
        _expect(folder / "server.key")
        arguments += ["--enable-supernode-auth", "--ssl-ca-certfile", str(folder / "ca.crt")]
        arguments += ["--ssl-certfile", str(folder / "server.pem"), "--ssl-keyfile", str(folder / "server.key")]
    environment = {"FLWR_HOME": str(folder / "flower")}
    if data_dir is not None:
        environment["FL_SIM_DATA"] = str(data_dir.absolute())
    return Command(arguments, place.path, environment)


def supernode(folder: Path, *, superlink: str, port: int | None, insecure: bool) -> Command:
    """A client, from its own folder alone.

    Args:
        superlink: HOST:PORT, by a name that is in the SuperLink's certificate.
        port: On loopback, for the ClientApp that Flower starts; 9094 plus the client's number where not given.

    Raises:
        ConfigError: ``folder`` is no client's, or has no key and ``insecure`` was not asked for.
    """
    folder = folder.absolute()
    _expect(folder / "client.json")
    about = json.loads((folder / "client.json").read_text())
    number, clients = about["client"], about["clients"]
    arguments = ["flower-supernode", "--superlink", superlink, "--port", str(port or 9094 + number)]
    arguments += ["--node-config", f"partition-id={number} num-partitions={clients}"]
    if insecure:
        arguments.append("--insecure")
    else:
        _expect(folder / "key")
        arguments += ["--root-certificates", str(folder / "ca.crt")]
        arguments += ["--auth-supernode-private-key", str(folder / "key")]
    return Command(arguments, folder, {"FLWR_HOME": str(folder / "flower"), FOLDER: str(folder)})


def _expect(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"expected {path}, it is not there: run `fl-sim deploy keys`, or try --insecure on one machine"
        )
