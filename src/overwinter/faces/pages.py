"""Lists in pages: how many, behind which one, and where the next page begins.

Every list takes `limit`, at most `PAGE_MAX`, and `after`, which is the `following` of the page before; `following` is null on
the last page. What comes or goes meanwhile moves nothing: a page is never skipped and never shown twice.
"""

from collections.abc import Mapping

from overwinter.errors import UsageError
from overwinter.faces.bodies import number_of
from overwinter.ids import ID_LENGTH, from_bytes, to_bytes
from overwinter.store import After

__all__ = ["PAGE", "PAGE_MAX", "after_of", "id_of", "limit_of", "place_of"]

PAGE_MAX = 1_000
PAGE = 100


def limit_of(query: Mapping[str, str], default: int = PAGE) -> int:
    """Return how many are wanted.

    Raises:
        UsageError: it is no number, or not between 1 and `PAGE_MAX`.
    """
    return number_of("limit", query.get("limit", str(default)), least=1, most=PAGE_MAX)


def place_of(after: After | None) -> str | None:
    """Return a place in the list of questions as a text."""
    return None if after is None else f"{after.made_us}-{after.run_id}:{after.index}"


def after_of(text: str | None) -> After | None:
    """Return the place that `place_of` wrote.

    Raises:
        UsageError: it did not write this.
    """
    if not text:
        return None
    made, _, question = text.partition("-")
    run_id, _, index = question.partition(":")
    if not (made.isdecimal() and index.isdecimal() and max(len(made), len(index)) < 19 and len(run_id) == ID_LENGTH):  # noqa: PLR2004 - 64 bits
        raise UsageError(f"after={text!r:.60} is no place in the list: give the `following` of the page before")
    return After(made_us=int(made), run_id=id_of(run_id) or "", index=int(index))


def id_of(text: str | None) -> str | None:
    """Return the id of a run.

    Raises:
        UsageError: it is none.
    """
    try:
        return None if not text else from_bytes(to_bytes(text))
    except ValueError as error:
        raise UsageError(str(error)) from error
