"""The command `livefeed`: one module a command, imported when the command is used."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from livefeed import __version__
from livefeed.errors import LivefeedError

COMMANDS: Final = {
    "up": "livefeed.cli.up",
    "publish": "livefeed.cli.publish",
    "tail": "livefeed.cli.tail",
    "snapshot": "livefeed.cli.snapshot",
    "token": "livefeed.cli.token",
    "revoke": "livefeed.cli.revoke",
    "follow": "livefeed.cli.follow",
    "mute": "livefeed.cli.mute",
    "check": "livefeed.cli.check",
    "demo-history": "livefeed.cli.demo_history",
    "gateway": "livefeed.cli.gateway",
    "worker": "livefeed.cli.worker",
    "pool": "livefeed.cli.pool",
    "node-agent": "livefeed.cli.node_agent",
    "provision": "livefeed.cli.provision",
    "migrate": "livefeed.cli.migrate",
    "dlq": "livefeed.cli.dlq",
    "reconcile": "livefeed.cli.reconcile",
    "doctor": "livefeed.cli.doctor",
    "config": "livefeed.cli.config",
    "bench": "livefeed.cli.bench",
}
"""Each module has a click command named `command`."""


class _Group(click.Group):
    """Imports a command's module only when it is asked for: a worker must start fast."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="livefeed")
def cli() -> None:
    """Keep the feeds of many users current, in real time and without gaps.

    Settings come from the environment (LIVEFEED_…); a stack that `livefeed up` runs is found by
    itself.
    """


def main() -> None:
    """Run a command; an error of ours is one line, never a traceback."""
    try:
        code = cli(prog_name="livefeed", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LivefeedError as error:
        click.echo(f"livefeed: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        sys.exit(141)
