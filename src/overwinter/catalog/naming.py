"""Names of functions and parameters, made from what a source calls them. Never numbered: a number says nothing and moves.

Source of the rules: docs/architecture.md, section 6.
"""

import keyword
import re
from collections.abc import Collection, Sequence

__all__ = ["class_name", "distinct", "identifier", "snake"]

NAME_LENGTH_MAX = 80
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SIGNS = {"<": "_lt", ">": "_gt", "=": "_eq", "~": "_not", "!": "_not", "+": "_plus", "@": "_at"}


def snake(text: str, *, prefix: str = "") -> str:
    """Return a name in snake case, a Python identifier; `""` if nothing of the text can be one.

    Args:
        text: `"repos/listForOrg"`, `"GetChargesCharge"`.
        prefix: dropped from the front if something is left: the service's own name.
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", _HUMPS.sub(" ", text)) if word]
    name = "_".join(words).lower()[:NAME_LENGTH_MAX].strip("_")
    if prefix and name.startswith(f"{prefix}_"):
        name = name.removeprefix(f"{prefix}_")
    return _legal(name)


def identifier(text: str) -> str:
    """Return a parameter's name, kept as its source writes it where Python allows that."""
    if text.isidentifier() and text.isascii():
        return _legal(text)
    signs = "".join(_SIGNS.get(letter, letter) for letter in text.removesuffix("[]"))
    return _legal(re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", signs)).strip("_"))


def class_name(*parts: str) -> str:
    """Return the name of a type: `class_name("pull-request", "user")` is `"PullRequestUser"`."""
    words = [word for part in parts for word in re.split(r"[^A-Za-z0-9]+", _HUMPS.sub(" ", part)) if word]
    name = "".join(word[0].upper() + word[1:] for word in words)[:NAME_LENGTH_MAX] or "Value"
    return f"T{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def distinct(candidates: Sequence[str], taken: Collection[str]) -> str | None:
    """Return the first candidate that is a name and free; None if there is none."""
    return next((name for name in candidates if name and name not in taken), None)


def _legal(name: str) -> str:
    if not name:
        return ""
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
