"""Every module of Terraform: its form, its schemas, its own tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.infra.terraform import TERRAFORM, Terraform
from tests.scripts import script
from tests.servers import ROOT

INFRASTRUCTURE = script(ROOT / "docs" / "infrastructure.py")

MODULES: Final = sorted(
    path.relative_to(TERRAFORM).as_posix() for path in (TERRAFORM / "modules").iterdir()
)
FOLDERS: Final = [".", "bootstrap", *MODULES]
EXAMPLES: Final = ["examples/complete", "examples/minimal"]
FILES: Final = ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md")


def test_everything_is_formatted(terraform: Terraform) -> None:
    """As `terraform fmt` leaves it: the generator of tables reads it so."""
    terraform(".", "fmt", "-check", "-recursive", "-diff")


@pytest.mark.parametrize("module", EXAMPLES)
def test_an_example_is_valid(terraform: Terraform, module: str) -> None:
    """By the provider's schemas, with the lock file as it is."""
    terraform.init(module)
    terraform(module, "validate", "-no-color")


@pytest.mark.parametrize("module", ["bootstrap", *MODULES])
def test_a_module_does_what_its_tests_say(terraform: Terraform, module: str) -> None:
    """Its own tests, on a made-up AWS; they begin with what `validate` does."""
    terraform.init(module)
    done = terraform(module, "test", "-no-color")
    passed = re.search(r"Success! (\d+) passed, 0 failed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 2, "a module has tests"


@pytest.mark.parametrize("module", FOLDERS)
def test_a_module_has_its_files(module: str) -> None:
    """The same files everywhere, and the same versions."""
    folder = TERRAFORM / module
    missing = [name for name in FILES if not (folder / name).is_file()]
    assert not missing
    versions = (folder / "versions.tf").read_text()
    if module != "modules/instance_bootstrap":  # It has no provider.
        assert versions == (TERRAFORM / "versions.tf").read_text()


@pytest.mark.parametrize("module", [*FOLDERS, *EXAMPLES])
def test_inputs_are_typed_described_and_used(module: str) -> None:
    """No variable without a type, a description and a use; no local without a use."""
    texts = {path.name: path.read_text() for path in (TERRAFORM / module).glob("*.tf")}
    code = "\n".join(texts.values())
    templates = [path.read_text() for path in (TERRAFORM / module).glob("templates/*")]
    for name, _, body in INFRASTRUCTURE.blocks(texts["variables.tf"], "variable"):
        assert re.search(r"^  description = \".+\.\"$", body, re.MULTILINE), f"{name}: description"
        assert re.search(r"^  type +=", body, re.MULTILINE), f"{name}: type"
        assert "type        = any" not in body
        assert re.search(rf"\bvar\.{name}\b", code.replace(body, "")), f"{name} is not used"
    for name, _, body in INFRASTRUCTURE.blocks(texts.get("outputs.tf", ""), "output"):
        assert re.search(r"^  description = \".+\.\"$", body, re.MULTILINE), f"{name}: description"
    for found in re.finditer(r"^locals {\n(.*?)^}", code, re.MULTILINE | re.DOTALL):
        for name in re.findall(r"^  (\w+) +=", found[1], re.MULTILINE):
            used = re.search(rf"\blocal\.{name}\b", code) or any(name in one for one in templates)
            assert used, f"local.{name} is not used"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_no_provider_of_its_own(module: str) -> None:
    """Who uses it says which AWS it is."""
    for path in (TERRAFORM / module).glob("*.tf"):
        assert not re.search(r"^provider ", path.read_text(), re.MULTILINE), path.name


def test_every_module_is_used_and_tested() -> None:
    """By the root module, and by tests of its own."""
    root = "\n".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    for module in MODULES:
        assert f'source = "./{module}"' in re.sub(r"source +=", "source =", root), module
        assert any((TERRAFORM / module / "tests").glob("*.tftest.hcl")), module


def test_environments_name_inputs_that_are_there() -> None:
    """A line of an environment that nothing reads would be a setting that is not set."""
    text = (TERRAFORM / "variables.tf").read_text()
    inputs = {one.name for one in INFRASTRUCTURE.blocks(text, "variable")}
    for path in (TERRAFORM / "envs").glob("*.tfvars"):
        named = set(re.findall(r"^(\w+) +=", path.read_text(), re.MULTILINE))
        assert named <= inputs, path.name
        assert (path.parent / f"{path.stem}.backend.hcl").is_file()


def test_every_environment_may_pull_its_image() -> None:
    """Who names an image in ECR names its repository, too: instances may pull from no other."""
    for path in (TERRAFORM / "envs").glob("*.tfvars"):
        text = path.read_text()
        pattern = r'^image += "(\w+)[.]dkr[.]ecr[.]([\w-]+)[.]amazonaws[.]com/([\w/-]+)@'
        account, region, name = re.findall(pattern, text, re.MULTILINE)[0]
        assert f'repository_arns = ["arn:aws:ecr:{region}:{account}:repository/{name}"]\n' in text


def test_the_lock_has_more_than_one_platform() -> None:
    """People plan on their own computers, workflows on others."""
    lock = (TERRAFORM / ".terraform.lock.hcl").read_text()
    assert lock.count('"zh:') == 15
    for example in EXAMPLES:
        assert (TERRAFORM / example / ".terraform.lock.hcl").read_text() == lock


def test_every_security_group_rule_says_why() -> None:
    """`terraform` would take a rule without a word."""
    rules = 0
    for path in TERRAFORM.rglob("*.tf"):
        text = path.read_text()
        for kind in ("ingress", "egress"):
            pattern = rf'^resource "aws_vpc_security_group_{kind}_rule" "\w+" {{\n(.*?)^}}'
            for body in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
                rules += 1
                assert "  description" in body, path
    assert rules >= 5


def test_nothing_secret_is_an_input() -> None:
    """What comes in as a variable is in the plan and in the state."""
    for path in TERRAFORM.rglob("variables.tf"):
        for name, *_ in INFRASTRUCTURE.blocks(path.read_text(), "variable"):
            is_name = name.endswith(("_secret", "_version", "_arn", "_arns"))
            assert is_name or not re.search("password|seed|private_key", name), f"{path}: {name}"
    for example in json.loads((TERRAFORM / "contract.json").read_text())["settings"]:
        assert example.startswith("LIVEFEED_")


def test_folders_are_what_the_page_of_modules_lists() -> None:
    """The page for who uses it names every module."""
    page = (TERRAFORM / "README.md").read_text()
    for module in MODULES:
        assert f"({module}/README.md)" in page, module
    assert Path(TERRAFORM, "bootstrap").is_dir()
