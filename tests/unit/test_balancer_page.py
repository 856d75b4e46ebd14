"""What docs/operations/balancer.md and haproxy.cfg say holds with the defaults of the code."""

import re
from pathlib import Path

from livefeed import limits
from livefeed.protocol import HEARTBEAT_SECONDS
from livefeed.settings import Settings
from livefeed.shedding import ShedPolicy

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations"
CONFIGURATION = (OPERATIONS / "haproxy.cfg").read_text(encoding="utf-8")
PAGE = (OPERATIONS / "balancer.md").read_text(encoding="utf-8")


def configured(pattern: str) -> float:
    """The one number that a pattern finds in the configuration."""
    (found,) = re.findall(pattern, CONFIGURATION)
    return float(found)


def default(setting: str) -> float:
    """The default of a setting."""
    return float(Settings.model_fields[setting].default)


def test_the_balancer_notices_before_clients_are_sent_away() -> None:
    """A client that comes back is not given to the gateway that it comes from."""
    notices = configured(r"inter ([0-9]+)s") * configured(r"fall ([0-9]+)")
    assert notices < default("drain_wait_seconds")


def test_quiet_connections_are_not_cut() -> None:
    """Two pings may be lost before the balancer takes a connection for a dead one."""
    assert configured(r"timeout tunnel ([0-9]+)s") > 3 * HEARTBEAT_SECONDS


def test_the_page_has_the_codes_numbers() -> None:
    """Thresholds and bounds as they are."""
    policy = ShedPolicy()
    assert policy.begin_share == default("shed_share")
    for text in (
        f"more than {1 + policy.begin_share:g} times the\nmean",
        f"until it has {1 + policy.end_share:g} times the mean",
        f"at most {policy.share_a_second:.0%} of them\na second".replace("%", " %"),
        f"the {default('connections_per_address_max') + 1:,.0f}st of them",
        f"| {limits.RECONNECT_SPREAD_SECONDS:g} s, its handshake",
        f"| {4 * limits.SESSIONS_SECONDS:g} s | `SESSIONS_SECONDS`",
        f"at once; {limits.REVOCATION_READ_SECONDS:g} s when the announcement was lost",
        f"| {default('connection_age_seconds_max') / 3600:g} h |",
        f"`LIVEFEED_DRAIN_WAIT_SECONDS={default('drain_wait_seconds'):g}`, the default",
    ):
        assert text in PAGE, text
