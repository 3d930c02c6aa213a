"""`python -m overwinter`."""

from overwinter.faces.cli import cli

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    cli(prog_name="overwinter")


if __name__ == "__main__":
    main()
