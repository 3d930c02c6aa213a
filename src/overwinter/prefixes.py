"""What a sequence comes to, item by item, where nearly every one is another that is known and one item more."""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Prefixes"]

Item = TypeVar("Item")
Sum = TypeVar("Sum")


class Prefixes(Generic[Item, Sum]):
    """Remembers what sequences come to, so that one which has grown by an item costs that item."""

    def __init__(self, first: Sum, following: Callable[[Sum, Item], Sum], *, remembered_max: int) -> None:
        """Make one that remembers nothing yet.

        Args:
            first: what an empty sequence comes to.
            following: what one comes to with an item more; a new value, the one given stays as it is.
            remembered_max: sequences; of those that grow only the longest counts.
        """
        self._first, self._following, self._remembered_max = first, following, remembered_max
        self._known: dict[tuple[Item, ...], Sum] = {}

    def of(self, items: tuple[Item, ...]) -> Sum:
        """Return what the items come to, in order."""
        found = self._known.pop(items, None)
        if found is None:
            found = self._grown(items)
        while len(self._known) >= self._remembered_max:
            del self._known[next(iter(self._known))]
        self._known[items] = found
        return found

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def _grown(self, items: tuple[Item, ...]) -> Sum:
        found, rest = self._known.pop(items[:-1], None) if items else None, items[-1:]
        if found is None:
            found, rest = self._first, items
        for item in rest:
            found = self._following(found, item)
        return found
