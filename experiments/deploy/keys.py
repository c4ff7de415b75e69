"""Who is who: an authority, the SuperLink's certificate, and a key for each SuperNode."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from experiments.deploy.place import Place

HOSTS = ("localhost", "127.0.0.1", "superlink")
"""By which a SuperLink is always reached: on its own machine, and inside docker-compose.yml."""

_NAME = "fl-sim deployment"
_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def make(place: Place, clients: int, hosts: Sequence[str] = (), days: int = 365) -> None:
    """What is missing for ``clients`` SuperNodes; keys that are there stay, the SuperLink's certificate is renewed.

    Args:
        hosts: Names and addresses, beside ``HOSTS`` and those it had, by which SuperNodes reach the SuperLink.
        days: For which the certificates hold.
    """
    place.server.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = _authority(place, days)
    _certify(place.server, signer, [*HOSTS, *_hosts(place.server / "server.pem"), *hosts], days)
    trusted = place.ca.read_bytes()
    (place.server / "ca.crt").write_bytes(trusted)
    for number in range(clients):
        place.add_client(number, clients)
        (place.client(number) / "ca.crt").write_bytes(trusted)
        _client_key(place.client(number))


def _authority(place: Place, days: int) -> EllipticCurvePrivateKey:
    """The key that signs; made where there is none."""
    path = place.authority / "ca.key"
    if path.exists():
        found = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(found, EllipticCurvePrivateKey)
        return found
    key = generate_private_key(SECP384R1())
    certificate = (
        _unsigned(_NAME, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, SHA384())
    )
    _write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    place.ca.write_bytes(certificate.public_bytes(Encoding.PEM))
    return key


def _hosts(path: Path) -> list[str]:
    """By which the certificate that is there lets itself be reached."""
    if not path.exists():
        return []
    names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(name.value) for name in names.value]


def _certify(folder: Path, signer: EllipticCurvePrivateKey, hosts: Sequence[str], days: int) -> None:
    """A certificate for the SuperLink; clients check that the name they used is in it."""
    key = generate_private_key(SECP384R1())
    certificate = (
        _unsigned("SuperLink", key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in dict.fromkeys(hosts)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, SHA384())
    )
    _write_private(folder / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def _unsigned(subject: str, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(_NAME))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _client_key(folder: Path) -> None:
    """As Flower reads them: an elliptic curve of NIST's, in OpenSSH's format."""
    if (folder / "key").exists():
        return
    key = generate_private_key(SECP384R1())
    (folder / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    _write_private(folder / "key", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in allowed for use in _USES})


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write_private(path: Path, content: bytes) -> None:
    """For nobody but its owner, from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
