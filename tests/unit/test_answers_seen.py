"""What a function answers that does not say it is learnt from its first answers, and shown as seen, not as promised."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from overwinter.adapters.catalog_file import CatalogFile, open_catalog_file
from overwinter.app import App
from overwinter.catalog.seen import ANSWERS_MAX
from overwinter.faces.cli.render import doubts
from overwinter.testing import finish, open_test_app

pytestmark = [pytest.mark.anyio, pytest.mark.claim("P1.seen")]
MODULE = """
from typing import Any
from overwinter import read

@read
def find(number: int) -> Any:
    "Find a person."
    return {"id": number, "name": "Grace", "tags": ["a"], "best": {f"ann{number}@example.com": 1}, "more": None if number else 1}

@read
def named(number: int) -> dict[str, int]:
    return {"n": number}
"""
OLD = Path(__file__).parents[1] / "fixtures" / "catalog-1.sql"


@pytest.fixture
def place(tmp_path):
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before


@asynccontextmanager
async def people(place, text=MODULE) -> AsyncGenerator[App]:
    name = f"people_{abs(hash((place, text)))}"
    (place / f"{name}.py").write_text(text, encoding="utf-8")
    async with open_test_app(place / ".overwinter", {"people": name}, directory=place) as app:
        yield app


async def described(app):
    return (await finish(app, await app.start("await tools.describe('people.find')"))).result


async def test_what_was_seen_is_described_as_such(place):
    async with people(place) as app:
        assert "seen" not in await described(app)
        await finish(
            app, await app.start("for n in [0, 1]:\n    await people.find(number=n)\n    await people.named(number=n)")
        )
        shown = await described(app)
    assert "in 2 answers it was FindSeen (seen, not promised: any key may be missing)" in shown
    assert (
        "class FindSeen(TypedDict, total=False):\n    id: int\n    name: str\n    tags: list[str]\n    best: dict[str, int]\n"
        in shown
    )
    assert "    more: int | None" in shown
    async with people(place) as app:
        assert "in 2 answers it was FindSeen" in await described(app)


async def test_nothing_of_an_answer_is_stored_and_a_declared_result_is_not_looked_at(place):
    async with people(place) as app:
        await finish(app, await app.start("await people.find(number=4711)\nawait people.named(number=1)"))
    rows = list(
        apsw.Connection(str(place / ".overwinter" / "catalog.db")).execute("select name, answers, shape from seen")
    )
    assert [row[:2] for row in rows] == [("people.find", 1)]
    assert not any(word in rows[0][2] for word in ("4711", "Grace", "ann", "example"))


async def test_only_the_first_answers_are_looked_at(place):
    async with people(place) as app:
        await finish(app, await app.start(f"for n in range({ANSWERS_MAX + 5}):\n    await people.find(number=n)"))
        assert f"in {ANSWERS_MAX} answers" in await described(app)


async def test_answers_of_another_definition_do_not_count(place):
    async with people(place) as app:
        await finish(app, await app.start("await people.find(number=1)"))
    async with people(place, MODULE.replace("number: int) -> Any", "number: int, kind: str = 'a') -> Any")) as app:
        assert "seen" not in await described(app)
    with apsw.Connection(str(place / ".overwinter" / "catalog.db")) as db:
        assert list(db.execute("select count(*) from seen")) == [(0,)]


async def test_a_file_that_somebody_else_writes_costs_no_answer(place):
    async with people(place) as app:
        other = apsw.Connection(str(place / ".overwinter" / "catalog.db"))
        other.execute("begin immediate")
        run = await finish(app, await app.start("(await people.find(number=1))['id']"))
        assert "seen" not in await described(app)
        other.close()
    assert run.result == 1


def test_a_catalog_of_the_format_before_is_taken_over_with_its_pins(tmp_path):
    with apsw.Connection(str(tmp_path / "catalog.db")) as db:
        db.execute(OLD.read_text(encoding="utf-8"))
    with open_catalog_file(tmp_path / "catalog.db") as file:
        assert isinstance(file, CatalogFile)
        assert [(pin.name, pin.state) for pin in file.pins()] == [("shop.pay", "same")]
        assert file.seen("shop.pay").answers == 0
    with apsw.Connection(str(tmp_path / "catalog.db")) as db:
        assert list(db.execute("select format from meta")) == [(2,)]
        assert json.loads(next(db.execute("select json_group_array(name) from pragma_table_info('seen')"))[0])


async def test_a_field_that_was_never_seen_is_a_warning_and_never_a_refusal(place):
    wrong = "p = await people.find(number=1)\np['nmae']\np['name'].uper()\np['best']['x'] + 1\n(await people.find(number=2))['id']"
    async with people(place) as app:
        assert await app.check(wrong) == ()
        assert (await finish(app, await app.start("(await people.find(number=1))['name']"))).result == "Grace"
        findings = await app.check(wrong)
        right = await app.check("p = await people.find(number=1)\np['name'].upper()\nsorted(p['tags'])")
    assert [(each.line, each.rule, each.is_certain) for each in findings] == [
        (2, "invalid-key", False), (3, "unresolved-attribute", False),
    ]  # fmt: skip
    assert findings[0].message.endswith("(by what was answered before: seen, not promised)")
    assert right == ()


async def test_another_name_of_the_program_is_not_taken_for_a_function(place):
    async with people(place) as app:
        await finish(app, await app.start("await people.find(number=1)"))
        assert await app.check("people_find = 3\npeople_find + 1\np = await people.find(number=1)") == ()


async def test_a_run_that_failed_for_a_wrong_field_is_told_so_at_its_first_call(place):
    source = "n: int = 1\np = await people.find(number=n + add)\np['nmae']\n"
    async with people(place) as app:
        run = await finish(app, await app.start(source, inputs={"add": 1}))
        assert run.result["kind"] == "KeyError"
        (doubt,) = await app.warnings(run)
        done = await finish(app, await app.start("(await people.find(number=1)).get('nmae')"))
        assert await app.warnings(done) == ()
    assert (doubt.line, doubt.rule) == (3, "invalid-key")


async def test_a_run_that_failed_and_went_on_from_another_is_told_too(place):
    async with people(place) as app:
        first = await finish(app, await app.start("p = await people.find(number=1)\nwhole = 1", keeps=True))
        run = await finish(
            app, await app.start("print(whole)\nq = await people.find(number=2)\nq['nmae']", after=first.run_id)
        )
        assert run.result["kind"] == "KeyError"
        (doubt,) = await app.warnings(run)
    assert (doubt.line, doubt.rule) == (3, "invalid-key")


def test_doubts_are_shown_below_the_error():
    run = {
        "status": "failed",
        "result": {"kind": "KeyError", "message": "x"},
        "warnings": [{"line": 3, "message": "Unknown\x1b key"}],
    }
    (line,) = doubts(run)
    assert line.startswith("  perhaps line 3: Unknown")
    assert "\x1b" not in line


async def test_half_a_character_from_a_service_or_in_a_message_reaches_the_program_as_the_sign_for_one(place):
    text = "from typing import Any\nfrom overwinter import read\n\n@read\ndef cut() -> Any:\n    return {'a': 'b' + chr(0xD83D)}\n"
    async with people(place, text) as app:
        run_id = await app.start("[await people.cut(), await tools.receive()]")
        await app.send(run_id, "c\ud83d")
        run = await finish(app, run_id)
    assert run.result == [{"a": "b\ufffd"}, "c\ufffd"]
