"""What an instance is told when it starts: its scripts, its units, its settings, its secrets."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from livefeed.cli.main import COMMANDS
from livefeed.limits import REPLICAS_MAX
from livefeed.node_settings import NodeSettings, load_node_settings
from livefeed.settings import Settings, load_settings
from tests.infra.checks import passes, tool
from tests.infra.rendered import Instance, environment_of
from tests.servers import ROOT, require

pytestmark = pytest.mark.timeout(600)  # The first one installs tools.
ROLES: Final = ("gateway", "workers", "nats-1")
SERVICES: Final = {"gateway": "gateway", "workers": "pool", "nats-1": "nats"}
USER_DATA_BYTES_MAX: Final = 16 * 1024
"""Of EC2."""
AWS: Final = """#!/bin/bash
# The command of AWS, as far as it is asked for secrets: each is a file.
[[ "$1 $2" == "secretsmanager get-secret-value" ]] || exit 2
while [[ $# -gt 0 ]]; do
  [[ "$1" == --secret-id ]] && exec cat "$SECRETS/${2##*:}"
  shift
done
exit 3
"""


PROGRAM: Final = """#!/bin/bash
# Any program of an instance: writes down what it is asked for, and fails if that is to fail.
command="${0##*/} $*"
echo "$command" >>"$MACHINE/calls"
[[ -n "$FAILING" && "$command" == "$FAILING"* ]] && exit 1
case "$command" in
  # What is there is known by what was done before.
  rpm*) grep -q "^installed$" "$MACHINE/has" ;;
  dnf*) echo installed >>"$MACHINE/has" ;;
  "docker image inspect"*) grep -qxF "image ${!#}" "$MACHINE/has" ;;
  "docker pull"*) echo "image ${!#}" >>"$MACHINE/has" ;;
  "docker login"*) cat >/dev/null ;;
  "systemctl is-enabled"*) grep -qxF "unit ${!#}" "$MACHINE/has" ;;
  "systemctl enable"*) echo "unit ${!#}" >>"$MACHINE/has" ;;
  curl*) echo CERTIFICATE >"$(sed 's/.*--output ([^ ]*).*/\\1/' -E <<<"$command")" ;;
esac
"""
PROGRAMS: Final = (
    *("rpm", "dnf", "docker", "systemctl", "curl", "aws", "sleep"),
    *("id", "blkid", "mountpoint", "chown"),
)


class Machine:
    """Runs an instance's bootstrap where every program only says what it was asked for."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self._directory = directory
        programs = directory / "bin"
        programs.mkdir()
        for name in PROGRAMS:
            (programs / name).write_text(PROGRAM)
            (programs / name).chmod(0o755)
        (directory / "has").write_text("")
        script = instance.files["/usr/local/sbin/livefeed-bootstrap"]
        for folder in ("/etc", "/var"):
            (directory / folder.strip("/") / "livefeed").mkdir(parents=True)
            script = re.sub(
                rf"(?<=[ \"]){folder}(?=/(livefeed|lib|fstab))", f"{directory}{folder}", script
            )
        (directory / "etc" / "fstab").write_text("")
        self._script = directory / "livefeed-bootstrap"
        # No device is there, and none is waited for.
        self._script.write_text(re.sub(r"\[\[ -b .* \]\]", "true", script))

    def bootstrap(self, failing: str = "") -> int:
        """Run it while a command fails; returns its status."""
        path = f"{self._directory / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "MACHINE": str(self._directory), "FAILING": failing}
        return subprocess.run(
            ["/bin/bash", self._script], env=environment, check=False, timeout=30
        ).returncode

    @property
    def calls(self) -> list[str]:
        """What programs were asked for, in order."""
        return (self._directory / "calls").read_text().splitlines()

    @property
    def enabled(self) -> list[str]:
        """The units of livefeed that were enabled and started, in order."""
        pattern = r"systemctl enable --now --no-block (\S+)"
        return [found[1] for call in self.calls if (found := re.fullmatch(pattern, call))]


@pytest.fixture(params=ROLES)
def instance(request: pytest.FixtureRequest, instances: dict[str, Instance]) -> Instance:
    """One instance of each kind."""
    return instances[request.param]


