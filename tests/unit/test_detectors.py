import hashlib
import json
import random
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench.confidential import Sample, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.adapters.detectors import WordList, automata, detectors, secrets
from overwinter.adapters.detectors.automata import AutomatonFailed, Scan
from overwinter.adapters.detectors.words import Words
from overwinter.errors import UsageError
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Detector, Found, Redactor, Rules, Search
from overwinter.gateway.refusal import ModelRefused

SAMPLES = list(samples(seed=7, each=25))


class Together:
    name = "every shape"

    def __init__(self, every: Sequence[Detector]) -> None:
        self.every = every

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        return [
            [each for row in rows for each in row]
            for rows in zip(*(one.find(texts) for one in self.every), strict=True)
        ]


def test_the_rules_of_gitleaks_are_the_file_that_the_notice_names():
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    assert f"SHA-256 {hashlib.sha256(secrets.RULES.read_bytes()).hexdigest()}" in notice


@pytest.fixture(scope="module")
def shapes() -> Detector:
    return Together(detectors(has_ip=True))


def kinds(detector: Detector, text: str) -> set[tuple[str, str]]:
    return {(found.kind, text[found.start : found.end]) for found in detector.find([text])[0]}


def is_covered(sample: Sample, found: Sequence[Found]) -> bool:
    start = sample.text.index(sample.value)
    seen = {at for each in found if each.kind == sample.kind for at in range(each.start, each.end)}
    return seen.issuperset(range(start, start + len(sample.value)))


def test_of_made_up_values_at_least_99_percent_are_found_and_of_each_form_nearly_all(shapes: Detector) -> None:
    rows = shapes.find([sample.text for sample in SAMPLES])
    missed = [sample for sample, found in zip(SAMPLES, rows, strict=True) if not is_covered(sample, found)]
    assert len(missed) <= len(SAMPLES) / 100, missed
    assert max(Counter(sample.form for sample in missed).values(), default=0) <= 3, missed


def test_what_is_found_in_a_text_hangs_on_no_other_text(shapes: Detector) -> None:
    texts = [sample.text for sample in SAMPLES[::3]]
    together = shapes.find(texts)
    for text, found in zip(texts, together, strict=True):
        assert sorted(map(str, found)) == sorted(map(str, shapes.find([text])[0]))


@given(
    st.lists(
        st.sampled_from(
            [
                *(sample.text for sample in SAMPLES[::40]),
                "",
                "é",
                "curl x",
                "-----BEGIN ",
                "KEY-----",
                "a@",
                "b.cc",
                "4111 1111",
            ]
        )
    )
)
@settings(max_examples=50)
def test_texts_side_by_side_are_searched_apart(shapes: Detector, texts: list[str]) -> None:
    for text, found in zip(texts, shapes.find(texts), strict=True):
        assert sorted(map(str, found)) == sorted(map(str, shapes.find([text])[0]))


@pytest.mark.parametrize("form", ["visa", "amex", "de", "nl-bsn", "br-cpf", "no-fnr", "de-tax", "fr-nir", "ch-ahv", "es-dni", "fi-hetu", "cn-id", "uk-nhs", "ca-sin", "se-number", "pl-pesel"])  # fmt: skip
def test_a_wrong_check_digit_is_not_found(shapes: Detector, form: str) -> None:
    chance = random.Random(form)
    for sample in (each for each in SAMPLES if each.form == form):
        at = chance.choice([place for place, each in enumerate(sample.value) if each.isdigit()][-4:-1])
        other = str((int(sample.value[at]) + chance.choice([1, 3, 5])) % 10)
        wrong = sample.value[:at] + other + sample.value[at + 1 :]
        text = sample.text.replace(sample.value, wrong)
        assert (sample.kind, wrong) not in kinds(shapes, text), text


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3-4567.89012", "2026-11-25 17:35:46.123456", "0.4111111111111111", "id 4111111111111112",
        "0x4111111111111111ff", "commit 0fe7725378f2a4bbefb50be74f642f87a1b2c3d4", "1700000000000", "a1b2c3d4-0000-1111-2222-333344445555",
        "password = os.environ['PASSWORD']", 'token = "your-token-here"', "api_key: ${API_KEY}", "secret = vault:billing", 'password="<password>"',
        "@dataclass(frozen=True)", "logo@2x.png", "git@github.com:o/r", "x = a @ b.T", "1-800-000-0000", "order 123-45-678", "12345678 90",
        "DE89370400440532013001", "postgres://user@host/db", "postgres://user:${PASSWORD}@host/db", "123-456-789", "::1 127.0.0.1",
    ],
)  # fmt: skip
def test_what_only_looks_so_is_left_alone(shapes: Detector, text: str) -> None:
    assert kinds(shapes, text) == set()


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("flat 12 4111 1111 1111 1111 exp 12/29", "card", "4111 1111 1111 1111"),
        ("4111\u00a01111\u00a01111\u00a01111", "card", "4111\u00a01111\u00a01111\u00a01111"),
        ("Überweisung an DE89 3704 0044 0532 0130 00 bitte", "iban", "DE89 3704 0044 0532 0130 00"),
        ("écrire à jörg@müller.example, merci", "email", "jörg@müller.example"),
        ("<mailto:'a.b@c.org'>", "email", "a.b@c.org'"),
        ("from 203.0.113.9 to 2001:db8::17", "ip", "203.0.113.9"),
        ("from 203.0.113.9 to 2001:db8::17", "ip", "2001:db8::17"),
        ("ssn 078051120", "ssn", "078051120"),
        ("NINO AB 12 34 56 C", "national-id", "AB 12 34 56 C"),
        ("codice RSSMRA85T10A562S", "national-id", "RSSMRA85T10A562S"),
        ("😀 sk_live_4eC39HqLyjWDarjtT1zdp7dc 😀", "secret", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBkg", "secret", "-----BEGIN EC PRIVATE KEY-----"),
    ],
)
def test_known_values_are_found_whole(shapes: Detector, text: str, kind: str, value: str) -> None:
    assert (kind, value) in kinds(shapes, text) or (kind, value.rstrip("'")) in kinds(shapes, text)


