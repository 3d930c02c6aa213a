"""The credentials that a configuration names, and which of them cannot be read by this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Config
from overwinter.errors import OverwinterError
from overwinter.webhook import key_of

__all__ = ["KINDS", "missing"]

KINDS = ("services", "providers", "webhooks")
"""Tables of the configuration that name some."""


def missing(config: Config, directory: Path, home: Path, kinds: Sequence[str] = KINDS) -> list[str]:
    """Return for each credential that cannot be read where it is named and why; nobody is called.

    Args:
        config: the configuration.
        directory: where it lies.
        home: has the vault.
        kinds: of `KINDS`, those to look at.
    """
    references, found = References(directory, Vault(home)), list[str]()
    for place, value in _named(config):
        if not value or place.partition(".")[0] not in kinds:
            continue
        try:
            read = references.whole(value, place, name=place.rpartition(".")[2])
            if place.startswith("webhooks."):
                key_of(read)
        except OverwinterError as error:
            found.append(str(error))
        except ValueError as error:
            found.append(f"{place}: {error}")
    return found


def _named(config: Config) -> Iterator[tuple[str, str]]:
    """Yield place and reference of each; "": there is none."""
    for name, service in config.services.items():
        yield f"services.{name}.auth", service.auth if ":" in service.auth else ""
        yield f"services.{name}.client_secret", service.client_secret
        yield from ((f"services.{name}.headers.{each}", text) for each, text in service.headers.items())
        yield from ((f"services.{name}.env.{each}", text) for each, text in service.env.items())
    for name, provider in config.providers.items():
        yield f"providers.{name}.auth", provider.auth
    for name, webhook in config.webhooks.items():
        yield f"webhooks.{name}.secret", webhook.secret
