"""What GitHub runs of ours: workflows, the composite action, dependabot, and the scripts in them.

Nothing of GitHub is here, so they are read: by the schemas, by actionlint, by zizmor and by
shellcheck. What the composite action and a release do is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.infra.checks import passes, tool, yaml
from tests.servers import ROOT, require, server_port
from tests.tools import node_modules

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTION = GITHUB / "actions" / "setup-livefeed"
LINTER = Path(__file__).with_name("actionlint")

NEVER_CANCELLED = {"terraform-apply", "drift", "release"}
"""What must not be ended half-way."""
WRITES = {
    "bench": {"comment": {"pull-requests"}},
    "terraform": {"plan": {"id-token"}, "comment": {"pull-requests"}},
    "terraform-apply": {"plan": {"id-token"}, "apply": {"id-token"}},
    "drift": {"plan": {"id-token"}, "issue": {"issues"}},
    "image": {"publish": {"packages", "id-token", "attestations"}, "mirror": {"id-token"}},
    "release": {
        "build": {"id-token", "attestations"},
        "pypi": {"id-token"},
        "npm": {"id-token"},
        "github": {"contents"},
    },
    "security": {"code": {"security-events"}},
}
"""By workflow and job: all that may write anything, and what."""
TIMEOUT_MINUTES_MAX = 90


def unknown_to_actionlint(found: dict[str, Any]) -> bool:
    """Whether it finds what has come since 2022: a runner, a context, a permission."""
    return found["kind"] == "runner-label" or found["message"].startswith(
        ('undefined variable "vars"', 'unknown permission scope "attestations"')
    )


# What the tools say.


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-actions", [ACTION / "action.yml"]),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_files_fit_their_schemas(schema: str, files: Sequence[Path]) -> None:
    """Every key is one that GitHub knows, and every value of its kind."""
    passes(tool("check-jsonschema", "--builtin-schema", schema, *files))


def test_zizmor_finds_nothing() -> None:
    """Pedantic: injection, permissions, credentials that persist, pins, caches of releases."""
    passes(tool("zizmor", "--offline", "--no-progress", "--persona", "pedantic", GITHUB))


def test_actionlint_finds_nothing() -> None:
    """Expressions, contexts, `needs`, and the inputs of actions."""
    modules = node_modules(LINTER)
    node = require(shutil.which("node"), "node is not installed (Debian's `nodejs`)")
    done = subprocess.run(
        [node, str(LINTER / "lint.mjs"), str(modules), *map(str, WORKFLOWS)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    passes(done)
    assert [one for one in json.loads(done.stdout) if not unknown_to_actionlint(one)] == []


class Script(NamedTuple):
    """A `run:` of a workflow or an action."""

    place: str
    text: str


def scripts() -> Iterator[Script]:
    for path in [*WORKFLOWS, ACTION / "action.yml"]:
        content = yaml(path)
        jobs = content.get("jobs") or {"composite": content["runs"]}
        for name, job in jobs.items():
            for step in job["steps"]:
                if "run" in step:
                    yield Script(f"{path.name}: {name}: {step.get('name', '')}", step["run"])


def test_shellcheck_finds_nothing_in_scripts(tmp_path: Path) -> None:
    """Of every `run:`, as bash with the options that GitHub gives it, and of every script file."""
    files = [*ACTION.glob("*.sh"), *sorted((ROOT / "infra" / "images").glob("*.sh"))]
    for number, script in enumerate(scripts()):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/usr/bin/env bash\n# {script.place}\nset -eo pipefail\n{script.text}\n")
        files.append(file)
    assert len(files) > 20
    passes(tool("shellcheck", "--severity", "style", *files))


# What is asked of every workflow.


@pytest.fixture(scope="module")
def workflows() -> dict[str, Any]:
    """Every workflow by its name."""
    found = {path.stem: yaml(path) for path in WORKFLOWS}
    assert all(name == content["name"] for name, content in found.items())
    return found


def test_nothing_is_allowed_by_default(workflows: dict[str, Any]) -> None:
    """Each job asks for what it needs, and only those in the table may write, and only that."""
    for name, content in workflows.items():
        assert content["permissions"] == {}, name
        for job_name, job in content["jobs"].items():
            asked = job["permissions"]
            writes = {scope for scope, level in asked.items() if level == "write"}
            assert writes == WRITES.get(name, {}).get(job_name, set()), (name, job_name)


def test_every_job_has_a_bound(workflows: dict[str, Any]) -> None:
    """In time, and in how many run at once; an apply or a release is never cancelled."""
    for name, content in workflows.items():
        cancels = content["concurrency"]["cancel-in-progress"]
        assert (cancels is False) == (name in NEVER_CANCELLED), name
        if cancels is not True and name not in NEVER_CANCELLED:
            assert cancels == "${{ github.event_name == 'pull_request' }}", name
        for job_name, job in content["jobs"].items():
            assert 1 <= job["timeout-minutes"] <= TIMEOUT_MINUTES_MAX, (name, job_name)
            assert job["runs-on"] == "ubuntu-24.04", (name, job_name)


def test_each_push_to_main_keeps_its_run(workflows: dict[str, Any]) -> None:
    """GitHub cancels whoever waits in a group when another comes: a push has one of its own."""
    for name in ("ci", "bench", "image"):
        group = workflows[name]["concurrency"]["group"]
        assert "github.event_name == 'pull_request' && 'newest' || github.sha" in group, name


def test_a_release_has_a_name_of_its_own_where_names_are_given_once(
    workflows: dict[str, Any],
) -> None:
    """Its commit was pushed to main before, and its image has another digest."""
    copy = workflows["image"]["jobs"]["mirror"]["steps"][-1]
    assert "github.ref_type == 'tag' && github.ref_name" in copy["env"]["NAME"]
    assert '--tag "$TO:$NAME"' in copy["run"]


def test_no_expression_in_a_script() -> None:
    """What GitHub puts in there would be run; through `env` it is only text."""
    for script in scripts():
        assert "${{" not in script.text, script.place


def test_credentials_do_not_stay(workflows: dict[str, Any]) -> None:
    """Nothing that runs after a checkout has the token."""
    checkouts = [
        (name, step)
        for name, content in workflows.items()
        for job in content["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert len(checkouts) > 10
    for name, step in checkouts:
        assert step["with"]["persist-credentials"] is False, name


def test_nobody_elses_code_gets_rights(workflows: dict[str, Any]) -> None:
    """No workflow runs a stranger's pull request with the rights of ours."""
    for name, content in workflows.items():
        triggers = content.get("on") or content.get("True")
        assert not {"pull_request_target", "workflow_run"} & set(triggers), name


