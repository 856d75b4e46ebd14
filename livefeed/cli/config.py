"""`livefeed config`: the settings in force."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click

from livefeed.cli.environment import command_settings
from livefeed.node_settings import NodeSettings, load_node_settings
from livefeed.settings import Settings

SECRETS = {"jwt_secret", "jwt_private_key", "nats_nkey_seed"}
SECRET_PARAMETER = re.compile(r"(?i)((?:^|&)[^=&]*password=)[^&]*")
URLS = {"nats_url", "database_url", "replica_urls", "redis_url"}


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(*, as_json: bool) -> None:
    """Show every setting with its value, its variable and its meaning; secrets are not shown."""
    settings, node = command_settings(), load_node_settings()
    values = {name: _shown(name, getattr(settings, name)) for name in Settings.model_fields}
    values |= {f"node_{name}": getattr(node, name) for name in NodeSettings.model_fields}
    if as_json:
        click.echo(json.dumps(values, indent=1))
        return
    fields = dict(Settings.model_fields)
    fields |= {f"node_{name}": field for name, field in NodeSettings.model_fields.items()}
    for name, field in fields.items():
        click.secho(f"LIVEFEED_{name.upper()}={values[name]}", bold=True)
        click.echo(
            click.wrap_text(field.description or "", initial_indent="  ", subsequent_indent="  ")
        )


def _shown(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in SECRETS:
        return "(set)"
    if name not in URLS:
        return value
    if name == "nats_url":
        return ",".join(_without_token(server) for server in value.split(","))
    if isinstance(value, list):
        return [_without_password(url) for url in value]
    return _without_password(value)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    query = SECRET_PARAMETER.sub(r"\1***", parts.query)
    netloc = _hidden(parts.netloc)
    if (netloc, query) == (parts.netloc, parts.query):
        return url
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def _without_token(server: str) -> str:
    """Of one NATS server, where a name without a password is a token."""
    scheme, there, rest = server.strip().rpartition("://")
    return f"{scheme}{there}{_hidden(rest, name_is_secret=True)}"


def _hidden(place: str, *, name_is_secret: bool = False) -> str:
    """`name:password@host` without the password, and without a name that stands for one."""
    who, at, host = place.rpartition("@")
    name, colon, _ = who.partition(":")
    if colon:
        return f"{name}:***@{host}"
    return f"***@{host}" if at and name_is_secret else place
