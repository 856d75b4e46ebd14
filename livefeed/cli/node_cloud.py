"""A node's way to AWS, made when it is first needed: an agent starts before the network does."""

from __future__ import annotations

from typing import Final

from livefeed.adapters.aws import Clients, Hook, MetricSink, region_of_environment
from livefeed.adapters.metadata import Metadata
from livefeed.errors import Misconfigured
from livefeed.node_settings import NodeSettings


class Cloud:
    """Calls to AWS for one node.

    Args:
        node: Names of the group, the hook and the namespace.
        metadata: Tells the region, where the environment does not, and who this node is.
    """

    def __init__(self, node: NodeSettings, metadata: Metadata) -> None:
        self._node: Final = node
        self._metadata: Final = metadata
        self._clients: Clients | None = None
        self._instance: str | None = None
        self._hook: Hook | None = None
        self._sink: MetricSink | None = None

    async def instance(self) -> str:
        """The id of this node; raises Unavailable."""
        if self._instance is None:
            self._instance = await self._metadata.instance_id()
        return self._instance

    async def hook(self) -> Hook:
        """The lifecycle action of this node; raises Unavailable."""
        if self._hook is None:
            group, name = self._node.autoscaling_group, self._node.lifecycle_hook
            if group is None or name is None:
                raise Misconfigured("there is no LIVEFEED_NODE_LIFECYCLE_HOOK")
            clients = await self._made_clients()
            self._hook = Hook(clients, group=group, hook=name, instance=await self.instance())
        return self._hook

    async def sink(self) -> MetricSink:
        """Where metrics go; raises Unavailable."""
        if self._sink is None:
            self._sink = MetricSink(await self._made_clients(), self._node.lag_namespace)
        return self._sink

    async def _made_clients(self) -> Clients:
        if self._clients is None:
            region = region_of_environment() or await self._metadata.region()
            self._clients = Clients(region)
        return self._clients
