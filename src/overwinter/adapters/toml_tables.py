"""Edits of TOML by whole tables, as text: what is not edited stays, byte for byte.

Each edit is read again and compared: a form in which a table is not under a header of its own is refused, never guessed.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

__all__ = ["put_table", "table_text", "take_table"]


def put_table(text: str, path: Sequence[str], table: Mapping[str, Any]) -> str:
    """Return the text with a new table at its end.

    Args:
        text: TOML.
        path: the names of the table, outermost first.
        table: texts, numbers, truth values, lists of texts.

    Raises:
        ValueError: there is one already, or it cannot be told there.
    """
    lines = [f"[{'.'.join(map(_key, path))}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())]
    return append(text, "\n".join(lines) + "\n", path, dict(table))


def append(text: str, block: str, path: Sequence[str], table: Mapping[str, Any]) -> str:
    """Return the text with a block at its end, which holds the table of a path."""
    newline = "\r\n" if "\r\n" in text else "\n"
    head = text if not text or text.endswith("\n") else text + newline
    made = head + (newline if head.strip() else "") + newline.join(block.split("\n"))
    wanted = _read(text)
    place = _inside(wanted, path[:-1])
    if path[-1] in place:
        raise ValueError(f"line {_line(text, path[-1])}: {'.'.join(path)} is there already")
    place[path[-1]] = table
    return _checked(made, wanted, text, path)


def take_table(text: str, path: Sequence[str]) -> str:
    """Return the text without a table and those in it; comments before the next table stay.

    Raises:
        ValueError: it is not under a header of its own; the message has the line.
    """
    wanted = _read(text)
    _inside(wanted, path[:-1]).pop(path[-1], None)
    parts = [body if not _is_in(header, path) else _behind(body) for header, body in _blocks(text)]
    return _checked("".join(parts), wanted, text, path)


def table_text(text: str, path: Sequence[str]) -> str:
    """Return the text of a table and those in it, as it stands there."""
    return "".join(body[: len(body) - len(_behind(body))] for header, body in _blocks(text) if _is_in(header, path))


def _checked(made: str, wanted: Mapping[str, Any], text: str, path: Sequence[str]) -> str:
    try:
        is_so = _without_empty(_read(made)) == _without_empty(wanted)
    except tomllib.TOMLDecodeError:
        is_so = False
    if not is_so:
        line, name = _line(text, path[-1]), ".".join(path)
        raise ValueError(f"line {line}: {name} is not written as a table [{name}]: edit it by hand")
    return made


def _read(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


def _without_empty(value: object) -> object:
    """Return a value without the tables that hold nothing: `[a]` may go with its last `[a.b]`."""
    if not isinstance(value, dict):
        return value
    inner = {key: _without_empty(each) for key, each in cast("dict[str, object]", value).items()}
    return {key: each for key, each in inner.items() if each != {}}


def _inside(document: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    for key in path:
        document = document.setdefault(key, {})
        if not isinstance(document, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - the file says what it is
            raise ValueError(f"{key!r} is no table")  # noqa: TRY004 - a fault of the file, like the others
    return document


def _blocks(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each header's path with the text from it to the next; () for what stands before the first."""
    header: tuple[str, ...] = ()
    body = ""
    for line in _lines(text):
        if (found := _header(line)) is not None:
            yield header, body
            header, body = found, ""
        body += line
    yield header, body


def _header(line: str) -> tuple[str, ...] | None:
    line = line.removeprefix("\ufeff")
    if not line.lstrip().startswith("["):
        return None
    try:
        node: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path = list[str]()
    while isinstance(node, dict | list) and node:
        if isinstance(node, list):
            node = cast("list[Any]", node)[0]
            continue
        key, node = next(iter(cast("dict[str, Any]", node).items()))
        path.append(key)
    return tuple(path)


def _lines(text: str) -> list[str]:
    """Return the lines with their ends, where TOML ends one: not at every character that Unicode calls a separator."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_in(header: Sequence[str], path: Sequence[str]) -> bool:
    return tuple(header[: len(path)]) == tuple(path)


def _behind(body: str) -> str:
    """Return the comments and blank lines at the end of a block: they belong to what follows."""
    lines = _lines(body)
    count = next((n for n, line in enumerate(reversed(lines)) if line.strip() and not line.lstrip().startswith("#")), 0)
    return "".join(lines[len(lines) - count :])


def _line(text: str, name: str) -> int:
    return next((number for number, line in enumerate(text.split("\n"), 1) if name in line), 1)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: object) -> str:
    """Return a value as TOML writes it; texts as JSON does, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
