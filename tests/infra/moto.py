"""An AWS on this computer, behind `terraform plan` and `apply`: moto's server."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.servers import server_port
from tests.tools import command

START_SECONDS_MAX: Final = 60.0
SERVER: Final = """
import sys
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.server import main

# An interface without a public address answers with an empty one, which is read as that it has one.
always = NetworkInterface.association.fget
NetworkInterface.association = property(lambda self: always(self) or None)
main(sys.argv[1:])
"""


@contextlib.contextmanager
def running_moto(log: Path) -> Iterator[dict[str, str]]:
    """A fresh AWS; gives the environment in which Terraform finds it."""
    port = server_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_MAX_ATTEMPTS": "2",
    }
    settings = {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "MOTO_EC2_LOAD_DEFAULT_AMIS": "true"}
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command("infra", "python"), "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)],
            stdout=file,
            stderr=file,
            env=settings | {"PATH": "/usr/bin:/bin"},
        )
        try:
            _wait(f"{url}/moto-api/", server, log)
            yield environment
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"moto ended with {server.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"moto does not answer:\n{log.read_text()[-2000:]}")
