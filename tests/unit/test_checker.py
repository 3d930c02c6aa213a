"""The check against programs with a verdict: 130 that are right, 50 that are wrong, and every built-in there is."""

import builtins
import json
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pydantic_monty as monty
import pytest

from check_cases import CASES, STUB, awaited, verdicts
from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.adapters.monty_checker.checker import MontyChecker, _Session
from overwinter.check import line_of
from overwinter.errors import WorkerCrashed
from overwinter.subset import lacks
from overwinter.subset.names import MODULES

pytestmark = pytest.mark.anyio
NAMES = json.loads((Path(__file__).parents[1] / "fixtures" / "monty-1.4.0-names.json").read_text())


@pytest.mark.claim("P2.layout")
async def test_correct_programs_are_accepted_and_wrong_ones_refused():
    cases = [(case["expect"], text) for case in CASES["programs"] if (text := awaited(case["program"])) is not None]
    found = await verdicts([text for _, text in cases], STUB)
    pairs = list(zip(cases, found, strict=True))
    assert len(pairs) > 120
    assert [(text, findings) for (expect, text), findings in pairs if expect == "accept" and findings] == []
    assert [text for (expect, text), findings in pairs if expect == "refuse" and not findings] == []


def existing(rows):
    """Return the lines that run in the interpreter."""
    with monty.Monty() as pool, pool.checkout() as session:
        found = []
        for row in rows:
            try:
                session.feed_run(f"{row}\nNone")
            except monty.MontyError:
                continue
            found.append(row)
    return found


@pytest.mark.claim("P2.standard_library")
async def test_no_built_in_module_or_attribute_that_exists_is_ever_a_reason_to_refuse():
    rows = [f"x{number} = {name}" for number, name in enumerate(sorted({*NAMES["builtins"], *dir(builtins)}))]
    for module, names in NAMES["modules"].items():
        rows.append(f"import {module}")
        rows += [f"y{number} = {module}.{name}" for number, name in enumerate(names)]
        rows += [f"from {module} import {name} as z{number}" for number, name in enumerate(names)]
        rows += [f"from {module} import {name}" for name in names]
    there = existing(row for row in rows if "__" not in row or "__future__" in row)
    assert len(there) > 1_200
    (refused,) = await verdicts(["\n".join(there)], "")
    assert [(there[finding.line - 1], finding.message) for finding in refused] == []


async def test_what_the_checkers_own_library_lacks_is_a_warning():
    program = "import os\nfrom os import walk\nos.scandir"
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            findings = await checker.check(program, {}, {})
    assert [(each.line, each.is_certain) for each in findings] == [(2, False), (3, False)]


@pytest.mark.parametrize("first", ["", '"""What it does."""\n', "x = 1\n"])
async def test_a_future_import_is_taken_and_what_follows_is_still_checked(first):
    right = first + "from __future__ import (\n    annotations,\n); y: Later = 1\ny"
    assert existing([right]) == [right]
    found = await verdicts([right.replace("Later", "int"), right + "\nawait svc.create(nme='a')"], STUB)
    assert found[0] == []
    assert ("unknown-argument", right.count("\n") + 2) in {(each.rule, each.line) for each in found[1]}


@pytest.mark.claim("P3.subset")
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("def f():\n    yield 1\nf()", "def f():\n    return [1]\nf()"),
        ("d = {1: 2}\ndel d[1]", "d = {1: 2}\nd.pop(1, None)"),
        ("class A(dict):\n    pass\nA()", "class A:\n    pass\nA()\n1"),
        ("import heapq\nheapq.heappush([], 1)", "import bisect\nbisect.bisect([1], 1)"),
        ("raise ValueError(1)", "try:\n    raise ValueError('1')\nexcept ValueError:\n    pass"),
        ("next(map(str, [1]))", "next(iter(map(str, [1])))"),
        ("d = {1: 2}\nmax(d, key=d.get)", "d = {1: 2}\nmax(d, key=lambda k: d.get(k))"),
        ("(5).bit_length()", "len(bin(5)) - 2"),
        ("import json\njson.dumps({1}, default=list)", "import json\njson.dumps(list({1}))"),
        ("bytearray(3)", "bytes(3)"),
        (
            "from typing import Any, Dict\nRow = Dict[str, Any]",
            "from typing import Any, Dict\nRow = dict[str, Any]\nx: Dict[str, Any] = {}\ndef f(x: Dict) -> Dict[str, int]:\n    return x",
        ),
        (
            "from typing import List, Optional\nIds = Optional[List[int]]",
            "from typing import Optional\nIds = Optional[int]",
        ),
        ("from typing import TypeVar\nT = TypeVar('T')", "from typing import Any\nT = Any"),
    ],
)
def test_what_the_interpreter_lacks_is_named_and_its_replacement_runs(wrong, right):
    assert lacks(wrong, ())
    assert lacks(right, ()) == []
    with monty.Monty() as pool:
        with pool.checkout() as session, pytest.raises(monty.MontyError):
            session.feed_run(wrong)
        with pool.checkout() as session:
            session.feed_run(right)


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "x = " + "-" * 100_000 + "1", "\0", "x" * 300_000, "é" * 10 + " = (", "\ud800"]
)
async def test_hostile_text_is_refused_in_bounded_time(text):
    ((*findings,),) = await verdicts([text], "")
    assert findings


