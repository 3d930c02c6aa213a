"""How an operation gives a long list in pages, recognised by the names that nearly all APIs use. When in doubt it is none."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from overwinter.adapters.openapi.document import Document
from overwinter.catalog.operations import Argument

__all__ = ["paging"]

CURSORS = (
    "cursor",
    "page_token",
    "pageToken",
    "next_token",
    "nextToken",
    "page_cursor",
    "continuation_token",
    "PageToken",
)
NEXT = (
    "next_cursor", "nextCursor", "next_page_token", "nextPageToken", "next_token", "nextToken", "cursor", "continuation_token",
    "next_page_cursor",
)  # fmt: skip
WRAPPERS = ("response_metadata", "meta", "pagination", "page_info", "paging", "_metadata", "result_info")
PAGES = ("page", "page_number", "pageNumber", "page[number]")
SIZES = ("per_page", "perPage", "page_size", "pageSize", "limit", "PageSize", "page[size]", "max_results", "count")
OFFSETS = ("offset", "skip", "start", "startAt")


def paging(document: Document, arguments: Sequence[Argument], result: object) -> Mapping[str, Any] | None:
    """Return how to follow the pages of a list: which argument moves, and where items and the next cursor are."""
    names = [each.wire for each in arguments if each.place == "query" and not each.is_required]
    items = _items(document, result)
    if items is None:
        return None
    size = next((name for name in SIZES if name in names), None)
    common = {"items": items, "size": size}
    if "starting_after" in names and items == ["data"]:
        return {"kind": "last", "moves": "starting_after", "drops": ["ending_before"], **common}
    cursor = next((name for name in CURSORS if name in names), None)
    following = _next(document, result)
    if cursor is not None and following is not None:
        return {"kind": "cursor", "moves": cursor, "next": following, **common}
    page = next((name for name in PAGES if name in names), None)
    if page is not None and size is not None:
        return {"kind": "page", "moves": page, **common}
    offset = next((name for name in OFFSETS if name in names), None)
    if offset is not None and size is not None:
        return {"kind": "offset", "moves": offset, **common}
    return None


def _items(document: Document, result: object) -> list[str] | None:
    """Return the path to the one list in a result: `[]` if it is the result itself."""
    node = document.target(result)
    if node.get("type") == "array":
        return []
    lists = [key for key, each in _properties(node).items() if document.target(each).get("type") == "array"]
    named = [key for key in lists if key in ("data", "items", "results", "entries", "values")]
    chosen = named if len(named) == 1 else lists
    return chosen if len(chosen) == 1 else None


def _next(document: Document, result: object) -> list[str] | None:
    properties = _properties(document.target(result))
    for key in NEXT:
        if key in properties:
            return [key]
    for wrapper in WRAPPERS:
        inner = _properties(document.target(properties.get(wrapper)))
        for key in NEXT:
            if key in inner:
                return [wrapper, key]
    return None


def _properties(node: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = node.get("properties")
    return cast("Mapping[str, Any]", properties) if isinstance(properties, Mapping) else {}
