"""The settings of `livefeed node-agent`, and where the processes of a node are found.

Read from the environment (prefix `LIVEFEED_NODE_`) beside those of `livefeed.settings`.
"""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from livefeed.errors import Misconfigured
from livefeed.node import Policy
from livefeed.settings import faults_of

Role = Literal["gateway", "workers", "nats"]


class NodeSettings(BaseSettings):
    """All settings of a cloud node's agent."""

    model_config = SettingsConfigDict(env_prefix="LIVEFEED_NODE_", frozen=True, extra="ignore")

    role: Role = Field(
        "gateway",
        description="What runs on this node. `gateway` and `workers` have a process that is "
        "drained when the node is to end, and a gateway's connections are published; `nats` has "
        "the lag published, for a node of NATS is there when no worker is.",
    )
    lock_file: str | None = Field(
        None,
        description="Path of a file that `gateway` and `pool` lock while they run; the kernel "
        "tells `node-agent` who holds the lock, and that one is told to leave. Give both the same.",
    )
    autoscaling_group: str | None = Field(None, description="Name of the node's autoscaling group.")
    lifecycle_hook: str | None = Field(
        None,
        description="Name of the group's hook for `autoscaling:EC2_INSTANCE_TERMINATING`, which "
        "is completed when the process has ended; without it nothing is completed.",
    )
    metadata_url: str = Field(
        "http://169.254.169.254",
        description="The instance metadata service; version 2 alone is spoken.",
    )
    poll_seconds: float = Field(
        2.0, ge=0.05, le=60, description="How often it is asked whether the node is to end."
    )
    deadline_seconds: float = Field(
        110.0,
        ge=1,
        le=7_200,
        description="How long the process may take to leave; then the lifecycle action is "
        "completed all the same. On a spot node never later than 5 s before it is taken back.",
    )
    heartbeat_seconds: float = Field(
        30.0,
        ge=0.05,
        le=3_600,
        description="How often the lifecycle action is kept waiting meanwhile; half of the hook's "
        "own timeout or less.",
    )
    drain_on_rebalance: bool = Field(
        False,
        description="Drain as soon as the cloud says that it may take a spot node back. Not with "
        "a group that replaces such nodes itself: it ends them when their successors serve.",
    )
    lag_namespace: str = Field(
        "Livefeed",
        min_length=1,
        max_length=255,
        description="CloudWatch namespace of the metrics `Lag` and `Connections`.",
    )
    metrics_seconds: float = Field(
        15.0, ge=0.05, le=300, description="How often they are published."
    )

    @property
    def policy(self) -> Policy:
        """What the settings ask of the agent."""
        return Policy(
            self.deadline_seconds,
            self.heartbeat_seconds,
            self.drain_on_rebalance,
            has_hook=self.lifecycle_hook is not None,
        )

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.lifecycle_hook is not None and self.autoscaling_group is None:
            raise ValueError("LIVEFEED_NODE_LIFECYCLE_HOOK needs LIVEFEED_NODE_AUTOSCALING_GROUP")
        url = urlsplit(self.metadata_url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("LIVEFEED_NODE_METADATA_URL must be an http URL")
        return self


def load_node_settings() -> NodeSettings:
    """The settings of the environment.

    Raises:
        Misconfigured: Naming each wrong setting, without its value.
    """
    try:
        return NodeSettings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        raise Misconfigured(faults_of(error, "LIVEFEED_NODE_")) from error
