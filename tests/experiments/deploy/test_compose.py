"""docker-compose.yml as a reviewer of its security reads it, and how it is driven."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.deploy import compose, keys
from experiments.deploy.compose import ROOT, Compose
from experiments.deploy.place import Place
from fl_sim.core.errors import FlSimError

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].endswith(":-49999:49999}")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    assert not {"privileged", "network_mode", "pid"} & set(service)


def test_one_port_is_published_on_loopback() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:${FL_SIM_PORT:-8000}:8000"]


def test_a_client_mounts_its_own_folder_and_reaches_the_superlink_alone() -> None:
    client = SERVICES["supernode-0"]
    assert [volume.rpartition("}")[2] for volume in client["volumes"]] == ["/clients/0:/client"]
    assert client["networks"] == ["federation"]
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]
    assert networks["federation"] == {"internal": True}


@pytest.mark.parametrize("name", ["superlink", "supernode-0"])
def test_what_stays_up_is_watched(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][:4] == ["CMD", "python3", "-m", "experiments.deploy.health"]
    assert SERVICES[name]["restart"] in {"unless-stopped", "on-failure"}


def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> tuple[Compose, list[Any]]:
    """A deployment of three clients, and what docker compose would be told."""
    place, told = Place(tmp_path), list[Any]()
    keys.make(place, 3)

    class Done:
        returncode = code

    def run(command: list[str], **settings: Any) -> Done:
        told.append((command, settings.get("env")))
        return Done()

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(compose, "_program", lambda: ["compose"])
    return Compose(place, None, 8123, insecure=False, gpu=True), told


def test_each_client_is_a_container_with_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, told = driven(tmp_path, monkeypatch)
    drive("up", "-d")
    command, environment = told[0]
    files = [command[i + 1] for i, word in enumerate(command) if word == "-f"]
    assert [Path(path).name for path in files] == ["docker-compose.yml", "clients.compose.json", "gpu.yml"]
    others = json.loads(Path(files[1]).read_text())["services"]
    assert {name: one["volumes"] for name, one in others.items()} == {
        f"supernode-{i}": [f"{tmp_path}/clients/{i}:/client"] for i in (1, 2)
    }
    assert environment["FL_SIM_PORT"] == "8123"
    assert environment["FL_SIM_INSECURE"] == ""
    assert not environment["FL_SIM_USER"].startswith("0:")


def test_what_a_client_links_to_is_not_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root gives folders to the containers' user; a client that plants a link must not get what it points to."""
    drive, _ = driven(tmp_path / "place", monkeypatch)
    (secret := tmp_path / "secret").write_text("mine")
    (drive.place.client(0) / "data" / "link").symlink_to(secret)
    given = dict[Path, bool]()
    monkeypatch.setattr("os.getuid", lambda: 0)
    monkeypatch.setattr("os.chown", lambda path, *_, follow_symlinks=True: given.update({path: follow_symlinks}))
    drive.hand_over()
    assert given[drive.place.client(0) / "data" / "link"] is False
    assert secret not in given


def test_a_failure_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, _ = driven(tmp_path, monkeypatch, code=1)
    with pytest.raises(FlSimError, match="failed: what it said stands above"):
        drive("up", "-d")


def test_without_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FlSimError, match="fl-sim deploy supernode"):
        compose._program()
