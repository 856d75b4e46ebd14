"""What a process may use, as the control groups of either version say it."""

from pathlib import Path

import pytest

from livefeed.adapters.resources import cores, memory_bytes, memory_limit_bytes
from livefeed.limits import MIB


@pytest.mark.parametrize(
    ("files", "memory", "most"),
    [
        ({"memory.max": "104857600\n", "cpu.max": "50000 100000\n"}, 100 * MIB, 0.5),
        ({"memory/memory.limit_in_bytes": "104857600\n"}, 100 * MIB, None),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, None),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None),
        ({"memory.max": "nonsense", "cpu.max": ""}, None, None),
        ({}, None, None),
    ],
)
def test_limits_are_those_of_the_groups(
    tmp_path: Path, files: dict[str, str], memory: int | None, most: float | None
) -> None:
    """The least of all limits counts; without one it is what the computer has."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    nothing = tmp_path / "nothing"
    if "memory.max" in files and not Path("/proc/self/cgroup").read_text().count("0::"):
        pytest.skip("this kernel mounts only the first version")
    assert memory_limit_bytes(tmp_path) == (memory or memory_limit_bytes(nothing))
    assert cores(tmp_path) == (most or cores(nothing))


def test_memory_is_what_this_process_has() -> None:
    """It grows by what is allocated, and is below the limit."""
    before = memory_bytes()
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    assert before + 60 * MIB < memory_bytes() < memory_limit_bytes()