def test_the_names_of_standard_modules_are_those_of_the_interpreter():
    with monty.Monty() as pool, pool.checkout() as session:
        for module in sorted(MODULES.keys() - {"__future__"}):
            session.feed_run(f"import {module}")
            some = sorted(MODULES[module])[:3]
            assert session.feed_run(f"[hasattr({module}, name) for name in {some!r}]") == [True] * len(some), module


@pytest.mark.claim("P2.layout")
async def test_what_a_session_kept_of_earlier_programs_never_refuses_a_later_one():
    programs = [f"text = '{number} {'x' * 200_000}'\nlen(text)" for number in range(700)]
    assert not any(await verdicts(programs, "async def create() -> None: ...\n"))


async def test_a_program_that_two_ask_about_at_a_time_is_checked_once_also_if_the_first_goes_away():
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            await checker.check("first", {}, {})
            before, found = checker._session._checks, []

            async def ask(program):
                found.append(await checker.check(program, {}, {}))

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(ask, "missing + 1")
            assert checker._session._checks == before + 1
            async with anyio.create_task_group() as group, anyio.create_task_group() as inner:
                inner.start_soon(checker.check, "gone + 1", {}, {})
                await anyio.lowlevel.checkpoint()
                group.start_soon(ask, "gone + 1")
                await anyio.lowlevel.checkpoint()
                inner.cancel_scope.cancel()
    assert [[each.message.split("`")[1] for each in findings] for findings in found] == [["missing"]] * 3 + [["gone"]]


def test_an_error_of_our_own_drops_no_live_session():
    live: Any = object()

    class Deep(_Session):
        def _opened(self, desk: Any, modules: Any) -> Any:
            del desk, modules
            self._session = live
            return live

        def _judged(self, session: Any, program: Any, modules: Any) -> Any:
            del session, program, modules
            raise RecursionError("a RuntimeError, and no word of the interpreter's client")

    session, nothing = Deep(), cast("Any", None)
    with pytest.raises(RecursionError):
        session.check(nothing, nothing, {})
    assert session._session is live


GET = "from typing import TypedDict\n\nclass Invoice(TypedDict):\n    id: int\n    note: str | None\n\nasync def get(*, id: int) -> Invoice: ...\nasync def plain(*, id: int) -> dict: ...\n"
UNAWAITED = [
    'x = svc.get(id=1)\nprint(x["id"])',
    'x = svc.plain(id=1)\nprint(x["id"])',
    "x = svc.get(id=1)\nfor each in x:\n    print(each)",
    "x = svc.get(id=1)\nprint(x.id)",
    "x = svc.get(id=1)\nprint(x + 1)",
    "x = svc.get(id=1)\nprint(1 + x)",
    'xs = [svc.get(id=n) for n in range(3)]\nprint(xs[0]["id"])',
    'async def own(n):\n    return await svc.get(id=n)\nprint(own(3)["id"])',
]
AWAITED = [
    'x = svc.get(id=1)\ny = await x\nprint(y["id"])',
    'x = svc.get(id=1)\ndef show():\n    print(x["id"])\nx = await x\nshow()',
    'flag = len("ab") == 2\nx = svc.get(id=1) if flag else {"id": 2}\ny = x if isinstance(x, dict) else await x\nprint(y["id"])',
    'import asyncio\nxs = [svc.get(id=n) for n in range(3)]\nys = await asyncio.gather(*xs)\nprint(ys[0]["id"])',
    'import asyncio\nx = svc.get(id=1)\nwhile True:\n    x = await x\n    break\nprint(x["id"])',
]


