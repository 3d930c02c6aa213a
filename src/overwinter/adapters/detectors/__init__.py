"""What finds confidential values in texts: shapes by Hyperscan and google-re2, check digits, the user's own words."""

from collections.abc import Sequence

from overwinter.adapters.detectors import personal, secrets
from overwinter.adapters.detectors.patterns import Patterns
from overwinter.adapters.detectors.words import WordList, Words
from overwinter.gateway.redaction import Detector

__all__ = ["WordList", "detectors"]


def detectors(words: Sequence[WordList] = (), *, has_ip: bool = False) -> Sequence[Detector]:
    """Return every detector. Takes 0.2 s: make them once.

    A pass each, for personal data is sought in lines.

    Raises:
        UsageError: the words cannot be used.
        AutomatonFailed: this processor is none that Hyperscan knows.
    """
    shapes = [Patterns("secrets", secrets.patterns()), Patterns("personal data", personal.patterns(has_ip=has_ip))]
    return [*shapes, Words(words)] if words else shapes
