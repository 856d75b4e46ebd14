"""The few calls to AWS that a node's agent makes, through botocore alone.

botocore is no requirement of the server (`requirements/aws.txt`), so it is imported here and late.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol, TypedDict, cast

from livefeed.errors import Misconfigured, Unavailable
from livefeed.node import Metric

CONNECT_SECONDS_MAX: Final = 3
READ_SECONDS_MAX: Final = 5
ATTEMPTS_MAX: Final = 3
"""Of one call; botocore waits between them, with jitter."""
DETAIL_CHARACTERS_MAX: Final = 500
METRICS_A_CALL_MAX: Final = 1_000
"""As many as CloudWatch takes."""


class _Dimension(TypedDict):
    Name: str
    Value: str


class _Datum(TypedDict):
    MetricName: str
    Dimensions: list[_Dimension]
    Value: float
    Unit: str


class _Groups(Protocol):
    """The client of `autoscaling`, as far as it is used."""

    def complete_lifecycle_action(
        self,
        *,
        AutoScalingGroupName: str,  # noqa: N803 - what AWS calls them
        LifecycleHookName: str,  # noqa: N803
        InstanceId: str,  # noqa: N803
        LifecycleActionResult: str,  # noqa: N803
    ) -> object: ...

    def record_lifecycle_action_heartbeat(
        self,
        *,
        AutoScalingGroupName: str,  # noqa: N803
        LifecycleHookName: str,  # noqa: N803
        InstanceId: str,  # noqa: N803
    ) -> object: ...


class _Metrics(Protocol):
    """The client of `cloudwatch`, as far as it is used."""

    def put_metric_data(
        self,
        *,
        Namespace: str,  # noqa: N803
        MetricData: list[_Datum],  # noqa: N803
    ) -> object: ...


class Hook:
    """The lifecycle action of one instance, at its group's termination hook.

    Args:
        clients: To AWS.
        group: Name of the autoscaling group.
        hook: Name of the hook.
        instance: Id of the instance.
    """

    def __init__(self, clients: Clients, *, group: str, hook: str, instance: str) -> None:
        self._groups: Final = cast("_Groups", clients.client("autoscaling"))
        self._group: Final = group
        self._hook: Final = hook
        self._instance: Final = instance

    async def heartbeat(self) -> None:
        """Keep the action waiting; raises Unavailable."""
        await _called(
            partial(
                self._groups.record_lifecycle_action_heartbeat,
                AutoScalingGroupName=self._group,
                LifecycleHookName=self._hook,
                InstanceId=self._instance,
            )
        )

    async def complete(self) -> None:
        """Let the group go on and end the instance; raises Unavailable."""
        await _called(
            partial(
                self._groups.complete_lifecycle_action,
                AutoScalingGroupName=self._group,
                LifecycleHookName=self._hook,
                InstanceId=self._instance,
                LifecycleActionResult="CONTINUE",
            )
        )


class MetricSink:
    """Where metrics go.

    Args:
        clients: To AWS.
        namespace: Of CloudWatch.
    """

    def __init__(self, clients: Clients, namespace: str) -> None:
        self._metrics: Final = cast("_Metrics", clients.client("cloudwatch"))
        self._namespace: Final = namespace

    async def put(self, metrics: Iterable[Metric]) -> None:
        """Publish figures of now; raises Unavailable."""
        data = [_datum(metric) for metric in metrics]
        for first in range(0, len(data), METRICS_A_CALL_MAX):
            part = data[first : first + METRICS_A_CALL_MAX]
            await _called(
                partial(self._metrics.put_metric_data, Namespace=self._namespace, MetricData=part)
            )


class Clients:
    """Makes clients for one region; credentials are those of the instance or the environment.

    Args:
        region: Of the instance.

    Raises:
        Misconfigured: When botocore is not installed.
    """

    def __init__(self, region: str) -> None:
        check_installed()
        from botocore.config import Config  # noqa: PLC0415 - as is said above
        from botocore.session import Session  # noqa: PLC0415

        self._region: Final = region
        self._session: Any = Session()
        self._config: Any = Config(
            connect_timeout=CONNECT_SECONDS_MAX,
            read_timeout=READ_SECONDS_MAX,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        )

    def client(self, service: str) -> object:
        """A client of a service; raises Unavailable."""
        try:
            made: object = self._session.create_client(
                service, region_name=self._region, config=self._config
            )
        except Exception as error:  # as for `_called`
            raise Unavailable("aws", f"no client of {service}: {error}") from error
        return made


def check_installed() -> None:
    """Find out at once that botocore is missing.

    Raises:
        Misconfigured: With what to do.
    """
    try:
        import botocore.session  # noqa: F401, PLC0415
    except ImportError as error:
        mend = "install requirements/aws.txt into livefeed's environment"
        raise Misconfigured(f"node-agent needs botocore, which is not installed: {mend}") from error


def region_of_environment() -> str | None:
    """The region that the environment names, as AWS's own tools read it."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


async def _called(call: Callable[[], object]) -> None:
    """Make a blocking call in a thread; it ends within its own bounds, about half a minute."""
    try:
        await asyncio.to_thread(call)
    except Exception as error:  # botocore's own have no one root, and none may end the agent
        raise Unavailable("aws", str(error)[:DETAIL_CHARACTERS_MAX]) from error


def _datum(metric: Metric) -> _Datum:
    return {
        "MetricName": metric.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions.items()],
        "Value": metric.value,
        "Unit": "Count",
    }