def test_it_fits(instance: Instance) -> None:
    """EC2 takes 16 KiB; compressed it is less than half of it."""
    assert instance.bytes < USER_DATA_BYTES_MAX / 2


def test_it_holds_no_secret(instance: Instance) -> None:
    """Whoever may describe an instance reads its user data: names of secrets are in it, no more."""
    assert not re.search(r"\bSU[A-Z2-7]{56}\b", instance.text), "the seed of an NKEY"
    assert "PRIVATE KEY" not in instance.text
    assert not re.search(r"postgres(ql)?://\w+:\w+@", instance.text)
    named = set(instance.environment)
    secret = {f"LIVEFEED_{name.upper()}" for name in _hidden_settings()}
    assert not named & secret
    assert all(mode in {0o644, 0o755} for mode in instance.modes.values())


def test_scripts_pass_shellcheck(instance: Instance, tmp_path: Path) -> None:
    """Every script, with every check, also those that are optional and make sense here."""
    scripts = []
    for path, text in instance.files.items():
        if text.startswith("#!/bin/bash"):
            scripts.append(tmp_path / Path(path).name)
            scripts[-1].write_text(text)
            assert instance.modes[path] == 0o755
    assert len(scripts) == 3
    checks = "avoid-nullary-conditions,check-unassigned-uppercase"
    passes(tool("shellcheck", "--severity", "style", "--enable", checks, *scripts))