def test_an_apply_is_behind_an_environment(workflows: dict[str, Any]) -> None:
    """And what reaches others is, too; the plan that is applied is the one that was reviewed."""
    jobs = workflows["terraform-apply"]["jobs"]
    assert jobs["apply"]["environment"] == "${{ matrix.environment }}"
    assert jobs["apply"]["strategy"]["max-parallel"] == 1
    steps = " ".join(step.get("run", "") for step in jobs["apply"]["steps"])
    assert "diff" in steps
    assert 'terraform apply -input=false -lock-timeout=5m "$RUNNER_TEMP/plan"' in steps
    assert workflows["release"]["jobs"]["pypi"]["environment"] == "pypi"
    assert workflows["release"]["jobs"]["npm"]["environment"] == "npm"


def test_a_plan_without_public_keys_says_what_is_missing(tmp_path: Path) -> None:
    """Each environment has its own, in a committed file that every plan is given."""
    plans = [one for one in scripts() if "terraform plan" in one.text]
    assert len(plans) == 4
    for script in plans:
        assert '"-var-file=$nats"' in script.text
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script.text],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "ENVIRONMENT": "prod", "RUNNER_TEMP": str(tmp_path)},
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert "::error::infra/terraform/envs/prod.nats.tfvars.json is missing" in done.stdout


