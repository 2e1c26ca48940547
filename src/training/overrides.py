"""Arguments of `train.py` as Hydra reads them."""

import os
import re
from collections.abc import Sequence

_TEXT_KEYS = (
    "data.db",
    "data.image_dir",
    "model.weights",
    "train.checkpoint_dir",
    "train.predictions",
    "train.resume",
    "wandb.project",
    "distributed.coordinator",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
"""Keys whose values are paths or names, and are read as typed."""
_CONSTANTS = ("", "null", "true", "false")


def hydra_arguments(arguments: Sequence[str], several: bool = False) -> list[str]:
    """Quote values of `key=value` arguments for Hydra, so that paths may hold any characters.

    Args:
        arguments: As typed. A value that is in quotes already, `null`, or a list in brackets is Hydra's own syntax.
        several: Hydra's `--multirun`: commas separate the values of several jobs.
    """
    return [_hydra_argument(argument, several) for argument in arguments]


def _hydra_argument(argument: str, several: bool) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in _TEXT_KEYS or value in _CONSTANTS:
        return argument
    if os.path.lexists(os.path.expanduser(value)):
        literal = value.replace("${", r"\${")  # no interpolation
        return f"{key}={_quote(literal)}"
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{_quote_items(value[1:-1])}]"
    return f"{key}={_quote_items(value) if several else _quote(value)}"


def _quote_items(values: str) -> str:
    items = re.findall(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]+""", values)
    return ",".join(_quote(item.strip()) for item in items)


def _quote(value: str) -> str:
    """Quote a value for Hydra, unless it is in quotes already or a constant."""
    if value in _CONSTANTS or (len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]):
        return value
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()
