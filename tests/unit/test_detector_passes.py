"""The passes that say where to search miss nothing: what is found is what each pattern finds in the whole text, by itself."""

import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from bench.confidential import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.detectors import personal, secrets
from overwinter.adapters.detectors.automata import AutomatonFailed, Regex, Scan
from overwinter.adapters.detectors.patterns import EVERYWHERE, Pattern, Patterns
from overwinter.gateway.redaction import Found

PERSONAL = personal.patterns(has_ip=True)
SECRETS = secrets.patterns()
DETECTORS = {"personal": (PERSONAL, Patterns("personal", PERSONAL)), "secrets": (SECRETS, Patterns("secrets", SECRETS))}
REGEXES = {each.regex: Regex(each.regex, is_bytes=True) for each in (*PERSONAL, *SECRETS)}
SAMPLES = [each.text for each in samples(seed=11, each=12)]
SLOW = frozenset(each.regex for each in SECRETS if len(each.regex) > 1_000 or "(?s" in each.regex)
"""Whose texts take hypothesis seconds to make."""


def known_to_python(pattern: Pattern) -> bool:
    """Return whether Python can read a regular expression: then texts of its form can be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern.regex.encode())
        except re.error:
            return False
    return pattern.regex not in SLOW


shaped = st.sampled_from([each for each in (*PERSONAL, *SECRETS) if known_to_python(each)]).flatmap(
    lambda pattern: st.from_regex(pattern.regex.encode())
)
pieces = st.one_of(
    st.sampled_from(SAMPLES),
    shaped.map(lambda raw: raw.decode(errors="replace")[:300]),
    st.text("0123456789 .-/()+@:ADX\u00a0é", max_size=30),
    st.sampled_from(
        ["password=", "api_key: '", 'secret = "', "token => ", "tel. ", "curl -H '", "sk-", "\x0b", "key ?= "]
    ),
)
texts = st.lists(st.tuples(pieces, st.sampled_from(["\n", "\r\n", " ", "", "\n\n\n"])), max_size=6).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)


def searched(pattern: Pattern, text: str) -> Iterator[Found]:
    """Yield what a pattern finds in a text of ASCII, without any pass before."""
    if pattern.words and not any(word in text.lower() for word in pattern.words):
        return
    for whole, *groups in REGEXES[pattern.regex].within(text.encode()):
        yield from pattern.look(text, whole, next((each for each in groups if each[0] >= 0), whole))


@pytest.mark.parametrize("name", DETECTORS)
@given(several=st.lists(texts, min_size=1, max_size=4))
def test_in_texts_is_found_what_each_pattern_finds_by_itself(name: str, several: list[str]):
    patterns, detector = DETECTORS[name]
    several = [text.encode("ascii", "ignore").decode() for text in several]
    for text, found in zip(several, detector.find(several), strict=True):
        alone = {
            each for pattern in patterns if pattern.near == EVERYWHERE for each in searched(pattern, text)
        }  # an assignment is sought a little ahead and behind alone
        assert alone <= set(found)
        assert set(found) - alone <= {
            each for pattern in patterns if pattern.near != EVERYWHERE for each in searched(pattern, text)
        } | {each for each in found if each.kind == "secret" and len(text) > sum(secrets.NEAR_ASSIGNMENT)}


@pytest.mark.parametrize("pattern", [each for each in SECRETS if each.near != EVERYWHERE], ids=["published", "own"])
@settings(max_examples=100)
@given(st.data())
def test_an_assignment_is_found_wherever_its_pattern_is(pattern: Pattern, data: st.DataObject):
    match = data.draw(st.from_regex(pattern.regex.encode(), fullmatch=True)).decode(errors="replace")
    text = match.encode("ascii", "ignore").decode()
    before, behind = pattern.near
    if len(text) <= behind:
        spans = {whole for whole, *_ in REGEXES[pattern.regex].within(text.encode())}
        places = [end for _, end in Scan(pattern.sought).ends(text.encode())]
        for start, end in spans:
            assert any(place - before <= start and end <= place + behind for place in places), (text, places)


@pytest.mark.parametrize("pattern", PERSONAL, ids=lambda pattern: pattern.regex[:30])
@given(st.data())
def test_a_match_is_in_one_line_and_has_what_its_line_must_have(pattern: Pattern, data: st.DataObject):
    match = data.draw(st.from_regex(pattern.regex.encode(), fullmatch=True))
    text = match.decode(errors="replace")
    if list(pattern.look(text, (0, len(text)), (0, len(text)))):
        assert b"\n" not in match.strip(b"\n")
        assert Scan([pattern.line]).ends(match)
        assert Scan(pattern.sought).ends(match)


def test_what_hyperscan_reads_otherwise_than_re2_is_in_no_class_that_excludes():
    """Its `\\s` has the vertical tab, RE2's has not: `[^\\s]` would find less."""
    sought = [each for pattern in (*PERSONAL, *SECRETS) for each in (*pattern.sought, pattern.line)]
    assert [each for each in sought if re.search(r"\[\^[^\]]*\\s|\\S", each)] == []


def test_threads_may_share_a_scan():
    scan = Scan([r"\d{4}", "needle"])
    several = [("haystack " * size + "needle 1234 ").encode() * 20 for size in range(400)]
    alone = [scan.ends(text) for text in several]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(scan.ends, several)) == alone
    assert all(len(ends) == 40 for ends in alone)


def test_a_pattern_that_cannot_be_compiled_says_so():
    with pytest.raises(AutomatonFailed, match="cannot compile"):
        Scan(["("])
