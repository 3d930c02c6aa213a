"""`python -m overwinter`."""

import gc

from overwinter.faces.cli import cli

__all__ = ["main"]

IMPORTED_MAX = 10_000
"""Values made and kept from which on Python looks for cycles among them. Importing what a server needs keeps 400,000, and was a tenth
slower (350 ms) with Python's own 700."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(IMPORTED_MAX, *gc.get_threshold()[1:])
    cli(prog_name="overwinter")


if __name__ == "__main__":
    main()