DROPPED = [
    "import asyncio\nasyncio.sleep(100)",
    "from asyncio import sleep as pause, gather\ngather(svc.get(id=1))",
    "import asyncio\nboth = asyncio.gather(svc.get(id=1), svc.get(id=2))\n'done'",
    "row = svc.get(id=1)\n'done'",
    "row = svc.get(id=1)\nprint(row)\nrow",
    "print(svc.get(id=1))",
    "rows = list(svc.get(id=1))",
    "', '.join(svc.get(id=1))",
    "async def work():\n    return await svc.get(id=1)\ndone = work()\nprint('done')",
    "async def work():\n    return await svc.get(id=1)\nif work():\n    print('done')",
]
MADE_LATER = [
    "import asyncio\npause = asyncio.sleep(1)\nawait pause",
    "first = svc.get(id=1)\nsecond = first\nprint((await second)['id'])",
    "calls = [svc.get(id=1)]\nprint(len(calls), await calls[0])",
    "kept = {'a': svc.get(id=1)}\nawait kept['a']",
    "import asyncio\ncalls = []\nfor each in range(3):\n    call = svc.get(id=each)\n    calls.append(call)\nprint(await asyncio.gather(*calls))",
    "def first():\n    return svc.get(id=1)\nprint(await first())",
    "import asyncio\nasync def main():\n    return await svc.get(id=1)\nasyncio.run(main())",
    "import asyncio\nasync def main():\n    return await svc.get(id=1)\nwork = main()\nasyncio.run(work)",
    "async def work():\n    return 1\nwork = len\nwork('a')",
    "def run(call):\n    return call\nprint(await run(svc.get(id=1)))",
    "class Rows:\n    async def list(self):\n        return [await svc.get(id=1)]\nrows = await Rows().list()\nprint(list(rows))",
    "from datetime import date\nclass Day:\n    async def date(self):\n        return 1\nprint(date.today())",
    "async def print(call):\n    return await call\nawait print(svc.get(id=1))",
]


def not_awaited(program):
    return [each for each in lacks(program, ["svc"]) if "is not awaited" in each.what]


@pytest.mark.claim("P1.checked_before")
@pytest.mark.parametrize("program", DROPPED)
def test_a_call_that_nothing_can_await_any_more_is_refused(program):
    assert not_awaited(program)


@pytest.mark.claim("P2.layout")
@pytest.mark.parametrize("program", MADE_LATER)
def test_a_call_that_may_be_awaited_later_is_no_mistake(program):
    assert not not_awaited(program)


@pytest.mark.claim("P1.checked_before")
async def test_a_call_whose_result_is_used_and_that_is_not_awaited_is_refused():
    found = await verdicts([f"import svc\n{each}" for each in (*UNAWAITED, *AWAITED)], GET)
    assert [text for text, each in zip(UNAWAITED, found, strict=False) if not each] == []
    assert [(text, each) for text, each in zip(AWAITED, found[len(UNAWAITED) :], strict=True) if each] == []


KINDS = """from typing import Literal
async def orders(*, prio: Literal[0, 1, 2] = ..., state: Literal["open", "paid"] = ..., dry: Literal[True] = ...) -> list[int]: ...
async def double(*, number: int) -> int: ...
"""


@pytest.mark.claim("P2.layout")
async def test_what_a_program_computes_may_be_one_of_the_literals_and_nothing_else_is():
    right = [
        "for p in range(3):\n    await svc.orders(prio=p)",
        "await svc.orders(prio=int('1'))",
        "for n, _ in enumerate('ab'):\n    await svc.orders(prio=n % 3)",
        "await svc.orders(state='pa' + 'id', dry=bool(1))",
        "async def at(prio: int):\n    return await svc.orders(prio=prio)\nawait at(1)",
        "[await svc.double(number=each) for each in filter(None, [1, None, 2])]",
        "[await svc.double(number=each) for each in filter(lambda each: each > 1, [1, 2])]",
    ]
    wrong = [
        "await svc.orders(prio=3)",
        "await svc.orders(prio='1')",
        "await svc.orders(prio=str(1))",
        "await svc.orders(state=len('a'))",
        "await svc.orders(state='gone')",
        "await svc.orders(prio=1.0 * 2)",
    ]
    found = await verdicts([*right, *wrong], KINDS)
    assert [(text, each) for text, each in zip(right, found, strict=False) if each] == []
    assert [text for text, each in zip(wrong, found[len(right) :], strict=True) if not each] == []