def test_only_who_applies_takes_the_lock() -> None:
    """The role that plans may not write it, and a plan that is cancelled would leave it."""
    plans = [
        (one.place.startswith("terraform-apply.yml: apply:"), line)
        for one in scripts()
        for line in one.text.splitlines()
        if "terraform plan" in line
    ]
    assert len(plans) == 4
    for applies, line in plans:
        assert ("-lock-timeout=5m" if applies else "-lock=false") in line


def test_dependabot_knows_every_folder() -> None:
    """Each folder that it is told of is there, or comes with the infrastructure."""
    for update in yaml(GITHUB / "dependabot.yml")["updates"]:
        assert update["cooldown"]["default-days"] == 7
        for folder in update.get("directories") or [update["directory"]]:
            if folder.startswith("/infra/terraform"):
                continue
            assert folder == "/" or list(ROOT.glob(folder.strip("/"))), folder


def test_one_terraform_for_all(workflows: dict[str, Any]) -> None:
    """A plan and its apply are of one version."""
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    versions = set(re.findall(r"terraform_version: ([\d.]+)", text))
    assert versions == {"1.11.4"}
    assert workflows["terraform"]["jobs"]["check"]["strategy"]["matrix"]["terraform"][0] == "1.11.4"


def test_a_fresh_checkout_gets_its_modules_first() -> None:
    """Terraform names no provider of a root whose modules are not installed."""
    mirrors = [script for script in scripts() if "providers mirror" in script.text]
    assert len(mirrors) == 3
    for script in mirrors:
        first, second = script.text.splitlines()
        assert first.startswith("terraform -chdir=infra/terraform get"), script.place
        assert second.startswith("terraform -chdir=infra/terraform providers mirror"), script.place


def test_the_page_says_what_to_set(workflows: dict[str, Any]) -> None:
    """Each workflow, each variable and each environment is in docs/operations/workflows.md."""
    page = (ROOT / "docs" / "operations" / "workflows.md").read_text()
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    assert set(re.findall(r"^\| `([a-z-]+)` \|.*\|.*\|$", page, re.MULTILINE)) >= set(workflows)
    for variable in set(re.findall(r"vars\.([A-Z_]+)", text)):
        assert f"| `{variable}` |" in page
    jobs = [job for content in workflows.values() for job in content["jobs"].values()]
    environments = {job["environment"] for job in jobs if "environment" in job}
    environments |= set(
        workflows["terraform-apply"]["jobs"]["apply"]["strategy"]["matrix"]["environment"]
    )
    for environment in environments - {"${{ matrix.environment }}"}:
        assert f"`{environment}`" in page
    assert "secrets." not in text


# What is run.


@pytest.fixture
def runner() -> Iterator[dict[str, str]]:
    """The environment of a step, as a runner gives it."""
    # Not below pytest's own folder, which is closed to other users: as root PostgreSQL is one.
    with tempfile.TemporaryDirectory(prefix="livefeed-", ignore_cleanup_errors=True) as name:
        yield runner_environment(Path(name))


def runner_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a step whose temporary folder this is."""
    tmp_path.chmod(0o755)
    for name in ("output", "path", "summary"):
        (tmp_path / name).touch()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("LIVEFEED_")},
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ACTION),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_PATH": str(tmp_path / "path"),
        "PYTHON": sys.executable,
    }


def step(name: str, runner: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the composite action as a runner does."""
    (script,) = [
        one["run"]
        for one in yaml(ACTION / "action.yml")["runs"]["steps"]
        if one.get("name") == name
    ]
    return run(script, runner, **variables)


