"""Redaction as overwinter.toml says: rules, detectors, the file of the operator's own words."""

import json
import time
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import cast

from overwinter.adapters.dialects.request import elements
from overwinter.declared import OTHERWISE, GatewaySettings
from overwinter.errors import ConfigInvalid, UsageError
from overwinter.gateway.cleaning import Cleaner, Redaction
from overwinter.gateway.redaction import Action, Rules, Search

__all__ = ["LIST", "redaction"]

LIST = "own"
"""Name of the list of words: its class is `word:own`, and a rule says `word`."""
COMMENT = "# "


def redaction(settings: GatewaySettings, directory: Path, secret: bytes) -> tuple[Cleaner, str]:
    """Return what cleans requests, and the version of its rules.

    Args:
        settings: of the gateway.
        directory: where `overwinter.toml` lies.
        secret: of the home.

    Raises:
        ConfigInvalid: the file of words cannot be used, or the automata cannot be made on this machine.
    """
    if not (settings.redact or settings.redact_answers or settings.words):
        return Cleaner(), ""
    from overwinter.adapters import detectors  # noqa: PLC0415 - 3 MB with google-re2, and many homes redact nothing

    words = _words(directory / settings.words) if settings.words else ()
    has_ip = "ip" in {*settings.redact, *settings.redact_answers}
    try:
        lists = [detectors.WordList(name=LIST, words=words)] if words else ()
        every = detectors.detectors(lists, has_ip=has_ip)
    except UsageError as error:
        raise ConfigInvalid(f"{settings.words}: {error}") from error
    except detectors.AutomatonFailed as error:
        raise ConfigInvalid(
            f"gateway.redact: {error}; or redact nothing: without `redact`, `redact_answers`, `words`"
        ) from error
    told = [dict(settings.redact), dict(settings.redact_answers), words, version("overwinter")]
    name = sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Redaction(Search(every, time.monotonic), rules_of(settings), secret, elements), name


def rules_of(settings: GatewaySettings) -> Rules:
    """Return the rules. Without a word about requests they go as they came."""
    answer = cast("Mapping[str, Action]", settings.redact_answers)
    if not (settings.redact or settings.words):
        return Rules(request={}, answer=answer, otherwise="leave")
    request = cast("dict[str, Action]", dict(settings.redact))
    otherwise = request.pop(OTHERWISE, "replace")
    request.setdefault("secret", "mask" if otherwise == "replace" else otherwise)
    request.setdefault("ip", "leave")
    return Rules(request=request, answer=answer, otherwise=otherwise)


def _words(path: Path) -> tuple[str, ...]:
    """Return the words of a file, one a line; lines that begin with `# ` are not words."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"gateway.words: {path} cannot be read: {error}") from error
    return tuple(each for line in lines if not line.startswith(COMMENT) and (each := line.strip()))
