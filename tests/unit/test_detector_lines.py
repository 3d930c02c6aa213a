"""Personal data is sought only in lines that have what each pattern needs: nothing is missed by that."""

import re
from dataclasses import replace

import pytest
from bench.confidential import samples
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.detectors import personal
from overwinter.adapters.detectors.automata import Regex
from overwinter.adapters.detectors.patterns import Pattern, Patterns

PATTERNS = personal.patterns(has_ip=True)
IN_LINES = Patterns("in lines", PATTERNS)
EVERYWHERE = Patterns("everywhere", [replace(each, line="") for each in PATTERNS])
SAMPLES = [each.text for each in samples(seed=11, each=12)]
DIGITS_MIN = 6
"""Some forms have room for fewer, and are no number then."""

shaped = st.sampled_from([each.regex for each in PATTERNS]).flatmap(lambda regex: st.from_regex(regex.encode()))
pieces = st.one_of(
    st.sampled_from(SAMPLES),
    shaped.map(lambda raw: raw.decode(errors="replace")),
    st.text("0123456789 .-/()+@:ADX\u00a0é", max_size=30),
)
texts = st.lists(st.tuples(pieces, st.sampled_from(["\n", "\r\n", " ", "", "\n\n\n"])), max_size=6).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)


@given(st.lists(texts, min_size=1, max_size=4))
def test_in_lines_is_found_what_is_found_everywhere(several: list[str]):
    for one, other in zip(IN_LINES.find(several), EVERYWHERE.find(several), strict=True):
        assert set(one) == set(other)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.regex[:30])
@given(st.data())
def test_a_match_is_in_one_line_and_has_what_its_line_must_have(pattern: Pattern, data: st.DataObject):
    match = data.draw(st.from_regex(pattern.regex.encode(), fullmatch=True))
    text = match.decode(errors="replace")
    if pattern.line != personal.SIX or len(re.findall(r"\d", text)) >= DIGITS_MIN:
        assert b"\n" not in match.strip(b"\n")
        assert Regex(pattern.line, is_bytes=True).first(match) is not None
