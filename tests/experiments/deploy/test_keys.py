"""Keys and certificates: who trusts whom, and who may read what."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from experiments.deploy import keys
from experiments.deploy.place import Place
from fl_sim.core.errors import ConfigError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    keys.make(made, 2, ["aggregator.example"])
    return made


def handshake(place: Place, host: str, ca: Path) -> None:
    """A TLS connection to the SuperLink's certificate, by a client that trusts ``ca`` and means ``host``."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(place.server / "server.pem", place.server / "server.key")
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "superlink", "aggregator.example"])
def test_clients_know_the_superlink_by_its_names(place: Place, host: str) -> None:
    handshake(place, host, place.client(0) / "ca.crt")


def test_another_name_is_refused(place: Place) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(place, "elsewhere.example", place.ca)


def test_another_authority_is_refused(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    keys.make(other, 1)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(place, "localhost", other.ca)


def test_private_keys_are_for_their_owner(place: Place) -> None:
    private = [place.authority / "ca.key", place.server / "server.key", *place.path.glob("clients/*/key")]
    assert len(private) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)
    folders = [place.server, place.client(0), place.client(1)]
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in folders)  # images, Flower's database


def test_a_client_has_a_key_of_its_own_and_nobody_elses(place: Place) -> None:
    pairs = [(place.client(i) / "key", place.client(i) / "key.pub") for i in range(2)]
    for private, public in pairs:
        mine = load_ssh_private_key(private.read_bytes(), None).public_key()
        assert mine == load_ssh_public_key(public.read_bytes())
    assert pairs[0][1].read_bytes() != pairs[1][1].read_bytes()
    assert {path.name for path in place.client(0).iterdir()} == {"client.json", "ca.crt", "key", "key.pub", "data"}


def test_more_clients_leave_those_there_are(place: Place) -> None:
    before, ca = (place.client(1) / "key").read_bytes(), place.ca.read_bytes()
    keys.make(place, 3)
    assert (place.client(1) / "key").read_bytes() == before
    assert place.ca.read_bytes() == ca
    assert place.clients() == 3
    handshake(place, "aggregator.example", place.client(0) / "ca.crt")
    handshake(place, "localhost", place.client(2) / "ca.crt")


def test_no_clients(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fl-sim deploy keys"):
        Place(tmp_path).clients()