def test_units_are_what_systemd_takes(
    instance: Instance, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """By `systemd-analyze verify`; the programs that they start are where they are looked for."""
    analyze = require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    units = {
        Path(path).name: text
        for path, text in instance.files.items()
        if path.startswith("/etc/systemd/system/")
    }
    service = SERVICES[request.node.callspec.params["instance"]]
    assert set(units) == {
        f"livefeed-{name}.service"
        for name in ("bootstrap", "secrets", service, "node-agent", "collector")
    }
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("docker", "livefeed", "livefeed-bootstrap", "livefeed-secrets"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    # Docker's own unit comes with its package.
    units["docker.service"] = f"[Service]\nExecStart={programs}/docker\n"
    for name, text in units.items():
        moved = re.sub(r"/usr/(local/)?s?bin/(?=docker|livefeed)", f"{programs}/", text)
        (tmp_path / name).write_text(moved)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "livefeed" in line]
    assert done.returncode == 0, done.stderr
    assert not ours


def test_every_unit_is_started(instance: Instance) -> None:
    """The one command of the user data starts a unit, without waiting, that starts all others."""
    (command,) = instance.commands
    *words, name = command
    assert words == ["systemctl", "enable", "--now", "--no-block"]
    (program,) = re.findall(
        r"^ExecStart=(\S+)$", instance.files[f"/etc/systemd/system/{name}"], re.MULTILINE
    )
    for path in instance.files:
        if path.endswith(".service") and Path(path).name != name:
            assert Path(path).name in instance.files[program]


def test_an_instance_is_tried_until_it_is_a_node(instance: Instance) -> None:
    """Registries and mirrors may be away for longer than the first boot waits."""
    unit = instance.files["/etc/systemd/system/livefeed-bootstrap.service"].splitlines()
    assert {
        *("StartLimitIntervalSec=0", "After=network-online.target"),
        *("Type=oneshot", "RemainAfterExit=yes", "Restart=on-failure"),
        "WantedBy=multi-user.target",
    } <= set(unit)


@pytest.mark.parametrize("failing", ["dnf", "curl", "aws", "docker pull"])
def test_what_fails_while_starting_is_done_again(
    instance: Instance, tmp_path: Path, failing: str
) -> None:
    """The script says that it failed, so that it runs again, and the next run makes it whole; a
    run after that, as at each boot, changes nothing, and starts nobody who has drained."""
    machine = Machine(instance, tmp_path)
    uses = failing in instance.files["/usr/local/sbin/livefeed-bootstrap"]
    assert (machine.bootstrap(failing) == 0) is not uses
    if uses:
        assert not machine.enabled
    assert machine.bootstrap() == 0
    units = {Path(path).name for path in instance.files if path.endswith(".service")}
    assert set(machine.enabled) == units - {"livefeed-bootstrap.service"}
    before = machine.enabled
    assert machine.bootstrap() == 0
    assert machine.enabled == before


def test_livefeed_does_not_wait_for_the_collector(instance: Instance, tmp_path: Path) -> None:
    """Its image is another registry's: its own unit alone pulls it, after all have started."""
    machine = Machine(instance, tmp_path)
    assert machine.bootstrap() == 0
    unit = instance.files["/etc/systemd/system/livefeed-collector.service"]
    (image,) = re.findall(r" (\S+) --config ", unit)
    assert "\nRestart=always\n" in unit
    assert not [call for call in machine.calls if image in call]
    assert machine.enabled[-1] == "livefeed-collector.service"


def test_a_service_may_take_as_long_as_its_drain(instances: dict[str, Instance]) -> None:
    """systemd kills nobody who is still on the way out."""
    gateway = instances["gateway"]
    unit = gateway.files["/etc/systemd/system/livefeed-gateway.service"]
    seconds = float(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    settings = load_settings(**_settings(gateway.environment))
    assert seconds >= settings.drain_wait_seconds + settings.drain_seconds + 10


def test_a_nats_server_leaves_as_a_lame_duck(instances: dict[str, Instance]) -> None:
    """It is told by the one signal that it does so on, and has the time that it takes."""
    files = instances["nats-1"].files
    unit = files["/etc/systemd/system/livefeed-nats.service"]
    assert re.findall(r"^ExecStop=-/usr/bin/docker (.*)$", unit, re.MULTILINE) == [
        "kill --signal USR2 livefeed-nats",
        "wait livefeed-nats",
    ]
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    takes = re.findall(r'^lame_duck_\w+: "(\d+)s"$', files["/etc/livefeed/nats.conf"], re.MULTILINE)
    assert len(takes) == 2
    assert float(seconds) >= sum(map(float, takes)) + 10


def test_settings_are_settings(instance: Instance) -> None:
    """Every variable is one that the code knows, with a value that it takes."""
    environment = instance.environment
    named = {name for name in environment if not name.startswith("LIVEFEED_NODE_")}
    assert named <= {f"LIVEFEED_{name.upper()}" for name in Settings.model_fields}
    load_settings(**_settings(environment))


def test_nothing_that_is_computed_is_given_as_a_setting(instance: Instance) -> None:
    """A plan refuses each name that Terraform gives itself, and names the input instead."""
    text = (ROOT / "infra" / "terraform" / "bootstrap.tf").read_text()
    reserved = set(
        re.findall(r'^    (LIVEFEED_\w+) += "', text.partition("\n}\n")[0], re.MULTILINE)
    )
    named = {name for name in instance.environment if not name.startswith("LIVEFEED_NODE_")}
    assert "LIVEFEED_NODE_" in reserved
    assert named <= reserved


def test_settings_of_the_agent_are_settings(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the node agent, too."""
    environment = instance.environment
    named = {name for name in environment if name.startswith("LIVEFEED_NODE_")}
    fields = NodeSettings.model_fields
    assert named <= {f"LIVEFEED_NODE_{name.upper()}" for name in fields}
    for name in named:
        monkeypatch.setenv(name, environment[name])
    assert load_node_settings().role == environment["LIVEFEED_NODE_ROLE"]


def test_secrets_become_settings_that_livefeed_takes(
    instance: Instance, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Passwords with any characters; TLS is asked for; nobody else may read the file."""
    role = request.node.callspec.params["instance"]
    password = "p@ss/w:rd %é'\"$x"
    directory = fetch_secrets(instance, tmp_path, password=password)
    path = directory / "secrets.env"
    assert path.stat().st_mode & 0o077 == 0
    lock_folder = directory.with_name(f"{directory.name}-node")
    assert lock_folder.is_dir()
    if os.geteuid() == 0:
        assert lock_folder.stat().st_uid == int(image_user().partition(":")[0])
    secrets = environment_of(path.read_text())
    assert secrets["LIVEFEED_NATS_NKEY_SEED"].startswith("SU")
    if role == "nats-1":
        assert set(secrets) == {"LIVEFEED_NATS_NKEY_SEED"}
        assert "PRIVATE KEY" in (directory / "tls" / "key.pem").read_text()
        return
    settings = load_settings(**_settings(instance.environment | secrets))
    url = urlsplit(settings.database_url)
    assert (url.username, url.path, url.port) == ("livefeed", "/livefeed", 5432)
    assert unquote(url.password or "") == password
    assert parse_qs(url.query)["sslmode"] == ["verify-full"]
    assert 2 <= len(settings.replica_urls) <= REPLICAS_MAX


def test_everything_runs_as_the_images_user(instance: Instance) -> None:
    """Who may read what is mounted, lock the node's file, and tell the node's process to leave."""
    script = instance.files["/usr/local/bin/livefeed"]
    assert re.findall(r"--user (\S+)", script) == [image_user()]
    folder = Path(instance.environment["LIVEFEED_NODE_LOCK_FILE"]).parent
    assert f"--volume {folder}:{folder}\n" in script, "not read-only"


def test_units_start_commands_that_there_are(instance: Instance) -> None:
    """Each `livefeed COMMAND` of a unit is one; `nats-server` alone is another program."""
    units = "".join(text for path, text in instance.files.items() if path.endswith(".service"))
    named = set(re.findall(r"^ExecStart=/usr/local/bin/livefeed (\S+)", units, re.MULTILINE))
    assert "node-agent" in named
    assert named - {"nats-server"} <= set(COMMANDS)


def test_who_has_drained_is_not_started_again(instance: Instance) -> None:
    """systemd starts again what fails; what left as it was told to ends with its instance."""
    for service in ("gateway", "pool"):
        text = instance.files.get(f"/etc/systemd/system/livefeed-{service}.service")
        assert text is None or "\nRestart=on-failure\n" in text


def image_user() -> str:
    """The user of the image."""
    text = (ROOT / "infra" / "images" / "Dockerfile").read_text()
    return re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1]


def fetch_secrets(instance: Instance, tmp_path: Path, *, password: str = "simple") -> Path:
    """Run the instance's own script; returns the folder that it filled."""
    kept, programs, directory = (tmp_path / name for name in ("kept", "bin", "run"))
    kept.mkdir()
    programs.mkdir()
    (programs / "aws").write_text(AWS)
    (programs / "aws").chmod(0o755)
    login = json.dumps({"username": "livefeed", "password": password})
    pair = json.dumps({"certificate": "CERTIFICATE", "key": "PRIVATE KEY"})
    script = instance.files["/usr/local/sbin/livefeed-secrets"]
    # On the made-up AWS all secrets have one name: here each has its own.
    for number, text in enumerate(_in_order(script, login, pair)):
        (kept / f"secret-{number}").write_text(text)
    script = numbered(script, r"(?<=:secret:)mock", "secret")
    script = numbered(script, r"(?<=\")mock(?=[.])", "host")
    (tmp_path / "livefeed-secrets").write_text(script)
    subprocess.run(
        ["/bin/bash", tmp_path / "livefeed-secrets", directory],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "SECRETS": str(kept)},
        check=True,
        timeout=30,
    )
    return directory


def numbered(text: str, pattern: str, name: str) -> str:
    """Give what has one made-up name everywhere a name of its own each time."""
    numbers = itertools.count()
    return re.sub(pattern, lambda _: f"{name}-{next(numbers)}", text)


def _in_order(script: str, login: str, pair: str) -> list[str]:
    """What each call of the script is answered, in the order in which they stand there."""
    answers = ["SUAEXAMPLE"]
    if "login=" in script:
        answers.append(login)
    if "pair=" in script:
        answers.append(pair)
    return answers


def _settings(environment: dict[str, str]) -> dict[str, object]:
    """Settings from their variables: lists and objects are JSON, as in the environment."""
    found: dict[str, object] = {}
    for variable, text in environment.items():
        name = variable.removeprefix("LIVEFEED_").lower()
        if name in Settings.model_fields:
            found[name] = json.loads(text) if text[:1] in "[{" else text
    return found


def _hidden_settings() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if field.repr is False]
