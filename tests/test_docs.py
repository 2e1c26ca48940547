"""The documentation names what exists: scripts, options, keys, files, sections."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.cli import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[!.]*/README.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
PYTHONS = {"python", "python3", ".venv/bin/python"}


def config_keys() -> set[str]:
    config = OmegaConf.load(ROOT / "src" / "config.yaml")
    return {f"{group}.{key}" for group in config if group not in ("hydra", "defaults") for key in config[group]}


def commented_keys() -> list[str]:
    """Keys of the configuration in lines of the form `key: default  # meaning`."""
    keys, group = [], None
    for line in (ROOT / "src" / "config.yaml").read_text(encoding="utf-8").splitlines():
        if start := re.match(r"(\w+):", line):
            group = start.group(1)
        elif (entry := re.match(r"  (\w+): (.*?)\s+# (.*)$", line)) and f"{group}.{entry.group(1)}" in config_keys():
            keys.append(f"{group}.{entry.group(1)}")
    return keys


def commands_of(text: str) -> list[str]:
    """Commands in a page: the lines of its `sh` blocks, and `code` in the text that begins like one."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fence.findall(text) if language == "sh"]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python3? |\./|pip |bash )[^`\n]+)`", fence.sub("", text))
    return [part.strip() for line in lines for part in line.split(" && ") if part.strip()]


def problems(command: str) -> list[str]:
    """What a command names that does not exist."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    missing = [word for option, word in itertools.pairwise(words) if option == "-r" and not exists(word)]
    python = next((place for place, word in enumerate(words) if word in PYTHONS), None)
    if python is None:
        return missing + [word for word in words[:1] if word.startswith("./") and not exists(word)]
    script, *arguments = words[python + 1 :] or [""]
    if not script.endswith(".py"):
        return missing
    if not exists(script):
        return [*missing, script]
    return missing + [word for word in arguments if not known(word, script)]


def exists(path: str) -> bool:
    return (ROOT / path).exists()


def known(word: str, script: str) -> bool:
    """Is a word of a command line an existing option or key, or neither of both?"""
    if script.endswith(("train.py", "train_step.py")):
        if re.match(r"\+?[a-z_.]+=", word):
            return word.split("=")[0] in config_keys() or word.split(".")[0] == "hydra"
        if word in ("-m", "--multirun", "--help"):
            return True
    if not re.match(r"--?[a-z]", word):
        return True
    return word == "--help" or f'"{word}"' in (ROOT / script).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_key_has_a_comment():
    assert set(commented_keys()) == config_keys()


@pytest.mark.parametrize("page", TEXTS)
def test_commands_name_existing_scripts_options_and_keys(page):
    wrong = {command: missing for command in commands_of(TEXTS[page]) if (missing := problems(command))}
    assert not wrong


def test_commands_are_found():
    commands = {page: commands_of(text) for page, text in TEXTS.items()}
    assert any(c.startswith("python create_db.py --db imdb ") for c in commands["README.md"])
    assert len(commands["docs/demo.md"]) >= 5
    assert any("data.db=appa_real" in c and "train.lr=0.0001" in c for c in commands["appa-real/README.md"])


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("python gone.py --help", ["gone.py"]),
        ("KERAS_BACKEND=jax srun -n 4 python train.py train.lr=1 train.gone=2 'data.db=[a,b]'", ["train.gone=2"]),
        (".venv/bin/python demo.py --image_dir samples --gone  # --not_this", ["--gone"]),
        ("pip install -r requirements-gone.txt", ["requirements-gone.txt"]),
        ("./gone.sh wiki", ["./gone.sh"]),
        ("SPACE_FACTOR=0 ./download.sh wiki", []),
    ],
)
def test_what_does_not_exist_is_noticed(command, missing):
    assert problems(command) == missing


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXTS[page]):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_readme_is_short_and_leads_to_every_page():
    assert len(README.encode()) <= 9_000
    for page in Path(ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in README
