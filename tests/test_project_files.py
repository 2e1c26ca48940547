"""What files for contributors say twice agrees."""

import re

import yaml

import src
from src.cli import ROOT


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_ci_runs_every_python_that_is_promised():
    promised = re.findall(r"3\.\d+", (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()[0])
    assert load(".github/workflows/ci.yml")["jobs"]["all"]["strategy"]["matrix"]["python"] == promised


def test_ci_runs_tests_that_exist():
    named = re.findall(r"tests/[\w/]+\.py", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_hooks_use_the_ruff_of_the_tests():
    pins = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    hooks = {hook["id"]: hook for hook in load(".pre-commit-config.yaml")["repos"][0]["hooks"]}
    for name in ("ruff-check", "ruff-format"):
        assert set(hooks[name]["additional_dependencies"]) <= set(pins)


def test_citation_names_the_authors_of_the_licence():
    [author] = load("CITATION.cff")["authors"]
    assert author["name"].lower() in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_citation_and_changelog_name_the_version():
    assert str(load("CITATION.cff")["version"]) == src.__version__
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == src.__version__
