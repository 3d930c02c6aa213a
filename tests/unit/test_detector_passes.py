"""The passes that say where to search miss nothing: what is found is what each pattern finds in the whole text, by itself."""

import re
import sys
import tracemalloc
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bench.confidential import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.detectors import personal, secrets
from overwinter.adapters.detectors.automata import ENDS_MAX, AutomatonFailed, Regex, Scan, Span
from overwinter.adapters.detectors.patterns import Pattern, Patterns
from overwinter.adapters.models.redacting import redaction
from overwinter.declared import GatewaySettings
from overwinter.errors import ConfigInvalid
from overwinter.gateway.redaction import Found

PERSONAL = personal.patterns(has_ip=True)
SECRETS = secrets.patterns()
DETECTORS = {"personal": (PERSONAL, Patterns("personal", PERSONAL)), "secrets": (SECRETS, Patterns("secrets", SECRETS))}
REGEXES = {each.regex: Regex(each.regex, is_bytes=True) for each in (*PERSONAL, *SECRETS)}
SAMPLES = [each.text for each in samples(seed=11, each=12)]
SLOW = frozenset(each.regex for each in SECRETS if len(each.regex) > 1_000 or "(?s" in each.regex)
"""Whose texts take hypothesis seconds to make."""


def is_known_to_python(pattern: Pattern) -> bool:
    """Return whether Python can read a regular expression: then texts of its form can be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            re.compile(pattern.regex.encode())
        except (re.error, FutureWarning):
            return False
    return pattern.regex not in SLOW


SHAPES = [each.regex.encode() for each in (*PERSONAL, *SECRETS) if is_known_to_python(each)]
shaped = st.integers(0, len(SHAPES) - 1).flatmap(lambda at: st.from_regex(SHAPES[at]))
pieces = st.one_of(
    st.integers(0, len(SAMPLES) - 1).map(lambda at: SAMPLES[at]),
    shaped.map(lambda raw: raw.decode(errors="replace")[:300]),
    st.text("0123456789 .-/()+@:ADX\u00a0é", max_size=30),
    st.sampled_from(
        [
            "password=",
            "api_key: '",
            'secret = "',
            "token => ",
            "tel. ",
            "curl -H '",
            "sk-",
            "\x0b",
            "key ?= ",
            "\u00a0",
            "ß",
            "\udc80",
        ]
    ),
)
texts = st.lists(st.tuples(pieces, st.sampled_from(["\n", "\r\n", " ", "", "\n\n\n"])), max_size=6).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)


def searched(pattern: Pattern, text: str) -> Iterator[Found]:
    """Yield what a pattern finds in a text, without any pass before."""
    if pattern.words and not any(word in text.lower() for word in pattern.words):
        return
    raw = text.encode("utf-8", "surrogatepass")
    for whole, *groups in REGEXES[pattern.regex].within(raw):
        inner = next((each for each in groups if each[0] >= 0), whole)
        yield from pattern.look(text, chars(raw, whole), chars(raw, inner))


def chars(raw: bytes, span: Span) -> Span:
    """Return a span of bytes as one of characters; one that begins or ends within a character takes it whole."""
    begins = [at for at, byte in enumerate(raw) if byte & 0xC0 != 0x80]
    return bisect_right(begins, span[0]) - 1 if raw else 0, bisect_left(begins, span[1])


@pytest.mark.parametrize("name", DETECTORS)
@given(several=st.lists(texts, min_size=1, max_size=4))
def test_in_texts_is_found_what_each_pattern_finds_by_itself(name: str, several: list[str]):
    patterns, detector = DETECTORS[name]
    for text, found in zip(several, detector.find(several), strict=True):
        alone = {each for pattern in patterns if pattern.near is None for each in searched(pattern, text)}
        near = {each for pattern in patterns if pattern.near is not None for each in searched(pattern, text)}
        assert alone <= set(found)
        if len(text.encode("utf-8", "surrogatepass")) <= secrets.NEAR_ASSIGNMENT[1]:
            assert near <= set(found)
        # A match that is none hides no other of an assignment, as it does where matches do not overlap.
        assert {each.kind for each in set(found) - alone - near} <= {"secret"}


@pytest.mark.parametrize("pattern", [each for each in SECRETS if each.near is not None], ids=["published", "own"])
@settings(max_examples=100)
@given(st.data())
def test_an_assignment_is_found_wherever_its_pattern_is(pattern: Pattern, data: st.DataObject):
    match = data.draw(st.from_regex(pattern.regex.encode(), fullmatch=True)).decode(errors="replace")
    text = match.encode("ascii", "ignore").decode()
    before, behind = pattern.near or (0, 0)
    if len(text) <= behind:
        spans = {whole for whole, *_ in REGEXES[pattern.regex].within(text.encode())}
        places = [end for _, end in Scan(pattern.sought).ends(text.encode()) or ()]
        for start, end in spans:
            assert any(place - before <= start and end <= place + behind for place in places), (text, places)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("def connect(access_key, user_auth_key = 'k3jX4h5Qz9tR7w')", "k3jX4h5Qz9tR7w"),
        ("secret_key, connection_key = x7Gk2Lq9Zt4Vb8Nm", "x7Gk2Lq9Zt4Vb8Nm"),
        ("type Key = service_account_key = 'k3jX4h5Qz9tR7w'", "k3jX4h5Qz9tR7w"),
        ("api:\n  gateway_access_key = k3jX4h5Qz9tR7w\n", "k3jX4h5Qz9tR7w"),
        ("password=\"example:token='h7!kd#92ks'\"", "h7!kd#92ks"),
        ("key ?= k3jX4h5Qz9tR7w8h\n", "k3jX4h5Qz9tR7w8h"),
    ],
)
def test_a_name_before_an_assignment_hides_it_not(text: str, value: str):
    assert value in {text[each.start : each.end] for each in DETECTORS["secrets"][1].find([text])[0]}


def may_be_a_finding(pattern: Pattern, match: bytes) -> bool:
    """Return whether a match has what its look asks for first: a telephone its digits, an address of IPv6 its colons."""
    said, address = PERSONAL[4].regex, PERSONAL[-1].regex
    if pattern.regex == said:
        return len(re.findall(rb"\d", match)) >= 7
    is_long = match.count(b":") == personal.COLONS and not match.endswith(b":")
    return pattern.regex != address or b"." in match or b"::" in match or is_long


@pytest.mark.parametrize("pattern", PERSONAL, ids=lambda pattern: pattern.regex[:30])
@given(st.data())
def test_a_match_is_in_one_line_and_has_what_its_line_must_have(pattern: Pattern, data: st.DataObject):
    match = data.draw(st.from_regex(pattern.regex.encode(), fullmatch=True))
    if may_be_a_finding(pattern, match):
        assert b"\n" not in match.strip(b"\n")
        assert Scan([pattern.line]).ends(match)
        assert Scan(pattern.sought).ends(match)


def test_an_account_that_is_written_letter_by_letter_is_found():
    text = "MT49 M A L T 0 1 1 0 0 A B C D 1 E F G H 2 J K L M 3 N P Q"
    assert [(each.kind, text[each.start : each.end]) for each in DETECTORS["personal"][1].find([text])[0]] == [
        ("iban", text)
    ]


@pytest.mark.parametrize("filler", ["1234567890", "AB12", "a@bcd.bcd.", "1.1.1.1.", "key = 'abcdefgh', ", "::"])
def test_a_text_in_which_something_is_everywhere_is_searched_whole(filler: str):
    """A pass that told of each place would take 200 bytes for each byte of such a text."""
    many = filler * (4 * ENDS_MAX // len(filler))
    values = "\nmail x@y.zz, pay 4111 1111 1111 1111\nghp_" + "aB3dE6gH9jK2" * 3
    for name, (_, detector) in DETECTORS.items():
        tracemalloc.start()
        found = detector.find([f"{many}\n{values}\n", "text", values])
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        kinds = {each.kind for each in found[2]}
        assert kinds == ({"secret"} if name == "secrets" else {"email", "card"})
        assert kinds <= {each.kind for each in found[0] if each.start >= len(many)}
        assert not found[1]
        assert peak_bytes < 80 << 20


@pytest.mark.parametrize("name", DETECTORS)
def test_a_text_in_which_something_is_everywhere_makes_the_others_no_dearer(name: str):
    """Each pattern that is in one, in each of 20,000 others, would be five million places."""
    words = " ".join({word for each in SECRETS for word in each.words})
    many = words + "1234567890 a@b.cc ::" * (ENDS_MAX // 8) + " aws" * 2 * ENDS_MAX
    tracemalloc.start()
    found = DETECTORS[name][1].find([many, *["x"] * 20_000, "mail x@y.zz, ghp_" + "aB3dE6gH9jK2" * 3])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {each.kind for each in found[-1]} == ({"secret"} if name == "secrets" else {"email"})
    assert peak_bytes < 150 << 20


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
    assert all(ends is not None and len(ends) == 40 for ends in alone)


def test_a_pattern_that_cannot_be_compiled_says_so():
    with pytest.raises(AutomatonFailed, match="cannot compile"):
        Scan(["("])


def test_where_hyperscan_cannot_be_imported_a_home_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    with pytest.raises(
        ConfigInvalid, match=r"gateway\.redact: hyperscan cannot be imported .*: install it anew; or redact nothing"
    ):
        redaction(GatewaySettings(redact={"secret": "mask"}), tmp_path, b"secret")
