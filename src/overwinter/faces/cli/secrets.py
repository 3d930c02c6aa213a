"""`overwinter secrets`: the vault of a home. No command prints a secret, and none takes one as an argument."""

import getpass
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from overwinter.errors import UsageError
from overwinter.faces.cli.door import home_path
from overwinter.faces.cli.guard import Home, Json, guarded
from overwinter.faces.cli.render import print_json

__all__ = ["secrets_cli"]

READ_MAX = 1 << 17
"""Characters read from standard input: above the largest secret, below what harms."""

secrets_cli = typer.Typer(
    no_args_is_help=True, help="The vault of this home: what `vault:NAME` in overwinter.toml means."
)
Name = Annotated[str, typer.Argument(help="As `vault:NAME` has it", show_default=False)]

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command of this group."""
    called = guarded(function)
    secrets_cli.command(function.__name__.removesuffix("_secret").removesuffix("_secrets"))(called)
    return called


@command
def set_secret(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Keep a secret: asked for without an echo, or read from standard input, less one line's end.

    A server that runs takes it at `overwinter tools refresh`.
    """
    from overwinter.adapters.vault import Vault  # noqa: PLC0415 - `--help` needs nothing of it

    try:
        secret = getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.read(READ_MAX).removesuffix("\n")
    except (EOFError, UnicodeDecodeError) as error:
        raise UsageError("no secret was given, or it is no text") from error
    Vault(home_path(home)).put(name, secret)
    print_json({"set": name}) if is_json else typer.echo(f"{name} is set: write vault:{name} in overwinter.toml")


@command
def list_secrets(*, home: Home = None, is_json: Json = False) -> None:
    """List the names of the secrets."""
    from overwinter.adapters.vault import Vault  # noqa: PLC0415 - as above

    names = Vault(home_path(home)).names()
    if is_json:
        print_json({"secrets": list(names)})
    else:
        typer.echo("\n".join(names) or "no secrets: overwinter secrets set NAME")


@command
def remove_secret(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Forget a secret. Connections that a running server has open keep it until they end."""
    from overwinter.adapters.vault import Vault  # noqa: PLC0415 - as above

    Vault(home_path(home)).remove(name)
    print_json({"removed": name}) if is_json else typer.echo(f"{name} is removed")
