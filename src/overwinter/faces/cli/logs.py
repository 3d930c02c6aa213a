"""What a server says while it runs, one JSON object a line on standard error, for whoever gathers logs."""

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["JsonLines", "log_json"]


class JsonLines(logging.Formatter):
    """A record as JSON: when, how grave, who says it, what; and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said: dict[str, object] = {"at": at, "level": record.levelname.lower(), "from": record.name}
        said |= {"said": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def log_json() -> None:
    """Have everything that is logged from here on go to standard error, model calls too, a line each."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(lines)
    root.setLevel(logging.WARNING)
    logging.getLogger("overwinter").setLevel(logging.INFO)
