"""`python -m overwinter`."""

import gc
import sys

__all__ = ["main"]

IMPORTED_MAX = 10_000
"""Values made and kept from which on Python looks for cycles among them. Importing what a server needs keeps 400,000, and was a tenth
slower (350 ms) with Python's own 700."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ends: docs/errors.md."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(IMPORTED_MAX, *gc.get_threshold()[1:])
    try:
        from overwinter.faces.cli import cli  # noqa: PLC0415 - Ctrl-C is no traceback while this is imported either

        cli(prog_name="overwinter")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
