"""`livefeed revoke`: tokens that are good no more."""

from __future__ import annotations

import json

import click

from livefeed import subjects
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.postgres.revocations import add_revocation, read_revocations
from livefeed.cli.environment import command_settings
from livefeed.cli.parameters import ID
from livefeed.cli.running import reached_primary, run
from livefeed.cli.terminal import printable
from livefeed.control import Revoked, encode
from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import REVOCATION_READ_SECONDS, REVOCATION_SECONDS
from livefeed.moment import moment_text
from livefeed.revocation import Revocation, RevocationKind
from livefeed.settings import Settings

APPLICATION = "livefeed-revoke"
NATS_SECONDS_MAX = 3.0


@click.command("revoke")
@click.option("--user", type=ID, help="Whose tokens, as far as they were issued by now.")
@click.option("--token-id", type=ID, metavar="JTI", help="The one token with this `jti`.")
@click.option(
    "--for",
    "seconds",
    type=click.IntRange(1, 10 * 365 * 86_400),
    metavar="SECONDS",
    default=REVOCATION_SECONDS,
    show_default=True,
    help="How long: at least until the last of the tokens has run out.",
)
@click.option("--list", "listed", is_flag=True, help="Print what is revoked instead, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    user: str | None, token_id: str | None, seconds: int, *, listed: bool, as_json: bool
) -> None:
    """Revoke a user's tokens or one token: their connections are closed, and no new one opens."""
    if [user is not None, token_id is not None, listed].count(True) != 1:
        raise click.UsageError("give one of --user, --token-id and --list")
    if listed:
        run(_list(as_json=as_json))
        return
    kind: RevocationKind = "token" if user is None else "user"
    run(_revoke(kind, user or token_id or "", seconds, as_json=as_json))


async def _revoke(kind: RevocationKind, name: str, seconds: int, *, as_json: bool) -> None:
    settings = command_settings()
    async with reached_primary(settings, APPLICATION) as pool:
        revocation = await add_revocation(pool, kind, name, seconds=seconds)
    click.echo(_line(revocation, as_json=as_json))
    if not await _announced(settings, revocation):
        click.echo(
            "livefeed: nats is away; gateways will read it themselves within "
            f"{REVOCATION_READ_SECONDS:g} s",
            err=True,
        )


async def _announced(settings: Settings, revocation: Revocation) -> bool:
    """Tell the gateways; returns whether NATS took it."""
    try:
        connection = await connect(
            settings.nats_servers,
            name=APPLICATION,
            access=settings.nats_access,
            seconds_max=NATS_SECONDS_MAX,
        )
    except (Unavailable, Misconfigured):
        # It is in the table already: gateways read it there.
        return False
    try:
        return connection.send(subjects.CONTROL_REVOCATIONS, encode(Revoked([revocation])))
    finally:
        await close(connection)


async def _list(*, as_json: bool) -> None:
    async with reached_primary(command_settings(), APPLICATION) as pool:
        for one in (await read_revocations(pool)).revocations:
            click.echo(_line(one, as_json=as_json))


def _line(revocation: Revocation, *, as_json: bool) -> str:
    kind, name = revocation.kind, revocation.name
    since, until = (
        moment_text(round(at * 1_000_000)) for at in (revocation.revoked_at, revocation.until)
    )
    if as_json:
        return json.dumps({"kind": kind, "name": name, "revokedAt": since, "until": until})
    return f"{kind} {printable(name)} revoked {since} until {until}"