def run(script: str, runner: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a job, with what earlier steps have put on the path."""
    added = Path(runner["GITHUB_PATH"]).read_text().split()
    path = os.pathsep.join([*reversed(added), runner["PATH"]])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**runner, "PATH": path, **variables},
        text=True,
        timeout=110,
    )


def test_drift_is_told_though_another_plan_fails(
    runner: dict[str, str], workflows: dict[str, Any], tmp_path: Path
) -> None:
    """The issue of what has drifted is opened, and one of the plan that fails."""
    job = workflows["drift"]["jobs"]["issue"]
    assert job["if"] == "${{ !cancelled() && needs.plan.result != 'skipped' }}"
    (tmp_path / "drift").mkdir()
    (tmp_path / "drift" / "prod.txt").write_text("- a rule\n")
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\n[ "$2" = list ] || { echo "$@"; cat body.md; }\n')
    gh.chmod(0o755)
    script = f"cd {tmp_path}\n{job['steps'][-1]['run']}"
    path = f"{tmp_path}{os.pathsep}{runner['PATH']}"
    for plans, failing in (("success", False), ("failure", True)):
        told = run(
            script,
            {**runner, "PATH": path},
            PLANS=plans,
            GITHUB_SERVER_URL="https://g",
            GITHUB_REPOSITORY="a/b",
            GITHUB_RUN_ID="7",
        )
        passes(told)
        assert "issue create --title Drift: prod --body-file body.md" in told.stdout
        assert "- a rule" in told.stdout
        assert ("issue create --title Drift: a plan fails" in told.stdout) == failing
        assert ("https://g/a/b/actions/runs/7" in told.stdout) == failing


def test_the_action_starts_checks_and_stops(runner: dict[str, str]) -> None:
    """Its own steps: a stack that serves, fixtures that are right and wrong, and the end of it."""
    port = str(server_port())
    try:
        passes(step("Start livefeed", runner, PORT=port))
        outputs = dict(
            line.split("=", 1) for line in Path(runner["GITHUB_OUTPUT"]).read_text().splitlines()
        )
        assert outputs["url"] == f"http://127.0.0.1:{port}"
        assert outputs["nats-url"].startswith("nats://127.0.0.1:")
        example = ACTION / "example.ndjson"
        passes(step("Check the fixtures", runner, FIXTURES=f"{example}\n\n{example}\n"))
        wrong = Path(runner["RUNNER_TEMP"]) / "wrong.ndjson"
        wrong.write_text(example.read_text().replace('"home"', '"HOME"'))
        checked = step("Check the fixtures", runner, FIXTURES=f"{wrong}\n{example}\n")
        assert checked.returncode == 1
        assert "line 1: invalid_update" in checked.stdout
        assert "feedType" in checked.stdout
        assert f"::error file={wrong}::" in checked.stdout
        # As .github/workflows/ci.yml uses it.
        (script,) = [
            one["run"]
            for one in yaml(GITHUB / "workflows" / "ci.yml")["jobs"]["action"]["steps"]
            if "run" in one
        ]
        passes(run(script, runner, URL=outputs["url"]))
    finally:
        stopped = run("livefeed-stop", runner)
    passes(stopped)
    assert "stopped" in (Path(runner["RUNNER_TEMP"]) / "livefeed" / "up.log").read_text()


def test_the_action_says_why_it_does_not_start(runner: dict[str, str]) -> None:
    """The last words of the log are the step's error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = step("Start livefeed", runner, PORT=port)
    assert done.returncode == 1
    assert f"::error::livefeed does not start: livefeed: port {port} is in use" in done.stdout


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the release's script on a tree."""
    (root / ".github").mkdir(exist_ok=True)
    shutil.copy(GITHUB / "release.py", root / ".github")
    return subprocess.run(
        [sys.executable, "-I", str(root / ".github" / "release.py"), *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )


def test_a_release_is_of_one_version(tmp_path: Path) -> None:
    """The tag's, everywhere; and the changelog has words for it, which become the release's."""
    for project in (".", "clients/python"):
        (tmp_path / project).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / project / "pyproject.toml", tmp_path / project)
    changelog = (
        "# Changelog\n\n## Unreleased\n\nNot yet.\n\n"
        "## 0.1.0 - 2026-12-01\n\n### Added\n\n- It.\n\n## 0.0.1\n\n- Old.\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    assert release(tmp_path, "check", "v0.1.0").returncode == 0
    assert release(tmp_path, "notes", "v0.1.0").stdout == "### Added\n\n- It.\n"
    other = release(tmp_path, "check", "v0.2.0")
    assert other.returncode == 1
    assert "CHANGELOG.md has no words for 0.2.0" in other.stderr
    assert "pyproject.toml has version 0.1.0, and the tag is v0.2.0" in other.stderr
    assert release(tmp_path, "publish", "v0.1.0").returncode == 2
