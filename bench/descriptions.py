"""The API descriptions that the benches read: `bench/data`, and what `OVERWINTER_BENCH_DATA` adds."""

import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DATA", "descriptions", "rows"]

DATA = Path(__file__).parent / "data"


def descriptions() -> dict[str, bytes]:
    """Return every description by service name, as JSON. Twilio publishes one for each of its products."""
    found: dict[str, bytes] = {}
    more = os.environ.get("OVERWINTER_BENCH_DATA")
    for directory in (DATA, *([Path(more)] if more else [])):
        for path in sorted(directory.glob("*.json.xz")):
            name = path.name.removesuffix(".json.xz")
            raw = lzma.decompress(path.read_bytes())
            if name == "twilio":
                for file, document in json.loads(raw).items():
                    found[file.removesuffix(".json").lower()] = json.dumps(document).encode()
            else:
                found[name] = raw
    return found


def rows(name: str) -> Iterator[dict[str, object]]:
    """Yield the rows of a query set."""
    with lzma.open(DATA / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
