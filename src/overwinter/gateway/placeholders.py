"""What stands in a text in the place of a value, and how it becomes the value again.

`OW_EMAIL_3f9a2c1b7d4e0586`: letters, digits and underscores only, so that it comes through JSON, Markdown, addresses and shells
as it is; of fixed length, so that nothing beside it can change where it ends; an HMAC of the value under the run's own key, so
that the same value has the same placeholder in every turn and nobody can tell the value from it or make one up.
"""

import hmac
import json
import re
from collections.abc import Mapping
from threading import Lock

__all__ = ["DIGITS", "LABEL_MAX", "LOOKS_LIKE", "Vault", "mask"]

VALUES_MAX = 20_000
"""A run's values; of more, those longest unseen are forgotten, and their placeholders stay as they are in later answers."""
DIGITS = 16
"""64 bits: among 20,000 values two alike have a chance of 1 in 10^11; a clash is refused, never mixed up."""
LABEL_MAX = 12
LOOKS_LIKE = re.compile(rf"OW_[A-Z]{{1,{LABEL_MAX}}}_[0-9a-f]{{{DIGITS}}}")
_NOT_LETTERS = re.compile("[^A-Z]")


class Vault:
    """The values of one run behind their placeholders. Confidential: keep it encrypted, and never log it."""

    def __init__(self, key: bytes, values: Mapping[str, str] | None = None, *, values_max: int = VALUES_MAX) -> None:
        self._key = key
        self._values = dict(values or {})
        self._values_max = values_max
        self._lock = Lock()
        """A large request is redacted in a thread, another one of the same run perhaps at the same time."""

    def put(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, which can be restored from now on.

        Raises:
            ValueError: another value has it already.
        """
        tag = hmac.digest(self._key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]
        placeholder = f"OW_{_label(kind)}_{tag}"
        with self._lock:
            if self._values.pop(placeholder, value) != value:
                raise ValueError("two values have one placeholder")
            self._values[placeholder] = value  # the latest last
            if len(self._values) > self._values_max:
                del self._values[next(iter(self._values))]
        return placeholder

    @property
    def count(self) -> int:
        """Return how many values there are."""
        return len(self._values)

    def join(self, other: "Vault") -> None:
        """Take in the values of another vault under the same key."""
        with self._lock:
            self._values.update(other.values())

    def has(self, placeholder: str) -> bool:
        """Return whether a placeholder has a value."""
        return placeholder in self._values

    def restored(self, text: str, *, is_json: bool = False) -> str:
        """Return a text with values for their placeholders; in a fragment of JSON they are escaped."""
        if "OW_" not in text:
            return text
        return LOOKS_LIKE.sub(lambda found: self._value(found[0], is_json=is_json), text)

    def values(self) -> Mapping[str, str]:
        """Return all placeholders and their values, for a store that encrypts them."""
        return dict(self._values)

    def _value(self, placeholder: str, *, is_json: bool) -> str:
        value = self._values.get(placeholder)
        if value is None:
            return placeholder
        return json.dumps(value)[1:-1] if is_json else value


def mask(kind: str) -> str:
    """Return what stands for a value that is never restored."""
    return f"[masked {kind.partition(':')[0]}]"


def _label(kind: str) -> str:
    return _NOT_LETTERS.sub("", kind.partition(":")[0].upper())[:LABEL_MAX] or "VALUE"
