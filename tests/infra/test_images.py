"""The image and the compose file: read by what knows their syntax, and their commands run.

No container engine runs here. What the image would hold is laid out as the Dockerfile says, and
each command of the compose file runs from there with its own arguments and environment, only with
the addresses of the servers here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from livefeed.adapters.embedded.nats_server import find_nats_server
from livefeed.adapters.http import get
from livefeed.adapters.nats.jetstream_api import Answer, ask
from livefeed.adapters.process import Child, Launch
from livefeed.topology import UPDATES
from tests.infra.checks import passes, read_by, tool, yaml
from tests.servers import (
    ROOT,
    Stack,
    connected,
    http_status,
    require,
    server_port,
    until,
    update,
)
from tests.tools import python_environment, site_packages

IMAGES = ROOT / "infra" / "images"
DOCKERFILE = IMAGES / "Dockerfile"
COMPOSE = IMAGES / "compose.yaml"
NATS_NAMES = ("nats-1", "nats-2", "nats-3")
APP = "/opt/livefeed/app"
USER = "64000:64000"


# The Dockerfile.


def instructions() -> list[dict[str, Any]]:
    """What the Dockerfile says, read by a library that knows its syntax."""
    read = "import json, sys; from dockerfile_parse import DockerfileParser; "
    read += "parser = DockerfileParser(fileobj=open(sys.argv[1], 'rb')); "
    read += "print(json.dumps([{**one, 'content': None} for one in parser.structure]))"
    found: list[dict[str, Any]] = read_by(read, DOCKERFILE)
    return [one for one in found if one["instruction"] != "COMMENT"]


def values(name: str) -> list[str]:
    return [one["value"] for one in instructions() if one["instruction"] == name]


def copies() -> dict[str, str]:
    """What is copied from the tree, and where to."""
    pairs: dict[str, str] = {}
    for value in values("COPY"):
        if not value.startswith("--from="):
            *sources, target = value.split()
            pairs |= dict.fromkeys(sources, target)
    return pairs


def test_the_image_is_of_two_stages_and_nobody_special() -> None:
    """What builds is left behind, and what runs is a user of no rights, with a command to give."""
    names = [one["instruction"] for one in instructions()]
    assert names.count("FROM") == 2
    assert "ADD" not in names
    last = names[len(names) - names[::-1].index("FROM") :]
    assert "COPY" in last
    assert values("USER") == [USER]
    assert json.loads(values("ENTRYPOINT")[0]) == ["livefeed"]
    assert json.loads(values("CMD")[0]) == ["--help"]
    assert values("STOPSIGNAL") == ["SIGTERM"]
    assert all("latest" not in value for value in [*values("FROM"), *values("ARG")])


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    """The list of what the build may see is the list of what it copies."""
    ignore = DOCKERFILE.with_suffix(".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        f"requirements/{name}" if name.endswith(".txt") else name
        for name in (source.removeprefix("requirements/") for source in copies())
    }
    assert sent == copied
    assert "*" in ignore
    for name in copied:
        assert (ROOT / name).exists(), name


def test_scripts_of_run_pass_shellcheck(tmp_path: Path) -> None:
    """As the shell gets them, which is sh."""
    for number, value in enumerate(values("RUN")):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/bin/sh\n{value}\n")
        passes(tool("shellcheck", file))
    passes(tool("shellcheck", IMAGES / "livefeed"))


# The compose file.


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Every service, with what it has from others by YAML's own means."""
    found: dict[str, Any] = yaml(COMPOSE)["services"]
    return found


def test_the_compose_file_fits_its_schema() -> None:
    """Every key is one that compose knows."""
    passes(tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE))


def test_docker_reads_it() -> None:
    """As `docker compose config` does, where that plugin is; it needs no engine."""
    docker = shutil.which("docker")
    there = (
        docker
        and not subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False, timeout=30
        ).returncode
    )
    if not there:
        # Not `require`: it comes with an engine, which a computer of CI need not have.
        pytest.skip("the compose plugin of docker is not installed")
    environment = {**os.environ, "LIVEFEED_JWT_SECRET": "x" * 32}
    command = [str(docker), "compose", "--file", str(COMPOSE), "config", "--quiet"]
    passes(
        subprocess.run(
            command, capture_output=True, check=False, env=environment, text=True, timeout=60
        )
    )


def test_what_it_names_is_there(services: dict[str, Any]) -> None:
    """Services that others wait for, volumes, and files of the tree."""
    content = yaml(COMPOSE)
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            assert other in services, (name, other)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (IMAGES / source).is_file(), source
            else:
                assert source in content["volumes"], source
        if "network_mode" in service:
            assert service["network_mode"] == "service:balancer"


def test_containers_may_do_little(services: dict[str, Any]) -> None:
    """All but PostgreSQL's, whose image starts as root: nothing to write, no capabilities."""
    for name, service in services.items():
        if name in {"primary", "replica"}:
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_only_the_front_is_reached_from_outside(services: dict[str, Any]) -> None:
    """And only from this computer."""
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"balancer": ["127.0.0.1:8000:8000"], "prometheus": ["127.0.0.1:9090:9090"]}


