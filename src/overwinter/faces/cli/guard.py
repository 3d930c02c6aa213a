"""What every command shares: where its home is, JSON or text, and errors as one sentence with an exit code."""

import errno
import os
import pwd
import re
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from overwinter.errors import OverwinterError, UsageError
from overwinter.faces.cli.render import print_json, safe, safe_lines

__all__ = ["After", "Home", "Json", "Limit", "Person", "guarded", "me", "more", "once", "seconds"]

EXIT_INTERRUPTED = 130
OS_ERROR_CHARACTERS_MAX = 400
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The home directory; $OVERWINTER_HOME, else .overwinter", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine")]


def _named(person: str | None) -> str | None:
    if person is not None and not person.strip():
        raise typer.BadParameter("nobody is named: is a variable of your shell not set?")
    return person


Person = Annotated[
    str | None,
    typer.Option(
        "--as",
        envvar="OVERWINTER_AS",
        help="The person for whom you act; you, if not given",
        show_default=False,
        callback=_named,
    ),
]

Limit = Annotated[int, typer.Option("--limit", "-n", help="How many at most", min=1, max=1_000)]
After = Annotated[
    str | None, typer.Option("--after", help="Behind the end of the page before, as it says", show_default=False)
]

P = ParamSpec("P")


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """Return the command with its operating errors as one sentence and an exit code."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except OverwinterError as error:
            _fail(error, is_json=bool(kwargs.get("is_json")))
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say nothing more
            raise typer.Exit(0) from None
        except OSError as error:
            typer.echo(f"overwinter: {safe(str(error)[:OS_ERROR_CHARACTERS_MAX])}", err=True)
            if error.errno in (errno.ENOSPC, errno.EIO):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write fails as well
            raise typer.Exit(1) from None

    return called


def once() -> str:
    """Return a key under which this command may repeat its request when a server goes away before it has answered."""
    return f"command-{os.urandom(16).hex()}"


def more(found: Mapping[str, Any]) -> None:
    """Say how the next page is had, if there is one."""
    if found.get("following"):
        typer.echo(f"there are more: --after {safe(found['following'])}", err=True)


def me() -> str:
    """Return who uses this command, as the operating system knows them: what the home finds at its socket, whatever $USER says."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def seconds(text: str) -> float:
    """Return a length of time.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise UsageError(f"{text!r} is no length of time: write 30d, 12h, 5m or 10s")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def _fail(error: OverwinterError, *, is_json: bool) -> NoReturn:
    if is_json:
        from overwinter.faces import wire  # noqa: PLC0415 - `--version` and `--help` need no words of the API

        print_json(wire.error(error))
    else:
        typer.echo(f"overwinter: {safe_lines(str(error))}", err=True)
    raise typer.Exit(error.exit_code)
