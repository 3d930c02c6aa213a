"""Edits of JSON with comments and trailing commas, as text: what is not edited stays, byte for byte.

Only the objects on the way to a member are read; what lies beside it is skipped. A form that is not known here (unquoted
keys, single quotes, a key twice) is refused with its line, never guessed.
"""

import json
import re
from collections.abc import Sequence

from overwinter.frozen import frozen

__all__ = ["put", "take"]

_BLANK = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SCALAR = re.compile(r"[-+.\w]+")
_TOKEN = re.compile(r'(?P<string>"(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/|(?P<open>[\[{])|(?P<close>[\]}])|[^"/\[\]{}]+|.', re.DOTALL)  # fmt: skip
_REST_OF_LINE = re.compile(r"(?:[ \t]*/\*[^\n]*?\*/)*(?:[ \t]*//[^\n]*)?")
INDENT = "  "


@frozen
class _Member:
    key: str
    start: int
    """Of its key."""
    value: int
    end: int
    """Behind its value."""
    comma: int
    """Of the comma behind it; -1 if there is none."""


@frozen
class _Object:
    start: int
    close: int
    """Of its closing brace."""
    members: Sequence[_Member]

    def member(self, key: str) -> _Member | None:
        """Return the member of a key."""
        return next((each for each in self.members if each.key == key), None)


def put(text: str, path: Sequence[str], value: object) -> str:
    """Return the text with a member set; objects that are missing on the way are made, a blank text is an empty object.

    Raises:
        ValueError: the text is not of the form, or something else than an object is on the way; the message has the line.
    """
    if not text[_blank(text, 0) :]:
        text += "{}\n"
    place = _object(text, _blank(text, 0))
    for depth, key in enumerate(path):
        found = place.member(key)
        is_last = depth + 1 == len(path)
        if found is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _inserted(text, place, key, value)
        if is_last:
            written = _written(text, value, _indent_at(text, found.start), _unit(text, place))
            return text[: found.value] + written + text[found.end :]
        place = _object(text, found.value)
    raise ValueError("a member has a path")


def take(text: str, path: Sequence[str]) -> str:
    """Return the text without a member; comments outside of it stay.

    Raises:
        ValueError: as `put`, or there is no such member.
    """
    place = _object(text, _blank(text, 0))
    for key in path[:-1]:
        place = _object(text, _known(text, place, key).value)
    found = _known(text, place, path[-1])
    cuts = [(found.start, found.end)]
    if found.comma >= 0:
        cuts.append((found.comma, found.comma + 1))
    elif (number := place.members.index(found)) > 0:
        comma = place.members[number - 1].comma
        cuts.insert(0, (comma, comma + 1))
    for start, end in reversed(cuts):
        text = text[:start] + text[end:]
    start = found.start - (1 if cuts[0][0] < found.start else 0)
    return _without_blank_line(text, start)


def _known(text: str, place: _Object, key: str) -> _Member:
    if (found := place.member(key)) is None:
        raise ValueError(f"line {_line(text, place.start)}: it has no {key!r}")
    return found


def _inserted(text: str, place: _Object, key: str, value: object) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if not place.members:
        indent = _indent_at(text, place.start)
        written = f"{json.dumps(key)}: {_written(text, value, indent + INDENT, INDENT)}"
        head = text[: place.close].rstrip(" \t\r\n")
        return f"{head}{newline}{indent}{INDENT}{written}{newline}{indent}{text[place.close :]}"
    last = place.members[-1]
    indent, unit = _indent_at(text, last.start), _unit(text, place)
    written = f"{json.dumps(key)}: {_written(text, value, indent, unit)}"
    tail = "," if last.comma >= 0 else ""
    at = (last.comma if tail else last.end) + len(tail)
    head = text[:at] if tail else f"{text[:at]},"
    if "\n" not in text[place.start : place.close]:
        return f"{head} {written}{tail}{text[at:]}"
    behind = _REST_OF_LINE.match(text, at)
    rest = at if behind is None else behind.end()
    if text[rest - 1 : rest] == "\r":
        rest -= 1
    return f"{head}{text[at:rest]}{newline}{indent}{written}{tail}{text[rest:]}"


def _written(text: str, value: object, indent: str, unit: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return f"{newline}{indent}".join(lines)


def _indent_at(text: str, at: int) -> str:
    """Return the white space that the line of a place begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str, place: _Object) -> str:
    inner, outer = _indent_at(text, place.members[0].start), _indent_at(text, place.start)
    return inner[len(outer) :] if inner.startswith(outer) and len(inner) > len(outer) else INDENT


def _without_blank_line(text: str, at: int) -> str:
    """Return the text without the line at a place, if nothing is left on it."""
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    if end < 0 or text[start:end].strip():
        return text
    return text[:start] + text[end + 1 :]


# --- Reading -----------------------------------------------------------------------------------------------------------


def _object(text: str, at: int) -> _Object:
    if text[at : at + 1] != "{":
        raise ValueError(f"line {_line(text, at)}: an object was expected")
    members = list[_Member]()
    place = _blank(text, at + 1)
    while text[place : place + 1] != "}":
        member = _member(text, place)
        if any(each.key == member.key for each in members):
            raise ValueError(f"line {_line(text, place)}: {member.key!r} is there twice")
        members.append(member)
        place = _blank(text, member.end if member.comma < 0 else member.comma + 1)
        if member.comma < 0 and text[place : place + 1] != "}":
            raise ValueError(f"line {_line(text, place)}: a comma or a brace was expected")
    return _Object(start=at, close=place, members=members)


def _member(text: str, at: int) -> _Member:
    key = _STRING.match(text, at)
    if key is None:
        raise ValueError(f"line {_line(text, at)}: a key in double quotes was expected")
    colon = _blank(text, key.end())
    if text[colon : colon + 1] != ":":
        raise ValueError(f"line {_line(text, colon)}: a colon was expected")
    value = _blank(text, colon + 1)
    end = _value_end(text, value)
    behind = _blank(text, end)
    comma = behind if text[behind : behind + 1] == "," else -1
    return _Member(key=json.loads(key[0]), start=at, value=value, end=end, comma=comma)


def _value_end(text: str, at: int) -> int:
    first = text[at : at + 1]
    if first and first in "[{":
        depth = 0
        for token in _TOKEN.finditer(text, at):
            depth += (token["open"] is not None) - (token["close"] is not None)
            if depth == 0:
                return token.end()
        raise ValueError(f"line {_line(text, at)}: what is opened here is not closed")
    found = _STRING.match(text, at) or _SCALAR.match(text, at)
    if found is None:
        raise ValueError(f"line {_line(text, at)}: a value was expected")
    return found.end()


def _blank(text: str, at: int) -> int:
    """Return where the white space and the comments that begin at a place end."""
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
