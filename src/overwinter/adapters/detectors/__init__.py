"""What finds confidential values in texts: shapes by Hyperscan and google-re2, check digits, the user's own words."""

from collections.abc import Sequence

from overwinter.adapters.detectors import personal, secrets
from overwinter.adapters.detectors.automata import AutomatonFailed
from overwinter.adapters.detectors.patterns import Patterns
from overwinter.adapters.detectors.words import WordList, Words
from overwinter.gateway.redaction import Detector

__all__ = ["AutomatonFailed", "WordList", "detectors"]


def detectors(words: Sequence[WordList] = (), *, has_ip: bool = False) -> Sequence[Detector]:
    """Return every detector. Takes 0.3 s: make them once.

    One pass for secrets; two for personal data, for lines and then in them.

    Raises:
        UsageError: the words cannot be used.
        AutomatonFailed: Hyperscan does not run on this machine.
    """
    shapes = [Patterns("secrets", secrets.patterns()), Patterns("personal data", personal.patterns(has_ip=has_ip))]
    return [*shapes, Words(words)] if words else shapes
