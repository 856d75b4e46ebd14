"""The wire is made for one minor version of uvicorn."""

import pytest
import uvicorn

from gateway.guarded_http import UVICORN, check_uvicorn
from livefeed.errors import Misconfigured


def test_the_installed_uvicorn_is_the_one() -> None:
    """What is pinned is what the guards are made for."""
    check_uvicorn()


@pytest.mark.parametrize("version", ["0.53.9", "0.55.0", "0.540.1", "1.0"])
def test_another_minor_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both versions and the way out."""
    monkeypatch.setattr(uvicorn, "__version__", version)
    with pytest.raises(Misconfigured, match=rf"{version}.*{UVICORN}.*LIVEFEED_GATEWAY_WIRE"):
        check_uvicorn()
