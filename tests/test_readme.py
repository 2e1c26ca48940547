"""The README names what exists: keys, scripts, options, files."""

import re

import pytest
from omegaconf import OmegaConf

from src.cli import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def config_keys() -> set[str]:
    config = OmegaConf.load(ROOT / "src" / "config.yaml")
    return {f"{group}.{key}" for group in config if group not in ("hydra", "defaults") for key in config[group]}


def rows_of_config() -> list[str]:
    """A row of the README's table for each line `key: default  # meaning` of the configuration."""
    rows, group = [], None
    for line in (ROOT / "src" / "config.yaml").read_text(encoding="utf-8").splitlines():
        if start := re.match(r"(\w+):", line):
            group = start.group(1)
        elif (entry := re.match(r"  (\w+): (.*?)\s+# (.*)$", line)) and f"{group}.{entry.group(1)}" in config_keys():
            rows.append(f"| `{group}.{entry.group(1)}` | `{entry.group(2)}` | {entry.group(3)} |")
    return rows


def test_every_key_has_a_comment():
    assert len(rows_of_config()) == len(config_keys())


def test_the_table_of_keys_is_that_of_the_configuration():
    listed = [line for line in README.splitlines() if re.match(r"\| `[a-z_]+\.[a-z_]+` \| `", line)]
    assert listed == rows_of_config()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"python (\w+\.py[^\n`|#]*)", README))))
def test_commands_name_existing_scripts_options_and_keys(command):
    script, *words = command.split()
    source = (ROOT / script).read_text(encoding="utf-8")
    for word in words:
        if word.startswith("-"):
            assert f'"{word}"' in source, f"{script} has no option {word}"
        elif script == "train.py" and "=" in word:
            assert word.strip("'\"").split("=")[0] in config_keys(), f"no key {word}"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http|#)([^)]+)\)", README))))
def test_links_and_pictures_exist(target):
    assert (ROOT / target).exists()
