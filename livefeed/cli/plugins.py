"""Code of whoever runs this livefeed, named by a setting as `package.module:function`."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from functions.audience import AudiencePage, AudienceResolver
from gateway.authorizer import Authorize
from livefeed.errors import Misconfigured
from livefeed.feed_source import FeedSource
from livefeed.limits import RESOLVE_SECONDS_MAX
from livefeed.settings import Settings


def audience_resolver(settings: Settings) -> AudienceResolver | None:
    """The resolver that the settings name; None where the table of follows is asked.

    Raises:
        Misconfigured: As for `load_function`.
    """
    if settings.audience_resolver is None:
        return None
    resolver = load_function(settings.audience_resolver, "LIVEFEED_AUDIENCE_RESOLVER")

    async def bounded(page: AudiencePage) -> Sequence[Any]:
        # The table of follows has the database's own timeouts; this has none but ours.
        async with asyncio.timeout(RESOLVE_SECONDS_MAX):
            users: Sequence[Any] = await resolver(page)
            return users

    return bounded


def authorize_function(settings: Settings) -> Authorize | None:
    """The authorizer that the settings name; None where the claim alone decides.

    Raises:
        Misconfigured: As for `load_function`.
    """
    if settings.authorizer is None:
        return None
    return load_function(settings.authorizer, "LIVEFEED_AUTHORIZER")


def feed_source(settings: Settings) -> FeedSource | None:
    """The feed source that the settings name; None where feeds are read from the log.

    Raises:
        Misconfigured: As for `load_function`.
    """
    if settings.feed_source is None:
        return None
    return load_function(settings.feed_source, "LIVEFEED_FEED_SOURCE")


def load_function(path: str, setting: str) -> Callable[..., Any]:
    """The function that a setting names.

    Raises:
        Misconfigured: Naming the setting, and why there is no such function.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise Misconfigured(f"{setting} must be package.module:function, and is {path!r}")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        # Whatever somebody else's module does when it is imported.
        detail = f"{setting}={path} cannot be imported: {type(error).__name__}: {error}"
        raise Misconfigured(f"{detail}; is it on PYTHONPATH?") from error
    if not callable(found):
        raise Misconfigured(f"{setting}={path} is no function")
    function: Callable[..., Any] = found
    return function
