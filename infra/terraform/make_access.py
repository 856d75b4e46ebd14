"""Makes what NATS, Postgres and their clients know each other by: keys, certificates, a password.

    .venv/bin/python infra/terraform/make_access.py DIRECTORY --name livefeed-prod

What is secret goes into files that only their owner reads, below DIRECTORY/secret; what is public
goes into DIRECTORY/nats.tfvars.json, to be committed as envs/ENVIRONMENT.nats.tfvars.json. Then
it says how to put the secrets into Secrets Manager. Nothing is overwritten: to rotate, name another
directory.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES: Final = tuple(
    role["name"]
    for role in json.loads(Path(__file__).with_name("contract.json").read_text())["nats"]["roles"]
)
DATABASE_USER: Final = "livefeed"
CA_DAYS: Final = 3650
SERVER_DAYS: Final = 825
"""What most libraries take for a server's certificate at most."""


class Signed(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make everything, and say what to do with it."""
    options = _options(arguments)
    secret = options.directory / "secret"
    try:
        secret.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        print(f"make_access: {secret} is there already; name another directory", file=sys.stderr)
        return 1
    seeds = {role: _seed() for role in ROLES}
    ca = certificate_authority(options.name)
    server = server_certificate(ca, options.domain)
    for role, (seed, _) in seeds.items():
        _write(secret / f"nats-{role}", seed)
    pair = {"certificate": server.certificate_pem, "key": server.key_pem}
    _write(secret / "nats-tls", json.dumps(pair))
    _write(secret / "nats-ca-key.pem", ca.key_pem)
    login = {"username": DATABASE_USER, "password": secrets.token_urlsafe(32)}
    _write(secret / "database", json.dumps(login))
    public = {
        "nats_public_keys": {role: key for role, (_, key) in seeds.items()},
        "nats_ca_certificate": ca.certificate_pem,
    }
    tfvars = options.directory / "nats.tfvars.json"
    tfvars.write_text(json.dumps(public, indent=2) + "\n")
    _say(options.name, secret, tfvars)
    return 0


def certificate_authority(name: str) -> Signed:
    """A CA for the servers of one deployment alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} NATS")])
    builder = _certificate(subject, subject, key, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Signed(builder.sign(key, hashes.SHA256()), key)


def server_certificate(ca: Signed, domain: str) -> Signed:
    """A certificate for all servers: each shows it to clients, and to the other servers."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"nats.{domain}")])
    builder = _certificate(subject, ca.certificate.subject, key, SERVER_DAYS)
    # A person comes through a forwarded port, which is on the loopback.
    names = [x509.DNSName(f"*.{domain}"), x509.DNSName("localhost")]
    address = x509.IPAddress(ip_address("127.0.0.1"))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        builder.add_extension(x509.SubjectAlternativeName([*names, address]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return Signed(builder.sign(ca.key, hashes.SHA256()), key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _seed() -> tuple[str, str]:
    """A user's seed and its public key."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(bytearray(seed))
    return seed.decode(), pair.public_key.decode()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _say(name: str, secret: Path, tfvars: Path) -> None:
    print(f"public: {tfvars}; commit it as envs/ENVIRONMENT.nats.tfvars.json\n")
    print("When Terraform has made the entries:\n")
    for entry in ("database", *(f"nats/{part}" for part in (*ROLES, "tls"))):
        print(
            f"  aws secretsmanager put-secret-value --secret-id {name}/{entry} "
            f"--secret-string file://{secret / entry.replace('/', '-')}"
        )
    kept = secret / "nats-ca-key.pem"
    print(f"\nKeep {kept} where no server is, and delete the rest of {secret}.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make keys, certificates and a password.")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where they go")
    parser.add_argument("--name", required=True, help="the deployment, as in its variable name")
    parser.add_argument("--domain", default="livefeed.internal", help="network.domain of it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
