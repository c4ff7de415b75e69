"""How the parts are started."""

from pathlib import Path

import pytest

from experiments.deploy import keys, parts
from experiments.deploy.place import Place
from fl_sim.core.errors import ConfigError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    keys.make(made, 2)
    return made


def words(command: parts.Command) -> str:
    return " ".join(command.arguments)


def test_tls_and_authentication_are_the_default(place: Place) -> None:
    server = words(parts.superlink(place, host="127.0.0.1", port=8000, data_dir=None, insecure=False))
    assert "--insecure" not in server
    assert "--enable-supernode-auth" in server
    assert f"--ssl-certfile {place.server}/server.pem" in server
    client = parts.supernode(place.client(1), superlink="superlink:8000", port=None, insecure=False)
    assert "--insecure" not in words(client)
    assert f"--auth-supernode-private-key {place.client(1)}/key" in words(client)
    assert "--node-config partition-id=1 num-partitions=2" in words(client)


def test_a_client_is_told_of_its_own_folder_alone(place: Place) -> None:
    client = parts.supernode(place.client(1), superlink="superlink:8000", port=None, insecure=False)
    own = str(place.client(1))
    assert client.environment[parts.FOLDER] == own
    assert all(word.startswith(own) for word in client.arguments if str(place.path) in word)
    assert "FL_SIM_DATA" not in client.environment


def test_insecure_has_to_be_asked_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add_client(0, 1)
    with pytest.raises(ConfigError, match=r"server\.key, it is not there"):
        parts.superlink(place, host="127.0.0.1", port=8000, data_dir=None, insecure=False)
    with pytest.raises(ConfigError, match="key, it is not there"):
        parts.supernode(place.client(0), superlink="localhost:8000", port=None, insecure=False)
    assert "--insecure" in parts.supernode(place.client(0), superlink="x:1", port=None, insecure=True).arguments


def test_a_folder_that_is_no_clients(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"client\.json, it is not there"):
        parts.supernode(tmp_path, superlink="localhost:8000", port=None, insecure=True)