def test_the_shape_is_that_of_production(services: dict[str, Any]) -> None:
    """Three NATS servers and three copies, a replica that is read from, two gateways."""
    assert set(services) >= {*NATS_NAMES, "primary", "replica", "gateway-1", "gateway-2", "pool"}
    environment = services["gateway-1"]["environment"]
    assert environment["LIVEFEED_NATS_REPLICAS"] == "3"
    assert [url.split("@")[1] for url in json.loads(environment["LIVEFEED_REPLICA_URLS"])] == [
        "replica:5432/livefeed"
    ]
    for name in NATS_NAMES:
        assert name in environment["LIVEFEED_NATS_URL"]


def test_haproxy_accepts_what_is_mounted(services: dict[str, Any]) -> None:
    """It is the configuration that is shipped, and its ports are those of the gateways."""
    (volume,) = services["balancer"]["volumes"]
    configuration = (IMAGES / volume.split(":")[0]).resolve()
    assert configuration == ROOT / "docs" / "operations" / "haproxy.cfg"
    text = configuration.read_text()
    for name in ("gateway-1", "gateway-2"):
        own = services[name]["environment"]
        port, ops_port = own["LIVEFEED_GATEWAY_PORT"], own["LIVEFEED_OPS_PORT"]
        assert f"server {name} 127.0.0.1:{port} port {ops_port}" in text
    haproxy = require(
        shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"),
        "haproxy is not installed (Debian's `haproxy`)",
    )
    command = [haproxy, "-c", "-f", str(configuration)]
    passes(subprocess.run(command, capture_output=True, check=False, text=True, timeout=30))


# What runs, from what the image would hold.


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with the image's own files, and none of the tree's others."""
    root = tmp_path / "image"
    for source, target in copies().items():
        if target.startswith(f"{APP}/"):
            place = root / Path(target).relative_to(APP)
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
    assert {path.name for path in root.iterdir()} == {
        "livefeed",
        "functions",
        "gateway",
        "livefeed_client",
    }
    return root


def image_environment(image: Path, stack: Stack) -> dict[str, str]:
    """What the Dockerfile's ENV sets, for this folder."""
    pairs = dict(pair.split("=", 1) for value in values("ENV") for pair in shlex.split(value))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVEFEED_")}
    del pairs["PATH"]
    assert pairs.pop("PYTHONPATH") == APP
    aws = site_packages(python_environment("aws"))
    path = os.pathsep.join(map(str, [image, aws]))
    # The mark by which everything of this test is found and ended.
    mark = {"LIVEFEED_DATA": str(stack.directory / "data")}
    return {**kept, **pairs, **mark, "PYTHONPATH": path}


class Composed:
    """Services of the compose file, as processes on this computer.

    Args:
        services: Of the file.
        image: Where the image's files are.
        stack: Has the servers' addresses, and ends what is left.
        addresses: What names in the file are here.
    """

    def __init__(
        self, services: dict[str, Any], image: Path, stack: Stack, addresses: dict[str, str]
    ) -> None:
        self._services = services
        self._image = image
        self._stack = stack
        self._addresses = addresses

    def start(self, name: str, **more: str) -> Child:
        """Start the command of a service with its environment."""
        service = self._services[name]
        assert "entrypoint" not in service
        given = {key: self._here(value) for key, value in service["environment"].items()}
        environment = {**image_environment(self._image, self._stack), **given, **more}
        argv = [sys.executable, "-m", "livefeed.cli", *service["command"]]
        # Its own log: which tmpfs there is. The folder is nobody's.
        log = self._stack.directory / "logs" / f"{name}.log"
        launch = Launch(log, Path("/"), death_signal=signal.SIGTERM, environment=environment)
        return Child(argv, launch)

    def _here(self, value: str) -> str:
        for there, here in self._addresses.items():
            value = value.replace(there, here)
        assert "${" not in value, value
        return value


@pytest.fixture
async def composed(
    services: dict[str, Any],
    image: Path,
    stack: Stack,
    replica_url: str,
    composed_nats: dict[str, str],
) -> Composed:
    """The compose file's livefeed, on three NATS servers, a primary and a replica."""
    addresses = {
        **composed_nats,
        "postgresql://livefeed:livefeed@primary:5432/livefeed": stack.database_url,
        "postgresql://livefeed:livefeed@replica:5432/livefeed": replica_url,
        "${LIVEFEED_JWT_SECRET:?set it to 32 bytes or more}": stack.settings["jwt_secret"],
        "0.0.0.0": "127.0.0.1",
    }
    stack.settings["nats_url"] = composed_nats["nats://nats-1:4222"]
    return Composed(services, image, stack, addresses)


