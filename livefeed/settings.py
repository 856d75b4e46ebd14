"""The settings: every one with its unit, its default and what happens at the limit.

They are read from the environment (prefix `LIVEFEED_`) once, by a `main`, and passed down as plain
values. `docs/operations/settings.md` is printed from here and compared by a test.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from livefeed.errors import Misconfigured
from livefeed.limits import LANE_MESSAGE_BYTES_MAX, MIB, WORKER_MEMORY_BYTES_MAX

SECRET_BYTES_MIN = 32


class Settings(BaseSettings):
    """All settings of all parts; each part uses what concerns it."""

    model_config = SettingsConfigDict(
        env_prefix="LIVEFEED_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, separated by commas.")
    nats_monitor_url: str | None = Field(
        None,
        description="HTTP monitoring address of the NATS server; `doctor` reads the real "
        "`sync_interval` there. Without it that check says that it could not be made.",
    )
    nats_replicas: int = Field(
        1, ge=1, le=3, description="Copies of each stream: 1 on one node, 3 on three."
    )
    stream_bytes_max: int = Field(
        4096 * MIB,
        ge=16 * LANE_MESSAGE_BYTES_MAX,
        description="Bytes of each of the two working streams; a full one refuses publishes.",
    )
    database_url: str = Field(
        "postgresql://livefeed@127.0.0.1:5432/livefeed",
        description="The Postgres primary: the log. With several hosts, and "
        "`target_session_attrs=read-write` behind them, a standby that is promoted is found.",
        repr=False,
    )
    replica_url: str | None = Field(
        None,
        description="A streaming replica; catch-up reads go there while it has what the primary "
        "has, else to the primary.",
        repr=False,
    )
    database_pool_connections: int = Field(
        8, ge=1, le=200, description="Connections to Postgres of one process; more calls wait."
    )
    database_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="The longest statement; longer ones fail and are tried again."
    )
    jwt_algorithm: Literal["HS256", "RS256", "EdDSA"] = Field(
        "HS256", description="The one algorithm that tokens may be signed with."
    )
    jwt_secret: str | None = Field(None, description="Key of HS256, at least 32 bytes.", repr=False)
    jwt_public_key: str | None = Field(
        None, description="Public key of RS256 or EdDSA: PEM, or the path of a file with it."
    )
    jwt_private_key: str | None = Field(
        None,
        description="Private key: PEM, or the path of a file; only `livefeed token` needs it.",
        repr=False,
    )
    jwt_audience: str | None = Field(None, description="The `aud` that a token must have.")
    jwt_issuer: str | None = Field(None, description="The `iss` that a token must have.")
    feeds_default: list[str] = Field(
        ["*"], description="JSON list of the feeds that a token without the claim `feeds` allows."
    )
    allowed_origins: list[str] = Field(
        [],
        description="JSON list of the origins whose pages may connect, or `*`; a page of another "
        "origin is refused with 403. A client without an `Origin` header is no browser.",
    )
    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway.")
    ops_port: int = Field(8081, ge=0, le=65535, description="Port of /healthz and /readyz.")
    ops_host: str = Field("127.0.0.1", description="Address of /healthz and /readyz.")
    drain_seconds: float = Field(
        5.0, ge=0, le=600, description="Over how long a leaving gateway sends its clients away."
    )
    window_medium_seconds: float = Field(
        5.0, ge=0, le=20, description="How long a busy medium lane gathers."
    )
    window_low_seconds: float = Field(
        15.0, ge=0, le=20, description="How long a busy low lane gathers."
    )
    lane_function: str = Field(
        "livefeed.priority:lane_of",
        description="`package.module:function` that says how soon a recipient gets an update and "
        "whether devices are told, with the signature of the default.",
    )
    audience_resolver: str | None = Field(
        None,
        description="`package.module:function` (async) that names the followers of an actor page "
        "by page; without it they are those of the table `feed_follow`.",
    )
    worker_processes_max: int = Field(
        1,
        ge=1,
        le=64,
        description="Most workers of each function that this pool runs for high, and as many for "
        "medium and low.",
    )
    worker_idle_seconds: float = Field(
        20.0, gt=0, description="A worker without work leaves after this."
    )
    worker_life_seconds: float = Field(
        300.0, gt=0, description="A worker leaves at this age; its successor is started first."
    )
    worker_memory_bytes_max: int = Field(
        WORKER_MEMORY_BYTES_MAX,
        ge=64 * MIB,
        description="A worker whose memory grew above this leaves, and the pool starts another.",
    )
    retain_seconds: float = Field(
        60.0,
        ge=0,
        description="How often the pool trims the log and purges the streams; 0 is never, and then "
        "full streams refuse publishes. Every 10 minutes while no message is handled.",
    )

    stream_keep_seconds: float = Field(
        3600.0,
        ge=0,
        description="How long FEED_UPDATES keeps what was handled, so that it can be brought back "
        "after a restore of Postgres; a stream that is half full keeps nothing. 0 is not at all.",
    )

    @cached_property
    def nats_servers(self) -> list[str]:
        """The NATS servers one by one."""
        return [server.strip() for server in self.nats_url.split(",")]

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.jwt_algorithm == "HS256":
            secret = self.jwt_secret
            if secret is not None and len(secret.encode()) < SECRET_BYTES_MIN:
                raise ValueError(f"LIVEFEED_JWT_SECRET must have at least {SECRET_BYTES_MIN} bytes")
        elif self.jwt_public_key is None and self.jwt_private_key is None:
            raise ValueError(f"{self.jwt_algorithm} needs LIVEFEED_JWT_PUBLIC_KEY")
        if self.nats_replicas == 2:
            raise ValueError("LIVEFEED_NATS_REPLICAS is 1 on one node, 3 on three")
        if self.worker_idle_seconds > self.worker_life_seconds:
            raise ValueError(
                "LIVEFEED_WORKER_IDLE_SECONDS must not exceed LIVEFEED_WORKER_LIFE_SECONDS"
            )
        for name, url in (("DATABASE", self.database_url), ("REPLICA", self.replica_url)):
            if url is not None and urlsplit(url).scheme not in {"postgresql", "postgres"}:
                raise ValueError(f"LIVEFEED_{name}_URL must start with postgresql://")
        return self


def load_settings(**overrides: object) -> Settings:
    """The settings of the environment.

    Raises:
        Misconfigured: Naming each wrong setting, without its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"LIVEFEED_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            if fault["loc"]
            else str(fault["msg"]).removeprefix("Value error, ")
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise Misconfigured("; ".join(lines)) from error
