"""Answers to questions that are not the same but mean the same: an opt-in, said on every answer that is one.

A question is the text of a request's last message. All else of it (the system prompt, earlier turns, tools, limits, model) is its
frame, and only questions in one frame are compared. What they mean, an embedding model of the operator's own says, asked through
the gateway like any other, on the caller's budget.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Protocol, cast

from overwinter.frozen import frozen, replace
from overwinter.gateway.dialect import Asked

__all__ = ["KNOWN_MAX", "Known", "Question", "Similars", "nearest", "question", "unit", "vector_in"]

KNOWN_MAX = 500
"""Questions of one frame that are compared, the newest: 500 of 1,536 dimensions take some 20 ms."""
TEXT_CHARACTERS_MAX = 8_000
"""A longer text is no question."""
FIELDS: Mapping[str, str] = {"chat": "messages", "messages": "messages", "responses": "input", "gemini": "contents"}
BLANK = "\0question"


@frozen
class Question:
    """A request, cut into what is asked and all around it."""

    text: str
    frame: Asked
    """The same request with nothing in the place of the text."""


@frozen(kw_only=False)
class Known:
    """A question that was asked before."""

    answer: bytes
    """Key of its kept answer."""
    vector: bytes
    """Of unit length, as 32-bit floats."""


class Similars(Protocol):
    """Questions by frame, with a time to live."""

    async def known(self, frame: bytes, limit: int) -> Sequence[Known]:
        """Return the newest questions of a frame."""
        ...

    async def learn(self, frame: bytes, known: Known, *, until_us: int) -> None:
        """Keep a question for whoever asks another one like it."""
        ...


def question(asked: Asked) -> Question | None:
    """Return the question that a request is; None: it is none that could be compared."""
    field = FIELDS.get(asked.dialect)
    raw = asked.top.get(field or "")
    if field is None or raw is None:
        return None
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    found = (value, BLANK) if isinstance(value, str) else _last(value)
    if found is None or not len(found[0].strip()) > 0 or len(found[0]) > TEXT_CHARACTERS_MAX:
        return None
    text, blank = found
    frame = json.dumps(blank, separators=(",", ":")).encode()
    return Question(text=text, frame=replace(asked, top={**asked.top, field: frame}, path=_path(asked.path)))


def _last(rows: object) -> tuple[str, object] | None:
    """Return the text of the last message and the messages without it."""
    if not isinstance(rows, list) or not rows or not isinstance(rows[-1], dict):
        return None
    earlier, last = cast("list[Any]", rows[:-1]), cast("dict[str, Any]", rows[-1])
    if last.get("role", "user") != "user":
        return None
    for key in ("content", "parts"):
        value = last.get(key)
        if isinstance(value, str):
            return value, [*earlier, {**last, key: BLANK}]
        if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
            part: object = cast("list[object]", value)[0]
            table = cast("dict[str, object]", part) if isinstance(part, dict) else {}
            if isinstance(text := table.get("text"), str):
                return text, [*earlier, {**last, key: [{**table, "text": BLANK}]}]
    return None


def _path(path: str) -> str:
    """Return a path that is the same for a stream and a whole answer: Gemini has two."""
    return path.partition("?")[0].replace(":streamGenerateContent", ":generateContent")


def vector_in(body: bytes) -> bytes:
    """Return the vector of an answer to an embeddings request of one text.

    Raises:
        ValueError: there is none in it.
    """
    try:
        row: Any = json.loads(body)["data"][0]["embedding"]
        return unit([float(each) for each in row])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("no vector came") from error


def unit(vector: Sequence[float]) -> bytes:
    """Return a vector of unit length, as 32-bit floats.

    Raises:
        ValueError: it has no length.
    """
    length = sqrt(sum(each * each for each in vector))
    if not length:
        raise ValueError("the vector is zero")
    return array("f", [each / length for each in vector]).tobytes()


def nearest(vector: bytes, known: Sequence[Known]) -> tuple[Known, float] | None:
    """Return the question that is most like a vector, and the cosine between them; None: there is none of its length."""
    wanted = array("f", vector)
    best: tuple[Known, float] | None = None
    for each in known:
        if len(each.vector) != len(vector):
            continue
        score = sum(map(float.__mul__, wanted, array("f", each.vector)))
        if best is None or score > best[1]:
            best = each, score
    return best