@pytest.fixture
async def composed_nats(services: dict[str, Any], tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Three NATS servers with the configuration that is mounted, but for addresses."""
    text = (IMAGES / "nats.conf").read_text()
    routes = {name: server_port() for name in NATS_NAMES}
    clients = {name: server_port() for name in NATS_NAMES}
    children = []
    try:
        for name in NATS_NAMES:
            service = services[name]
            assert service["entrypoint"] == ["nats-server"]
            assert service["command"] == ["-c", "/etc/nats.conf"]
            own = text.replace("0.0.0.0:4222", f"127.0.0.1:{clients[name]}")
            own = own.replace("0.0.0.0:6222", f"127.0.0.1:{routes[name]}")
            own = own.replace("0.0.0.0:8222", f"127.0.0.1:{server_port()}")
            for other, port in routes.items():
                own = own.replace(f"nats://{other}:6222", f"nats://127.0.0.1:{port}")
            own = own.replace('"/data"', json.dumps(str(tmp_path / name)))
            file = tmp_path / f"{name}.conf"
            file.write_text(own)
            environment = {**os.environ, **service["environment"]}
            launch = Launch(tmp_path / f"{name}.log", tmp_path, environment=environment)
            children.append(Child([str(find_nats_server()), "-c", str(file)], launch))
        yield {f"nats://{name}:4222": f"nats://127.0.0.1:{port}" for name, port in clients.items()}
    finally:
        for child in children:
            child.kill()


class _Config(msgspec.Struct):
    num_replicas: int


class _Stream(Answer):
    config: _Config | None = None


async def test_every_command_of_the_compose_file_runs(composed: Composed, stack: Stack) -> None:
    """As containers would, in their order: provision, migrate, pool, two gateways; an update is
    shown by both; told to leave, each leaves."""
    async with connected(stack.settings["nats_url"]):
        pass
    await until(lambda: ends_well(composed, "provision"), seconds=60, what="NATS is provisioned")
    assert await ends_well(composed, "migrate")
    async with connected(stack.settings["nats_url"]) as nats:
        answer = await ask(nats, f"STREAM.INFO.{UPDATES}", {}, _Stream)
    assert answer.config is not None
    assert answer.config.num_replicas == 3
    running = {"pool": composed.start("pool")}
    urls = {}
    for name in ("gateway-1", "gateway-2"):
        port, ops_port = server_port(), server_port()
        running[name] = composed.start(
            name, LIVEFEED_GATEWAY_PORT=str(port), LIVEFEED_OPS_PORT=str(ops_port)
        )
        ready = f"http://127.0.0.1:{ops_port}/readyz"
        await until(lambda url=ready: is_ok(url), seconds=30, what=f"{name} is ready")
        health = json.loads((await get(ready.replace("readyz", "healthz"), seconds_max=5)).body)
        assert len(health["replicas"]) == 1
        urls[name] = f"http://127.0.0.1:{port}"
    await stack.publish([update(id="p1")], "high")
    for url in urls.values():
        follower = stack.follow("alice", url=url)
        await until(lambda f=follower: f.ids("home") == ["p1"], seconds=30, what="it is shown")
    for name, child in running.items():
        assert await child.stop([(signal.SIGTERM, 20.0)]) == 0, name
        assert "Traceback" not in child.output()


async def ends_well(composed: Composed, name: str) -> bool:
    """Whether a service that ends by itself ends with 0; compose starts it again when not."""
    child = composed.start(name)
    code = await child.stop([(signal.SIGCONT, 60.0)])
    return code == 0


async def is_ok(url: str) -> bool:
    return await http_status(url) == 200


async def test_the_agent_runs_from_the_image_too(image: Path, stack: Stack) -> None:
    """It has botocore there, and asks until somebody answers."""
    environment = image_environment(image, stack) | {
        "LIVEFEED_NODE_ROLE": "nats",
        "LIVEFEED_NODE_METADATA_URL": f"http://127.0.0.1:{server_port()}",
    }
    launch = Launch(stack.directory / "logs" / "agent.log", Path("/"), environment=environment)
    child = Child([sys.executable, "-m", "livefeed.cli", "node-agent", "--json"], launch)
    try:
        await until(lambda: '"fault"' in child.output(), seconds=20, what="it asks")
        assert "hop limit" in child.output()
        assert await child.stop([(signal.SIGTERM, 10.0)]) == 0
    finally:
        child.kill()


def test_the_image_command_is_livefeed(image: Path, tmp_path: Path) -> None:
    """Its script runs the module that the folder has, and passes every argument on."""
    script = (IMAGES / "livefeed").read_text()
    assert "exec /opt/livefeed/bin/python -m livefeed.cli" in script
    file = tmp_path / "command"
    file.write_text(script.replace("/opt/livefeed/bin/python", sys.executable))
    environment = {**os.environ, "PYTHONPATH": str(image), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        ["sh", str(file), "check", "--schema"],
        capture_output=True,
        check=False,
        cwd="/",
        env=environment,
        text=True,
        timeout=60,
    )
    passes(done)
    assert json.loads(done.stdout)["title"] == "FeedUpdate"
