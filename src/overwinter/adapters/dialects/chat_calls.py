"""Which call of a tool a delta of a streamed chat completion is of."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Calls"]


class Calls:
    """Tells the calls of one choice apart, as clients of many providers do.

    By their `index`, as the dialect says. Some providers leave it null, or say 0 of each call (Gemini's compatible endpoint,
    vLLM, proxies): there a call begins where a new id comes with a name. An id without a name begins none: some make up another
    one for every delta.
    """

    def __init__(self) -> None:
        self._ids = list[str | bytes]()
        """Of each call; empty: it has none."""
        self._by_index = dict[Any, int]()

    def of(self, delta: Mapping[str, Any], position: int, count: int) -> int:
        """Return the number of the call that a delta is of, from 0; one that is not among the earlier ones begins it.

        Args:
            delta: an element of `tool_calls`.
            position: of it among those of its chunk.
            count: of those of its chunk.
        """
        is_named = bool((delta.get("function") or delta.get("custom") or {}).get("name"))
        return self.number(delta.get("index"), delta.get("id") or "", position, count, is_named=is_named)

    def number(self, index: Any, name: str | bytes, position: int, count: int, *, is_named: bool) -> int:
        """Return the same for a delta with this index and id, that has the name of a tool or none."""
        number = self._known(index, name, position, count, is_named=is_named)
        if number is None:
            number = len(self._ids)
            self._ids.append(name)
        if index is not None:
            self._by_index[index] = number
        self._ids[number] = self._ids[number] or name
        return number

    def _known(self, index: Any, name: str | bytes, position: int, count: int, *, is_named: bool) -> int | None:
        if index is not None:
            number = self._by_index.get(index)
            if number is None or not is_named or not name or self._ids[number] in ("", b"", name):
                return number
            return self._ids.index(name) if name in self._ids else None
        if name and name in self._ids:
            return self._ids.index(name)
        if is_named or not self._ids:
            return None
        return position if count > 1 and position < len(self._ids) else len(self._ids) - 1