ROWS = """from typing import Any, TypedDict
class Row(TypedDict):
    id: int
    tags: list[str]
    extra: dict[str, Any]
    more: list[Any]
async def find(*, q: str = ...) -> list[Row]: ...
async def get(*, id: int) -> Row: ...
async def either(*, id: int) -> list[Row] | dict[str, Row]: ...
async def text() -> str: ...
async def put(*, row: Row = ..., rows: list[Row] = ..., extra: dict[str, Any] = ..., any: Any = ..., price: float = ...) -> None: ...
"""


@pytest.mark.claim("P1.checked_before")
async def test_a_list_or_dict_that_a_tool_answers_is_used_as_what_it_is_or_the_program_is_refused():
    """The commonest slip of models: `rows["data"]`. What the program itself made of a name or stored somewhere is its own matter."""
    wrong = [
        "rows = await svc.find()\nrows['data']",
        "(await svc.find())['data']",
        "rows = await svc.find()\nfor key, row in rows.items():\n    print(key)",
        "rows = sorted(await svc.find(), key=lambda row: row['id'])\nrows['a']",
        "rows = await svc.find()\nrows.id",
        "row = await svc.get(id=1)\nrow['tags'].split(',')",
        "row = await svc.get(id=1)\nrow['tags']['a']",
        "for row in await svc.find():\n    row['tags'].upper()",
        "[row['more'].upper() for row in await svc.find()]",
        "row = await svc.get(id=1)\nrow['extra'].lower()",
        "row = await svc.get(id=1)\nrow['extra'][0]",
        "text = await svc.text()\ntext['a']",
        "rows = await svc.find()\nawait svc.put(row=rows)",
        "await svc.put(rows=await svc.get(id=1))",
        "row = await svc.get(id=1)\nawait svc.put(price=row['tags'])",
        "seen = {}\nfor row in await svc.find():\n    seen[row['id']] = row\n    row['tags'].upper()",
        "names = []\nrows = await svc.find()\nnames.append('a')\nrows['data']",
        "await svc.put(row=svc.get(id=1))",
        "x = svc.text()\nawait svc.put(price=x)",
        "await svc.put(rows=[await svc.get(id=1), svc.get(id=2)])",
        "async def full():\n    return 1\nawait svc.put(price=full())",
        "row = await svc.get(id=1)\nawait svc.put(rows=row['tags'])",
    ]
    right = [
        "rows = await svc.find()\nrows[0]['tags'][0].upper()",
        "rows = await svc.find()\nrows = {row['id']: row for row in rows}\nrows['a'] if 'a' in rows else rows.items()",
        "rows = await svc.find()\nif rows:\n    rows = {}\nrows['a']",
        "rows = (await svc.find()) or {}\nrows['a']",
        "row = await svc.get(id=1)\nrow['tags'] = ','.join(row['tags'])\nrow['tags'].upper()",
        "row = await svc.get(id=1)\ndef change(row):\n    row['tags'] = ''\nchange(row)\nrow['tags'].upper()",
        "found = await svc.either(id=1)\nif isinstance(found, dict):\n    found['a']\nelse:\n    found[0]",
        "row = await svc.get(id=1)\nrow['extra']['a'].append(1)",
        "row = await svc.get(id=1)\nrow['extra'] and row['extra'].items()",
        "row = await svc.get(id=1)\nrow['more'][0].upper()",
        "row = await svc.get(id=1)\nawait svc.put(row=row, extra=row['extra'], any=row['tags'], price=row['id'])",
        "extra = await svc.get(id=1)\nawait svc.put(extra=extra)",
        "row = await svc.get(id=1)\nawait svc.put(row=row['extra'])",
        "async def show(rows):\n    print(rows['a'])\nrows = await svc.find()\nawait show({'a': rows})",
        "row = await svc.get(id=1)\nrow['tags'] = ','.join(row['tags'])\nt = row['tags']\nt.upper()",
        "rows = await svc.find()\nfor row in rows:\n    row['tags'] = ','.join(row['tags'])\nfor row in rows:\n    t = row['tags']\n    t.upper()",
        "row = await svc.get(id=1)\nrow['tags'] = {each: 1 for each in row['tags']}\nrow['tags']['a']",
        "row = await svc.get(id=1)\nrow.update({'tags': ','.join(row['tags'])})\nrow['tags'].upper()",
        "row = await svc.get(id=1)\nfor key in ('tags', 'more'):\n    row[key] = ','.join(row[key])\nrow['tags'].upper()",
        "row = await svc.get(id=1)\nfor k, v in row.items():\n    if isinstance(v, list):\n        row[k] = ','.join(v)\nrow['tags'].upper()",
        "def put(r, k, v):\n    r[k] = v\nrow = await svc.get(id=1)\nput(row, 'tags', 'abc')\nrow['tags'].upper()",
        "rows = await svc.find()\nfor r in rows:\n    r |= {'tags': 'x'}\nrows[0]['tags'].upper()",
        "row = await svc.get(id=1)\ntags = row['tags']\ntags[:] = [{'n': t} for t in tags]\ntags[0]['n']",
        "rows = await svc.find()\ntry:\n    data = rows['data']\nexcept TypeError:\n    data = rows",
        "rows = await svc.find()\ndata = rows['data'] if 'data' in rows else rows",
        "rows = await svc.find()\ndata = rows.items() if hasattr(rows, 'items') else rows",
        "row = await svc.get(id=1)\nif hasattr(row['tags'], 'split'):\n    row['tags'].split(',')",
    ]
    found = await verdicts([*right, *wrong], ROWS)
    assert [(text, each) for text, each in zip(right, found, strict=False) if each] == []
    assert [text for text, each in zip(wrong, found[len(right) :], strict=True) if not each] == []
    assert "has no keys: its elements are reached by number" in found[len(right)][0].message


