"""What redaction costs and finds: requests of 20 KB with every detector, made-up values, source code and prose.

A request is a conversation of prose, source code, JSON of tools and a few made-up values, and no two are alike: a pattern's
automaton would know by heart what it has seen. Nothing is remembered between them but where `again` says so: the next turn of
a conversation, which sends all of it once more. `ms_20kb` is all of redaction, bytes to bytes; `cpu_ms` the same by the
processor's time, for a busy machine; the floor is `json.loads` and `json.dumps` of the same bytes. `recall` is the share of
made-up values that are covered whole, under the right class; a false hit is what is found in text that has no secrets, and no
personal data but e-mail addresses, which are counted apart.
"""

import json
import random
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.confidential import Sample, samples
from bench.report import percentile
from overwinter.adapters.detectors import WordList, detectors
from overwinter.adapters.dialects.request import elements
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Detector, Found, Redactor, Rules, Search

SIZE = 20 * 1024
WORDS = 2_000
"""Of the user's own."""
VALUES = 3
"""Made-up ones in a request."""
WARM_UP = 100
"""Requests after which the automata have most of their states, as in a server that has answered for a minute."""
OPAQUE = frozenset({"id", "type", "role", "tool_call_id"})


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    began = time.perf_counter()
    every = detectors([WordList(name="own", words=own_words())], has_ip=True)
    load_s = time.perf_counter() - began
    made = list(samples(seed=2, each=10 if is_small else 100))
    requests = list(conversations(WARM_UP + (20 if is_small else 200), made))
    return {
        "n": len(requests) - WARM_UP,
        "kb": round(statistics.mean(map(len, requests)) / 1024, 1),
        **timed(every, requests),
        **found(every, made),
        "false_hits": {
            name: false_hits(every[:2], files)
            for name, files in {
                "our_source": Path("src").rglob("*.py"),
                "standard_library": list(library())[: 100 if is_small else None],
                "prose": [*Path("docs").rglob("*.md"), Path("README.md")],
            }.items()
        },
        "load_s": round(load_s, 2),
    }


def timed(every: Sequence[Detector], requests: Sequence[bytes]) -> dict[str, Any]:
    """Return what requests cost that were never seen, the same ones again, and the floor."""
    times: dict[str, list[float]] = {"fresh": [], "again": [], "floor": []}
    busy: list[float] = []
    for raw in requests:
        redactor = Redactor(Search(every, time.monotonic), Rules(), Vault(b"k" * 32), split=elements)
        for name, work in (
            ("fresh", lambda redactor=redactor, raw=raw: redact(redactor, raw)),
            ("again", lambda redactor=redactor, raw=raw: redact(redactor, raw)),
            ("floor", lambda raw=raw: json.dumps(json.loads(raw))),
        ):
            began = time.thread_time()
            times[name].append(elapsed_ms(work))
            if name == "fresh":
                busy.append(1e3 * (time.thread_time() - began))
    fresh, again, floor = (values[WARM_UP:] for values in times.values())
    return {
        "ms_20kb": round(statistics.median(fresh), 3),
        "p99_ms": round(percentile(fresh, 0.99), 3),
        "cpu_ms": round(statistics.median(busy[WARM_UP:]), 3),
        "again_ms": round(statistics.median(again), 3),
        "floor_ms": round(statistics.median(floor), 3),
        "first_ms": round(times["fresh"][0], 1),
    }


def redact(redactor: Redactor, raw: bytes) -> None:
    """Redact a request, and insist that something was found."""
    assert redactor.redact({"messages": raw}, {"messages"}, OPAQUE)


def elapsed_ms(work: Callable[[], object]) -> float:
    """Return how long it took, milliseconds."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def found(every: Sequence[Detector], made: Sequence[Sample]) -> dict[str, Any]:
    """Return the share of made-up values that were found, of all and by class."""
    hits: Counter[str] = Counter()
    for sample, spans in zip(made, spans_of(every, [sample.text for sample in made]), strict=True):
        hits[sample.kind] += is_covered(sample, spans)
    total = Counter(sample.kind for sample in made)
    return {
        "recall": round(hits.total() / total.total(), 4),
        "values": total.total(),
        "forms": len({sample.form for sample in made}),
        "recall_by_class": {kind: round(hits[kind] / count, 4) for kind, count in total.items()},
    }


def spans_of(every: Sequence[Detector], texts: Sequence[str]) -> Sequence[Sequence[Found]]:
    """Return what any detector finds."""
    return [[each for row in rows for each in row] for rows in zip(*(one.find(texts) for one in every), strict=True)]


def is_covered(sample: Sample, spans: Sequence[Found]) -> bool:
    """Return whether all of a value was found as what it is."""
    start = sample.text.index(sample.value)
    seen = {at for each in spans if each.kind == sample.kind for at in range(each.start, each.end)}
    return seen.issuperset(range(start, start + len(sample.value)))


def false_hits(every: Sequence[Detector], files: Iterable[Path]) -> dict[str, Any]:
    """Return what was found in texts without confidential values, by class, and how large they are."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    hits = Counter(each.kind for text in texts for each in spans_of(every, [text])[0])
    return {"mb": round(sum(map(len, texts)) / 1e6, 2), **hits}


def conversations(count: int, made: Sequence[Sample]) -> Iterable[bytes]:
    """Yield the messages of requests of 20 KB."""
    chance = random.Random(3)
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in library()]
    prose = [path.read_text(encoding="utf-8") for path in Path("docs").rglob("*.md")]
    for _ in range(count):
        messages: list[dict[str, Any]] = [{"role": "system", "content": piece(chance, prose, 3_000)}]
        values = chance.sample(made, VALUES)
        while len(json.dumps(messages)) < SIZE - 1_500:
            number = len(messages)
            call = {
                "name": "read",
                "arguments": json.dumps({"path": f"src/{number}.py", "lines": [number, number + 40]}),
            }
            messages += [
                {"role": "user", "content": piece(chance, prose, 400) + (values.pop().text if values else "")},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": f"call_{number}", "type": "function", "function": call}],
                },
                {"role": "tool", "tool_call_id": f"call_{number}", "content": piece(chance, sources, 1_500)},
            ]
        yield json.dumps(messages).encode()


def piece(chance: random.Random, texts: Sequence[str], size: int) -> str:
    """Return a part of one of the texts."""
    text = chance.choice(texts)
    at = chance.randrange(max(1, len(text) - size))
    return text[at : at + size]


def library() -> Iterable[Path]:
    """Yield the files of the standard library, its tests left out: they have made-up credentials of their own."""
    place = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    return sorted(path for path in place.rglob("*.py") if skipped.isdisjoint(path.relative_to(place).parts))


def own_words() -> tuple[str, ...]:
    """Return names as a company has them."""
    chance = random.Random(4)
    parts = ("heron", "zeph", "quill", "mar", "stra", "ble", "ox", "tundra", "vint", "ca")
    names = {"".join(chance.choices(parts, k=3)) for _ in range(WORDS * 3)}
    return tuple(f"{name} {number}" if number % 3 else name for number, name in enumerate(sorted(names)))[:WORDS]
