"""The folder of a deployment: a subfolder for each party, and nothing of one in another's.

PLACE/
  authority/   ca.key ca.crt                        signs; stays where ``fl-sim deploy keys`` was run
  server/      ca.crt server.pem server.key         the SuperLink's, with its database
  clients/0/   client.json ca.crt key key.pub data/ a SuperNode's: all that its machine gets
  runs/NAME/                                        run folders; the server writes them
"""

import json
from dataclasses import dataclass
from pathlib import Path

from fl_sim.core.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where the parts of a deployment are."""

    path: Path

    @property
    def authority(self) -> Path:
        return self.path / "authority"

    @property
    def server(self) -> Path:
        return self.path / "server"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def ca(self) -> Path:
        """Whom everybody trusts; absent where ``fl-sim deploy keys`` has not been run."""
        return self.authority / "ca.crt"

    def client(self, number: int) -> Path:
        return self.path / "clients" / str(number)

    def clients(self) -> int:
        """How many have a folder.

        Raises:
            ConfigError: None has.
        """
        found = sum(1 for _ in self.path.glob("clients/*/client.json"))
        if not found:
            raise ConfigError(f"expected clients in {self.path}, got none: run `fl-sim deploy keys --clients N` first")
        return found

    def add_client(self, number: int, clients: int) -> None:
        """Its folder, with what it has to know of itself."""
        folder = self.client(number)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "client.json").write_text(json.dumps({"client": number, "clients": clients}) + "\n")