OWN = [
    "stats = {}\nfor n in ['a']:\n    stats[n] = {'name': n, 'count': 0}\n    stats[n]['count'] += 1",
    "rows = [{'name': 'a', 'count': 0}]\nfor r in rows:\n    r['count'] += 1\n    r['name'] += '!'",
    "g = {n: {'name': n, 'n': 0} for n in ['a']}\ng['a']['n'] += 1\n-g['a']['n']",
    "acc = [0, 'x']\nacc[0] += 1\nacc[0] < 3",
    "rows = [['a', 1]]\nfor r in rows:\n    r[1] += 1\nfor i in range(rows[0][1]):\n    rows[0][0].upper()",
    "d = {}\nd['a'] = {'k': 'v'}\nd['a']['n'] = 1\nd['a']['n'] += 1",
    "g = {}\nfor l in await svc.find():\n    g[l['id']] = {'row': l, 'n': l['id']}\nfor k in g:\n    g[k]['row']['id'] + g[k]['n']",
    "best = {'tags': None, 'id': -1}\nfor l in await svc.find():\n    if l['id'] > best['id']:\n        best = l",
    "stats = {}\nfor r in await svc.find():\n    s = stats.setdefault(r['id'], {'n': 0, 'tags': []})\n    s['n'] += 1\n    s['tags'] += r['tags']",
    "d = {'f': print, 'n': 1}\nd['f'](1)\n[each for each in d.get('rows', [])]",
]


@pytest.mark.claim("P2.layout")
async def test_what_a_program_keeps_in_lists_and_dicts_of_its_own_is_its_own_matter():
    found = await verdicts(OWN, ROWS)
    assert [(text, each) for text, each in zip(OWN, found, strict=True) if each] == []


