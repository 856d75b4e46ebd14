"""What nats-py is told of who we are: the seed and the certificates are read here."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from livefeed.errors import Misconfigured
from livefeed.nats_access import NatsAccess


def access_options(access: NatsAccess) -> dict[str, Any]:
    """The options of a connect.

    Raises:
        Misconfigured: When the seed or the certificates cannot be read; without their text.
    """
    options: dict[str, Any] = {"inbox_prefix": access.inbox_prefix}
    if access.nkey_seed is not None:
        options["nkeys_seed_str"] = _seed(access.nkey_seed)
    if access.ca_file is not None:
        options["tls"] = _context(access.ca_file)
    return options


def _seed(given: str) -> str:
    """The seed itself, of which a seed or the path of a file was given."""
    name = "LIVEFEED_NATS_NKEY_SEED"
    try:
        seed = Path(given).read_text(encoding="ascii").strip() if "/" in given else given.strip()
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{name}: {given} cannot be read: {error}") from error
    # Only here: its cryptography takes a while to import, and a worker must start fast.
    import nkeys  # noqa: PLC0415

    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception as error:  # Its own kinds, and those of what it is made with.
        raise Misconfigured(f"{name} must be a seed (SU…), or the path of a file") from error
    return seed


def _context(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # Also of a file that holds none.
        raise Misconfigured(
            f"LIVEFEED_NATS_CA_FILE: {path} cannot be read as certificates: {error}"
        ) from error
