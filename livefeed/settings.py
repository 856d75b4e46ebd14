"""The settings: every one with its unit, its default and what happens at the limit.

They are read from the environment (prefix `LIVEFEED_`) once, by a `main`, and passed down as plain
values. `docs/operations/settings.md` is printed from here and compared by a test.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import ip_network
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from livefeed.admission import Network
from livefeed.errors import Misconfigured
from livefeed.limits import (
    CACHE_FRESH_SECONDS_MAX,
    CACHE_MEMORY_BYTES_MAX,
    CACHE_MEMORY_FRESH_SECONDS,
    LANE_MESSAGE_BYTES_MAX,
    LOAD_SAMPLE_SECONDS,
    MIB,
    REPLICAS_MAX,
    WORKER_MEMORY_BYTES_MAX,
)
from livefeed.load import with_bounds
from livefeed.nats_access import NatsAccess
from livefeed.redis_url import check_redis_url
from livefeed.settings_checks import check_database_urls, check_key_source, check_page_seconds

SECRET_BYTES_MIN = 32


class Settings(BaseSettings):
    """All settings of all parts; each part uses what concerns it."""

    model_config = SettingsConfigDict(
        env_prefix="LIVEFEED_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, separated by commas.")
    nats_nkey_seed: str | None = Field(
        None,
        description="Seed of the NKEY that NATS knows this process by, or the path of a file with "
        "it. A server without roles asks for none.",
        repr=False,
    )
    nats_inbox_prefix: str = Field(
        "_INBOX",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Below which subject answers of NATS come; a role has one that no other may "
        "read, such as `_INBOX_gateway`.",
    )
    nats_ca_file: str | None = Field(
        None,
        description="Path of the certificates that NATS servers' must be signed by, for `tls://`; "
        "without it those that the system trusts.",
    )
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
    replica_urls: list[str] = Field(
        [],
        max_length=REPLICAS_MAX,
        description=f"JSON list of up to {REPLICAS_MAX} streaming replicas, a server each; "
        "catch-up reads go to those that have what the primary has, else to the primary.",
        repr=False,
    )
    database_pool_connections: int = Field(
        8,
        ge=1,
        le=200,
        description="Connections of one process to each Postgres server; more calls wait. A "
        "gateway with replicas has one more to each, to look how far it is; one with a feed source "
        "as many again for it.",
    )
    database_wait_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="How long a call waits for one of them; then it fails and is tried again. "
        "Less than `LIVEFEED_DATABASE_TIMEOUT_SECONDS`.",
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
    jwks_url: str | None = Field(
        None,
        description="Where the public keys of RS256 or EdDSA are, as a JWKS, in place of "
        "`LIVEFEED_JWT_PUBLIC_KEY`: https, http on the loopback, or the path of a file. They are "
        "read again every 5 minutes, and for a `kid` that is new; kept for a day while their "
        "server is away.",
    )
    jwt_audience: str | None = Field(None, description="The `aud` that a token must have.")
    jwt_issuer: str | None = Field(None, description="The `iss` that a token must have.")
    token_grace_seconds: float = Field(
        25.0,
        ge=0,
        le=300,
        description="How long a connection whose token ran out may still bring a new one; then it "
        "is closed with 4001.",
    )
    authorizer: str | None = Field(
        None,
        description="`package.module:function` (async) of a user id and a feed that says, beside "
        "the claim, whether the user may follow the feed; its answer is believed for 30 s. When it "
        "fails or takes longer than 2 s nobody may, and is told to try again.",
    )
    feeds_default: list[str] = Field(
        ["*"], description="JSON list of the feeds that a token without the claim `feeds` allows."
    )
    allowed_origins: list[str] = Field(
        [],
        description="JSON list of the origins whose pages may connect, or `*`; a page of another "
        "origin is refused with 403. A client without an `Origin` header is no browser.",
    )
    snapshot_fresh_seconds: float = Field(
        CACHE_MEMORY_FRESH_SECONDS,
        ge=0,
        le=CACHE_FRESH_SECONDS_MAX,
        description="How long a page of a feed is fresh in a gateway's memory; in the cache that "
        "gateways share five times as long. However old it is, the stream goes on from it. 0 makes "
        "each page anew, and keeps the last one for when that fails.",
    )
    cache_memory_bytes_max: int = Field(
        CACHE_MEMORY_BYTES_MAX,
        ge=1 * MIB,
        description="Bytes of pages that a gateway process keeps; what was not asked for longest "
        "goes first.",
    )
    redis_url: str | None = Field(
        None,
        description="A Redis that gateways share pages in, in the place of a bucket of NATS: "
        "`redis://user:password@host:6379/0`, `rediss://` with TLS, `unix:///path?db=0`; see "
        "docs/caching.md.",
        repr=False,
    )
    feed_source: str | None = Field(
        None,
        description="`package.module:function` (async) that ranks feeds in place of the log for "
        "`GET /v1/feeds/{feed}`; see docs/feed-sources.md.",
    )
    feed_source_pages_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="How long pages of a feed source that is costly are fresh in the database, "
        "where every gateway finds them: 3600 is an hour. 0 keeps none there. More than five times "
        "`LIVEFEED_SNAPSHOT_FRESH_SECONDS`, for which they are fresh without it.",
    )
    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_wire: Literal["guarded", "stock"] = Field(
        "guarded",
        description="`stock` serves with uvicorn as it is: with twice the CPU for a message, and "
        "without the guards against clients that attack; to compare, or where a proxy guards.",
    )
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway.")
    ops_port: int = Field(8081, ge=0, le=65535, description="Port of /healthz and /readyz.")
    ops_host: str = Field("127.0.0.1", description="Address of /healthz and /readyz.")
    trusted_proxies: list[str] = Field(
        [],
        description="JSON list of the networks of your own proxies, such as `10.0.0.0/8`. Only "
        "their `X-Forwarded-For` is believed; without it all clients of a proxy have its address.",
    )
    connections_max: int = Field(
        20_000,
        ge=1,
        description="Connections of one gateway; more are refused with 503 `full`. Each takes "
        "about 30 KiB and a file descriptor: the gateway takes all that the hard limit of open "
        "files gives, and warns at the start when that is not 100 more than this.",
    )
    connections_per_address_max: int = Field(
        1_000,
        ge=1,
        description="Connections to one gateway from one address, or from one /64 of IPv6; more "
        "are refused with 429 `too_many_connections`. Those over loopback are not counted.",
    )
    connections_per_user_max: int = Field(
        20,
        ge=1,
        description="Connections of one user to all gateways together; when one more comes, the "
        "oldest is closed with 4504.",
    )
    connection_age_seconds_max: float = Field(
        43_200.0,
        ge=1,
        description="At about this age a connection is sent away to come back: so the clients "
        "spread over gateways that came later.",
    )
    accepts_a_second: float = Field(
        2_000.0,
        gt=0,
        description="Connections that one gateway accepts in a second, and five times as many at "
        "once; more are refused with 503 `busy`.",
    )
    drain_wait_seconds: float = Field(
        3.0,
        ge=0,
        le=600,
        description="How long a leaving gateway is not ready, and refuses with 503 `draining`, "
        "before it sends its clients away: until your balancer has noticed.",
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=600, description="Over how long a leaving gateway sends its clients away."
    )
    shed_share: float = Field(
        0.25,
        ge=0,
        description="A gateway with this much more than the fleet's mean of connections sends some "
        "of its clients away; 0 is never.",
    )
    shed_connections_min: int = Field(
        100, ge=0, description="A gateway with no more connections than this sends none away."
    )
    gateway_workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that share the gateway's port. The first answers /healthz on the "
        "ops port, each further one on the next port.",
    )
    gateway_memory_bytes_max: int | None = Field(
        None,
        ge=64 * MIB,
        description="Memory of all processes of the gateway, against which the load level is "
        "measured; by default the limit of the container, else the memory of the computer.",
    )
    load_thresholds: dict[str, tuple[float | None, float | None]] = Field(
        {},
        description="JSON object of thresholds of the load level that replace the usual ones: "
        'input → [elevated, critical], null for never, such as `{"cpu": [0.7, null]}`.',
    )
    load_sample_seconds: float = Field(
        LOAD_SAMPLE_SECONDS,
        ge=0.01,
        le=10,
        description="How often a gateway takes a sample of its load; the steps count samples.",
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

    @property
    def nats_access(self) -> NatsAccess:
        """How this process shows NATS who it is, and knows NATS."""
        return NatsAccess(
            nkey_seed=self.nats_nkey_seed,
            inbox_prefix=self.nats_inbox_prefix,
            ca_file=self.nats_ca_file,
        )

    @cached_property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks of our own proxies."""
        return tuple(map(ip_network, self.trusted_proxies))

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.jwt_algorithm == "HS256":
            secret = self.jwt_secret
            if secret is not None and len(secret.encode()) < SECRET_BYTES_MIN:
                raise ValueError(f"LIVEFEED_JWT_SECRET must have at least {SECRET_BYTES_MIN} bytes")
            if self.jwks_url is not None:
                raise ValueError("LIVEFEED_JWKS_URL has public keys: use it with RS256 or EdDSA")
        elif not (self.jwt_public_key or self.jwt_private_key or self.jwks_url):
            raise ValueError(
                f"{self.jwt_algorithm} needs LIVEFEED_JWT_PUBLIC_KEY or LIVEFEED_JWKS_URL"
            )
        if self.jwks_url is not None:
            check_key_source(self.jwks_url, has_public_key=self.jwt_public_key is not None)
        try:
            with_bounds(self.load_thresholds)
        except ValueError as error:
            raise ValueError(f"LIVEFEED_LOAD_THRESHOLDS: {error}") from error
        if self.nats_replicas == 2:
            raise ValueError("LIVEFEED_NATS_REPLICAS is 1 on one node, 3 on three")
        if self.worker_idle_seconds > self.worker_life_seconds:
            raise ValueError(
                "LIVEFEED_WORKER_IDLE_SECONDS must not exceed LIVEFEED_WORKER_LIFE_SECONDS"
            )
        self._check_servers()
        check_page_seconds(kept=self.feed_source_pages_seconds, fresh=self.snapshot_fresh_seconds)
        try:
            list(map(ip_network, self.trusted_proxies))
        except ValueError as error:
            raise ValueError(f"LIVEFEED_TRUSTED_PROXIES: {error}") from error
        return self

    def _check_servers(self) -> None:
        if self.redis_url is not None:
            try:
                check_redis_url(self.redis_url)
            except ValueError as error:
                raise ValueError(f"LIVEFEED_REDIS_URL {error}") from error
        check_database_urls(self.database_url, self.replica_urls)
        if self.database_wait_seconds >= self.database_timeout_seconds:
            # Else who waits for a connection has no time left to use it.
            raise ValueError(
                "LIVEFEED_DATABASE_WAIT_SECONDS must be less than LIVEFEED_DATABASE_TIMEOUT_SECONDS"
            )


def load_settings(**overrides: object) -> Settings:
    """The settings of the environment.

    Raises:
        Misconfigured: Naming each wrong setting, without its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise Misconfigured(faults_of(error, "LIVEFEED_")) from error


def faults_of(error: ValidationError, prefix: str) -> str:
    """Each wrong setting with its variable, and without its value."""
    return "; ".join(
        f"{prefix}{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
        if fault["loc"]
        else str(fault["msg"]).removeprefix("Value error, ")
        for fault in error.errors(include_input=False, include_url=False)
    )