REPLACED = [
    "row = await svc.get(id=1)\nrow['id'] = str(row['id'])\nrow['id'].upper()\nawait svc.name(text=row['id'])",
    "for row in await svc.find():\n    row['id'] = str(row['id'])\n    key = row['id']\n    key.upper()",
    "rows = await svc.find()\nfor row in rows:\n    row['id'] = str(row['id'])\nmax(row['id'] for row in rows).upper()",
    "row = await svc.get(id=1)\nrow.update(id='x')\nrow['id'].upper()",
    "row = await svc.get(id=1)\nrow.update({'id': 'x'})\nrow['id'].upper()",
    "def clean(row):\n    row['id'] = str(row['id'])\nrows = await svc.find()\nfor row in rows:\n    clean(row)\nrows[0]['id'].upper()",
    "row = await svc.get(id=1)\nfor key in list(row):\n    row[key] = str(row[key])\nrow['id'].upper()",
    "rows = await svc.find()\nrows.append('end')\nrows[-1].upper()",
    "rows = await svc.find()\nfor i, row in enumerate(rows):\n    rows[i] = row['id']\nrows[0] + 1",
    "tags = (await svc.get(id=1))['tags']\ntags += [1]\ntags[-1] + 1",
    "def add(rows):\n    rows.append('end')\nrows = await svc.find()\nadd(rows)\nrows[-1].upper()",
    "for key, value in (await svc.get(id=1)).items():\n    if key == 'id':\n        value + 1\n        await svc.put(price=value)",
    "by_id = {row['id']: row for row in await svc.find()}\nrow = by_id.get(1)\nrow['id'] + 1",
]
"""What the program put where something else was declared, or knows of a value that the checker does not."""


@pytest.mark.claim("P2.layout")
async def test_what_a_program_puts_where_something_else_was_declared_is_its_own_matter():
    wrong = [
        "row = await svc.get(id=1)\nrow['id'] = row['id'] + 1\nrow['id'].upper()",
        "row = await svc.get(id=1)\nrow['id'] = str(row['id'])\nawait svc.name(text=1)",
        "rows = await svc.find()\nrows.append(await svc.get(id=1))\nrows[-1].upper()",
        "counts = {}\nfor row in await svc.find():\n    counts[row['id']] = 1\n    row['id'].upper()",
        "row = await svc.maybe(id=1)\nrow['id']",
        "found = await svc.search(q='a')\nfound['id']",
    ]
    stub = ROWS + (
        "async def name(*, text: str) -> None: ...\nasync def maybe(*, id: int) -> Row | None: ...\n"
        "async def search(*, q: str) -> Row | None: ...\n"
    )
    found = await verdicts([*REPLACED, *wrong], stub)
    assert [(text, each) for text, each in zip(REPLACED, found, strict=False) if each] == []
    assert [text for text, each in zip(wrong, found[len(REPLACED) :], strict=True) if not each] == []


@pytest.mark.parametrize(
    "row", ["await svc.get(idd=1)", "row['id'].upper()", "row.update(id='x')", "await svc.put(price='1')"]
)
async def test_a_program_with_thousands_of_mistakes_is_judged_in_one_pass(row):
    (found,) = await verdicts(["row = await svc.get(id=1)\n" + f"{row}\n" * 2_000], ROWS)
    assert len(found) >= 2_000 or "update" in row


async def test_names_that_are_bound_to_each_other_many_times_are_each_looked_at_once():
    chain = "".join(f"n{level + 1} = n{level}\n" * 10 for level in range(12))
    (found,) = await verdicts([f"n0 = await svc.get(id=1)\n{chain}n12['tags'].upper()"], ROWS)
    assert len(found) == 1


WITH_DEFAULTS = """\
from typing import NotRequired, TypedDict
class Line(TypedDict):
    sku: str
    qty: NotRequired[int]
async def find() -> list[Line]: ...
async def put(*, lines: list[Line]) -> None: ...
"""


async def test_what_has_a_default_need_not_be_given_and_is_read_like_the_rest():
    right = [
        "await svc.put(lines=[{'sku': 'a'}, {'sku': 'b', 'qty': 2}])",
        "for line in await svc.find():\n    print(line['qty'] * 2)",
        "await svc.put(lines=await svc.find())",
    ]
    wrong = ["await svc.put(lines=[{'qty': 2}])", "(await svc.find())[0]['qty'].upper()"]
    found = await verdicts([*right, *wrong], WITH_DEFAULTS)
    assert [bool(each) for each in found] == [False] * len(right) + [True] * len(wrong)


