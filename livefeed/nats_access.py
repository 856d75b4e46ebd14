"""How a process shows NATS who it is, and how it knows that it speaks with NATS.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsAccess:
    """One user of NATS; by default whoever needs to show nothing."""

    nkey_seed: str | None = field(default=None, repr=False)
    """The seed, or the path of a file with it."""
    inbox_prefix: str = "_INBOX"
    """Below which subject answers come."""
    ca_file: str | None = None
    """Path of the certificates to trust; None trusts those of the system."""


ANYBODY: Final = NatsAccess()