def test_addresses_of_computers_are_left_alone_unless_asked_for() -> None:
    assert kinds(Together(detectors()), "from 203.0.113.9") == set()


def test_our_own_source_has_no_false_hits(shapes: Detector) -> None:
    files = [path.read_text(encoding="utf-8") for path in sorted(Path("src").rglob("*.py"))]
    found = [
        text[each.start : each.end]
        for text, row in zip(files, shapes.find(files), strict=True)
        for each in row
        if each.kind != "ip"
    ]
    assert [each for each in found if not each.endswith("@example.com")] == []


def test_every_published_rule_is_used() -> None:
    with secrets.RULES.open("rb") as file:
        rules = [rule for rule in tomllib.load(file)["rules"] if "regex" in rule]
    assert len(rules) == 221
    assert len(secrets.patterns()) == 221 + len(secrets.OWN)


def test_an_automaton_that_gives_up_is_an_error_and_refuses_the_call() -> None:
    shapes = detectors()[1]
    scan: Scan = shapes._line._scan  # type: ignore[attr-defined]
    scan._all._scratches = Scan(["too small for the other"])._all._scratches
    with pytest.raises(AutomatonFailed):
        scan.ends(b"text")
    scan._all._scratches = Scan(["too small for the other"])._all._scratches
    redactor = Redactor(Search([shapes], lambda: 0.0), Rules(), Vault(b"k"))
    with pytest.raises(ModelRefused, match=r"\(AutomatonFailed\)"):
        redactor.redact({"messages": b'["a@b.cc"]'}, {"messages"}, frozenset())
    assert redactor.redact({"messages": b'["a@b.cc"]'}, {"messages"}, frozenset())  # with a scratch of its own again


LISTS = (
    WordList(name="projects", words=("Blue Heron", "zephyr", "Straße 9", "Ärzte", "x-9", "naïve", "C++")),
    WordList(name="codes", words=("KIWI", "Kiwi Tree"), is_exact=True),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the blue heron flies", {("word:projects", "blue heron")}),
        ("ZEPHYR, zephyrs", {("word:projects", "ZEPHYR")}),
        ("STRASSE 9 straße 9", {("word:projects", "STRASSE 9"), ("word:projects", "straße 9")}),
        ("ärzte, Ärztekammer, A\u0308rzte", {("word:projects", "ärzte"), ("word:projects", "A\u0308rzte")}),
        ("kiwi KIWI Kiwi Trees", {("word:codes", "KIWI")}),
        ("Kiwi Tree", {("word:codes", "Kiwi Tree")}),
        ("C++, c++. AC++", {("word:projects", "C++"), ("word:projects", "c++")}),
        ("fox-9 x-9 x-91", {("word:projects", "x-9")}),
        ("NAÏVE", {("word:projects", "NAÏVE")}),
        ("blue\nheron", set()),
    ],
)
def test_own_words_are_found_whole_in_any_case_or_exactly(text: str, found: set[tuple[str, str]]) -> None:
    assert kinds(Words(LISTS), text) == found
    assert {(each.kind, text[each.start : each.end]) for each in Words(LISTS).find(["x", text, "heron"])[1]} == found


@pytest.mark.parametrize(
    "words",
    [WordList(name="a b", words=("abc",)), WordList(name="a", words=("a",)), WordList(name="a", words=("w",) * 60_000)],
)
def test_lists_that_cannot_be_used_are_refused(words: WordList) -> None:
    with pytest.raises(UsageError):
        Words([words])


def test_no_words_find_nothing() -> None:
    assert Words([]).find(["text", ""]) == [[], []]


def test_a_key_says_what_its_value_is() -> None:
    redactor = Redactor(Search(detectors(), lambda: 0.0), Rules(), Vault(b"k"))
    value = [
        {
            "type": "tool_use",
            "input": {"db_password": "0fe7725378f2a4bbefb50be74f642f87", "note": "0fe7725378f2a4bbefb50be74f642f87"},
        }
    ]
    there = redactor.redact({"messages": json.dumps(value).encode()}, {"messages"}, frozenset({"type"}))["messages"]
    assert json.loads(there)[0]["input"] == {
        "db_password": "[masked secret]",
        "note": "0fe7725378f2a4bbefb50be74f642f87",
    }


def test_no_regex_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="repetition"):
        automata.Regex("a{0,4000}")
    assert capfd.readouterr().err == ""