async def test_a_program_that_could_not_be_checked_is_checked_the_next_time():
    class Down:
        asked = 0

        async def run(self, work: Any) -> Any:
            del work
            self.asked += 1
            raise WorkerCrashed("it died")

    workers = Down()
    checker = MontyChecker(cast("Any", workers))
    for asked in (2, 4):
        (finding,) = await checker.check("1", {}, {})
        assert (finding.rule, workers.asked) == ("uncheckable", asked)


def test_a_finding_about_a_function_names_the_line_that_names_it_and_no_word_of_a_comment():
    source = '"""pay later"""\n# pay people\nx = "pay"\ny = shop.get(\n    id=1,\n)\nawait shop.pay(id=1)\n'
    assert line_of(source, "shop.pay") == 7
    assert line_of("from shop import pay\nawait pay()", "shop.pay") == 1
    assert line_of("\nawait tools.call('shop.pay', {})", "shop.pay") == 2
    assert line_of("row = {}\nrow.get(1)\nawait shop.get(id=1)", "shop.get") == 3
    assert line_of("1", "shop.pay") == 1
    assert line_of("def (", "shop.pay") == 1


WRONG = "await svc.double(nmber=1)"
BELIEVED = [
    f"""state = {{"more": True, "n": 0}}
async def page():
    state["n"] += 1
    if state["n"] < 3:
        state["more"] = True
while state["more"]:
    state["more"] = False
    await page()
    if state["more"]:
        {WRONG}""",
    f"""class Job:
    def __init__(self):
        self.failed = False
    def run(self):
        self.failed = True
job = Job()
job.failed = False
job.run()
if job.failed:
    x = (1 if job.failed else 2)
    {WRONG}""",
    f"""cfg = {{"mode": "a"}}
def change():
    cfg["mode"] = "b"
change()
cfg["mode"] = "a"
change()
if cfg["mode"] == "a":
    pass
elif (
    cfg["mode"] == "b"
    and cfg["mode"]
):
    {WRONG}""",
    f"""cfg = {{"n": 0}}
def change():
    cfg["n"] = 1
cfg["n"] = 0
change()
assert cfg["n"] == 1, "é"
{WRONG}""",
    """seen = [False]
def see():
    seen[0] = True
seen[0] = False
see()
y = (await svc.double(nmber=1)) if seen[0] else 0""",
    f"import sys\nif sys.platform != 'linux':\n    {WRONG}",
    "import sys\nif sys.platform == 'monty':\n    await svc.nothing(a=1)",
    f"from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    {WRONG}",
    f"TYPE_CHECKING = False\nif not TYPE_CHECKING:\n    {WRONG}",
]
NARROWED = """
class Found:
    def __init__(self):
        self.name = None
        self.kind = "open"
found = Found()
row = {"state": "open", "n": None}
if found.name is not None and row["n"] is not None:
    await svc.double(number=row["n"])
    await svc.orders(state=found.kind if found.kind in ("open", "paid") else "open")
print(f"{'a' if row['state'] else 'b'}")
while row["n"] is not None:
    await svc.double(number=row["n"] + 1)
match row["state"]:
    case "open":
        await svc.orders(state="open")
    case other:
        print(other)
assert row["state"] == "open"
await svc.double(number=1)
"""


TOLD_APART = [
    """state = {"deal": True}
if state["deal"]:
    def h(x): return 1
else:
    def h(x, y): return 2
if state["deal"]:
    await svc.double(number=h(1))
else:
    await svc.double(number=h(1, 2))""",
    """s = {"k": 1}
match s["k"], await svc.double(number=1):
    case 1, 2:
        print("x")""",
    """s = {"v": 1}
t = {"number": 1} if s["v"] else {}
if s["v"]:
    await svc.double(**t)""",
]


@pytest.mark.claim("P2.layout")
async def test_what_a_test_has_told_apart_is_no_mistake():
    assert [each for each in await verdicts(TOLD_APART, KINDS) if each] == []


@pytest.mark.claim("P1.checked_before")
async def test_what_the_checker_believes_to_be_out_of_reach_is_checked_too():
    found = await verdicts([*BELIEVED, NARROWED], KINDS)
    assert [text for text, each in zip(BELIEVED, found, strict=False) if not each] == []
    for text, each in zip(BELIEVED, found, strict=False):
        (line,) = [at for at, row in enumerate(text.split("\n"), 1) if "nmber" in row or "nothing" in row]
        assert {finding.line for finding in each} == {line}, (text, each)
    assert found[-1] == []
