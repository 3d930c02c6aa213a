"""Which reports of the type checker refuse a program: only those that are certainly right.

The checker guesses what a program's own values are, and knows a smaller library than there is. What it says of those is a
warning; the schema check at the call has the last word.
"""

import ast
import builtins
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from overwinter.adapters.monty_checker.knowing import Knowing
from overwinter.adapters.monty_checker.origins import Origin, Origins
from overwinter.adapters.monty_checker.scopes import Names
from overwinter.adapters.monty_checker.text import Checked, Report, tool_names
from overwinter.bindings import root
from overwinter.subset.names import BUILTINS_MISSING, MODULES

__all__ = ["OPERATING", "UNTAKEN", "Judge"]

LOOSE = ("dict[", "list[", "Any", "Unknown")
ASSIGNING = frozenset({"invalid-argument-type", "invalid-assignment", "invalid-return-type"})
# The rules about tools, names and syntax. Any other rule is about style or about plain Python: a warning.
CERTAIN = ASSIGNING | {
    "invalid-syntax", "unresolved-reference", "unresolved-import", "unresolved-attribute", "invalid-key",
    "missing-typed-dict-key", "unknown-argument", "missing-argument", "too-many-positional-arguments",
    "parameter-already-assigned", "not-subscriptable", "not-iterable", "call-non-callable", "unsupported-operator",
    "unused-awaitable", "invalid-await",
}  # fmt: skip
OPERATING = frozenset({
    "unresolved-attribute", "not-subscriptable", "unsupported-operator", "not-iterable", "call-non-callable",
})  # fmt: skip
# A literal that fits some members of a union, in a list: the checker names those and refuses them, as a list of fewer kinds.
FITTING = re.compile(r"found `list\[[A-Z]\w*(?: \| (?:[A-Z]\w*|\.\.\. omitted \d+ union elements))+\]`")
TAKEN_AS = re.compile(r"Expected `(?:tuple|set|frozenset)\[[^`]*`, found `list\[")
"""A list is taken for a tuple or a set: JSON has no other way to write them."""
ROW_METHODS = frozenset({"get", "pop", "setdefault", "update"})
PUTTING = frozenset({"invalid-argument-type", "invalid-key", "unknown-argument", "missing-argument"})
COROUTINE = re.compile(r"(?:of type|and) `(CoroutineType\[[^`]*)`")
WITHOUT_VALUES = frozenset({"invalid-syntax", "unresolved-reference", "unresolved-import"})


class Judge:
    """Tells a mistake from a value that the checker knows too loosely to judge."""

    def __init__(
        self, checked: Checked, tree: ast.Module, modules: Collection[str], reports: Collection[Report] = ()
    ) -> None:
        self._lines = checked.text.split("\n")
        self._nodes = list(ast.walk(tree))
        self._tree = tree
        self._tools = tool_names(tree, modules)
        self._first, self._touched = checked.first, checked.touched
        self._reports = reports

    def is_certain(self, report: Report) -> bool:  # noqa: PLR0911 - one rule a line
        """Return whether a report refuses the program."""
        if report.rule not in CERTAIN or _is_there(report) or self._is_put(report) or self._is_expected(report):
            return False
        subjects = self._subjects(report)
        if report.rule not in WITHOUT_VALUES and any(self._names.is_loose(each) for each in subjects):
            return False
        if self._is_of_another(report, subjects):
            return False
        if report.rule in OPERATING:
            return self._is_misused(report) or self._is_certain_operation(report, subjects)
        if self._is_misused(report):
            return True
        word = self._keyword(report)
        if report.rule == "invalid-argument-type" and word and (word.arg is None or _is_constant(word.value)):
            return word.arg is not None and not any(each.search(report.message) for each in (FITTING, TAKEN_AS))
        if report.rule == "invalid-key":
            return self._is_unknown_key(report, subjects)
        if report.rule == "missing-typed-dict-key":
            return self._is_incomplete(report)
        if report.rule in ASSIGNING:
            may_be_there = any(map(self._knowing.may_be_there, subjects))
            is_certain = self._is_one_for_many(report) or _is_certain_type(report.message, may_be_there=may_be_there)
            return is_certain and not self._is_its_own_word(report)
        return True

    def _is_of_another(self, report: Report, subjects: Sequence[ast.expr]) -> bool:
        """Return whether the program may have put something else in the place of what a report is about."""
        if report.rule == "invalid-key":
            return any(map(self._origins.is_another_row, subjects))
        return report.rule in OPERATING | ASSIGNING and any(map(self._origins.is_replaced, subjects))

    def _is_unknown_key(self, report: Report, subjects: Sequence[ast.expr]) -> bool:
        """Return whether a key is of no row there. One that the program itself puts there is an addition, no mistake."""
        if not subjects and report.row not in self._touched:  # of a dict that is written out: what a tool is given
            return self._is_given_out(report)
        key = re.search(r'Unknown key "([^"]*)"', report.message)
        may_be_there = key is None or any(self._may_have(each, key[1]) for each in subjects)
        return not may_be_there and not self._is_of_a_variant(report)

    def _is_certain_operation(self, report: Report, subjects: Sequence[ast.expr]) -> bool:
        is_of_import = "Function `" in report.message or "`def " in report.message
        if self._is_of_a_container(report) or any(map(self._origins.is_mixed, subjects)):
            return False
        if is_of_import and any(self._names.is_bound_anew(each) for each in subjects):
            return False
        if "Unknown" in report.message and not any(map(self._origins.is_promised, subjects)):
            return False
        if "None" in report.message:
            return not any(map(self._knowing.may_be_there, subjects))
        # What a list or dict of the program's own holds is inferred from what was put in first: too loose to refuse by.
        return not any(part in report.message for part in (*LOOSE, "`object`", "in union", " | "))

    def _is_incomplete(self, report: Report) -> bool:
        """Return whether a dict that lacks a key is given to a tool. What is put into a row need not be whole."""
        if report.row in self._touched:
            return True
        dicts = self._dicts.get(report.row, ())
        return not any(None in each.keys for each in dicts) and any(id(each) in self._in_calls for each in dicts)

    def _is_given_out(self, report: Report) -> bool:
        """Return whether a key at a report's place is of a dict that is written out in a call of a tool."""
        dicts = [each for each in self._near(report) if isinstance(each, ast.Dict) and id(each) in self._in_calls]
        return any(key is not None and self._is_at(key, report) for each in dicts for key in each.keys)

    @cached_property
    def _in_calls(self) -> set[int]:
        """What is written out in a call of a tool, by id."""
        calls = [node for node in self._nodes if isinstance(node, ast.Call) and self._names.is_tool(node.func)]
        return {id(each) for call in calls for each in ast.walk(call)}

    def _is_of_a_container(self, report: Report) -> bool:
        """Return whether an operation is on what the program took out of a list or dict of its own: `counts[name]["n"] += 1`."""
        near = self._near(report)
        values = [each for node in near for each in _operands(node)]
        rows = {id(each) for each in values if self._is_at(each, report)}
        return any(
            taken is not None and not self._origins.is_promised(taken)
            for node in near
            if rows & {id(each) for each in _operands(node)}
            for taken in map(_taken_from, _operands(node))
        )

    def _is_put(self, report: Report) -> bool:
        """Return whether a report is about what is put into a container: it is guessed from its first item, and a row takes anything."""
        if re.search(r"bound method `(list|dict|set)\.", report.message):
            return True
        return report.rule in PUTTING and any(
            self._is_at(each, report)
            for node in self._near(report)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ROW_METHODS
            if not self._names.is_tool(node.func)
            for part in (node, *node.args, *node.keywords)
            for each in (part, *(key for key in (part.keys if isinstance(part, ast.Dict) else ()) if key is not None))
        )

    def _is_misused(self, report: Report) -> bool:
        """Return whether what a tool gave is used as what it is not: `rows["data"]` of a list, `row["tags"].split()`, no `await`.

        Of the program's own lists and dicts the checker guesses what they are; of a tool's it was told.
        """
        match report.rule:
            case rule if rule in OPERATING and any(map(_is_coroutine, COROUTINE.findall(report.message))):
                return True  # nothing can be done with one but to await it, whatever it comes to
            case "unresolved-attribute":
                return self._is_without(report)
            case "invalid-argument-type":
                return self._is_untaken(report) or self._is_misgiven(report)
            case _:
                return False

    def _is_without(self, report: Report) -> bool:
        found = WITHOUT.search(report.message)
        if found is None or _kind(found[1]) is None:
            return False
        attributes = [each for each in self._near(report) if isinstance(each, ast.Attribute) and each.attr == found[2]]
        places = [each for each in attributes if self._is_at(each, report) or self._is_at(each.value, report)]
        return any(self._is_promised(each.value) for each in places)

    def _is_untaken(self, report: Report) -> bool:
        found = UNTAKEN.search(report.message)
        kind = _kind(found[2]) if found is not None else None
        return kind in ("list", "mapping", "str") and any(
            self._is_promised(node.value)
            for node in self._near(report)
            if isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and any(self._is_at(each, report) for each in (node, node.value, node.slice))
            and isinstance(node.slice.value, str) == (kind != "mapping")
        )

    def _is_misgiven(self, report: Report) -> bool:
        pair, given = EXPECTED.search(report.message), self._given_to_tools(report)
        if pair is None or not given:
            return False
        if "CoroutineType[" in pair[2]:
            return re.search(r"\b(?:Any|object)\b", pair[1]) is None
        return any(map(self._is_promised, given)) and _is_clash(pair[1], pair[2])

    def _is_one_for_many(self, report: Report) -> bool:
        """Return whether a tool is given one text or number where it wants a list, and it comes out of no container."""
        pair, given = EXPECTED.search(report.message), self._given_to_tools(report)
        if pair is None or not given or any(map(self._names.is_taken, given)):
            return False
        got = EXCLUDED.sub("", pair[2]).replace("LiteralString", "str")
        return got in SCALARS - {"None"} and _is_clash(pair[1], got)

    def _given_to_tools(self, report: Report) -> list[ast.expr]:
        calls = [each for each in self._near(report) if isinstance(each, ast.Call) and root(each.func) in self._tools]
        return [word.value for call in calls for word in call.keywords if self._is_at(word, report)]

    def _is_promised(self, node: ast.expr) -> bool:
        """Return whether a value is a tool's own, as it came: the program has put nothing in its place, and does not doubt what it is."""
        return self._origins.is_promised(node) and not self._is_doubted(node)

    def _is_doubted(self, node: ast.expr) -> bool:
        """Return whether the program itself looks what a value is, or expects that it is something else."""
        asked, tried, compared = self._doubts
        is_asked = bool(asked) and bool(asked & self._origins.of(node))
        return is_asked or id(node) in tried or (bool(compared) and ast.dump(node) in compared)

    @cached_property
    def _doubts(self) -> tuple[set[Origin], set[int], set[str]]:
        """Of what it asks what it is; what it tries, by id; in what it looks for something, as text."""
        asked, tried, compared = set[Origin](), set[int](), set[str]()
        for each in self._nodes:
            match each:
                case ast.Try(body=body):
                    tried |= {id(node) for part in body for node in ast.walk(part)}
                case ast.Call(
                    func=ast.Name(id="hasattr" | "getattr" | "isinstance" | "type" | "callable"), args=[of, *_]
                ):
                    asked |= self._origins.of(of)
                case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[value]):
                    compared.add(ast.dump(value))
                case _:
                    pass
        return asked, tried, compared

    def _near(self, report: Report) -> Sequence[ast.AST]:
        """Return the nodes at a report's place, or that have something in them that is: of thousands of reports each costs little."""
        return self._by_place.get((report.row, report.column), ())

    @cached_property
    def _by_place(self) -> Mapping[tuple[int, int], Sequence[ast.AST]]:
        found: dict[tuple[int, int], list[ast.AST]] = {}
        for node in self._nodes:
            parts = list(ast.iter_child_nodes(node))
            inner = [each for part in parts for each in ast.iter_child_nodes(part)]
            for place in {place for each in (node, *parts, *inner) if (place := self._place(each)) is not None}:
                found.setdefault(place, []).append(node)
        return found

    def _place(self, node: ast.AST) -> tuple[int, int] | None:
        """Return row and column, both from 1, of what has a place."""
        row, offset = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        if not row:
            return None
        line = self._lines[row - 1]
        return row, (offset if line.isascii() else _character(line, offset)) + 1

    @cached_property
    def _dicts(self) -> Mapping[int, Sequence[ast.Dict]]:
        """The dicts that are written out, by their rows."""
        found: dict[int, list[ast.Dict]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Dict):
                found.setdefault(node.lineno, []).append(node)
        return found

    @cached_property
    def _names(self) -> Names:
        return Names(self._tree, self._tools)

    @cached_property
    def _knowing(self) -> Knowing:
        return Knowing(self._tree, self._names, self._origins)

    @cached_property
    def _origins(self) -> Origins:
        refused = {report.row for report in self._reports}

        def is_refused(node: ast.AST) -> bool:
            first = getattr(node, "lineno", 0)
            return not refused.isdisjoint(range(first, (getattr(node, "end_lineno", None) or first) + 1))

        return Origins(self._tree, self._tools, self._first, is_refused)

    def _subjects(self, report: Report) -> list[ast.expr]:
        """Return the expressions that a report is about: what is called and given, what is taken apart."""
        return [each for node in self._near(report) for each in self._subject(node, report)]

    def _subject(self, node: ast.AST, report: Report) -> Sequence[ast.expr]:
        match report.rule, node:
            case "unresolved-attribute", ast.Attribute(value=value, attr=name):
                return [value] if self._is_at(node, report) and f"`{name}`" in report.message else ()
            case "not-subscriptable" | "invalid-key", ast.Subscript(value=value, slice=key):
                return [value] if self._is_at(node, report) or self._is_at(key, report) else ()
            case "unresolved-attribute" | "not-subscriptable" | "invalid-key", _:
                return ()
            case _, ast.Call(func=function, args=args, keywords=words):
                given = [each for each in args if self._is_at(each, report)]
                given += [each.value for each in words if self._is_at(each, report)]
                return [function, *given] if given or self._is_at(node, report) else ()
            case _, ast.expr():
                return [node] if self._is_at(node, report) else ()
            case _:
                return ()

    def _is_at(self, node: ast.expr | ast.keyword, report: Report) -> bool:
        return self._place(node) == (report.row, report.column)

    def _keyword(self, report: Report) -> ast.keyword | None:
        words = (node for node in self._near(report) if isinstance(node, ast.keyword))
        return next((node for node in words if self._is_at(node, report)), None)

    def _is_expected(self, report: Report) -> bool:
        """Return whether the program asks for an attribute by its name, or sets it."""
        name = re.search(r"(?:has no|Unresolved) attribute `([^`]*)`", report.message)
        return name is not None and name[1] in self._expected

    @cached_property
    def _expected(self) -> set[object]:
        names: set[object] = set()
        for node in self._nodes:
            match node:
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[_, ast.Constant(value=name), *_]):
                    names.add(name)
                case _:
                    pass
        return names

    def _is_its_own_word(self, report: Report) -> bool:
        """Return whether a report holds a value against what the program itself says of a name or function of its own.

        The interpreter asks nothing of that.
        """
        if report.rule == "invalid-argument-type":
            calls = [node for node in self._near(report) if isinstance(node, ast.Call)]
            calls = [each for each in calls if any(self._is_at(part, report) for part in (*each.args, *each.keywords))]
            return bool(calls) and not any(self._names.is_tool(each.func) for each in calls)
        return True

    def _is_of_a_variant(self, report: Report) -> bool:
        """Return whether some variant of a union has the key that another one lacks: which one it is, the program may know."""
        union = re.search(r"subscripted object has type `([^`]*)`", report.message)
        if union is None:
            return False
        here = [
            each
            for each in self._reports
            if (each.rule, each.row, each.column) == (report.rule, report.row, report.column)
        ]
        lacking = {name for each in here for name in re.findall(r"for TypedDict `([^`]*)`", each.message)}
        return not lacking >= set(_members(union[1])) - {"None"}

    def _may_have(self, of: ast.expr, key: str) -> bool:
        """Return whether the program puts a key there, or may, or asks whether it is there."""
        return self._origins.is_put(of, key) or self._knowing.is_asked_for(of, key)


def _operands(node: ast.AST) -> Sequence[ast.expr]:
    """Return the expressions on which a node does something."""
    match node:
        case ast.AugAssign(target=left, value=right) | ast.BinOp(left=left, right=right):
            return left, right
        case ast.Compare(left=left, comparators=others):
            return left, *others
        case (
            ast.Subscript(value=value) | ast.Attribute(value=value) | ast.Call(func=value) | ast.UnaryOp(operand=value)
            | ast.For(iter=value) | ast.comprehension(iter=value)
        ):  # fmt: skip
            return (value,)
        case _:
            return ()


def _taken_from(node: ast.expr) -> ast.expr | None:
    """Return the container that an expression takes something out of."""
    match node:
        case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value, attr="get" | "setdefault" | "pop")):
            return value
        case _:
            return None


def _is_there(report: Report) -> bool:
    """Whether the name that the checker misses exists at run time: its library is smaller than the interpreter's."""
    match report.rule:
        case "unresolved-reference":
            found = re.search(r"Name `(\w+)`", report.message)
            return found is not None and hasattr(builtins, found[1]) and found[1] not in BUILTINS_MISSING
        case "unresolved-attribute" | "unresolved-import":
            found = re.search(r"Module `(\w+)` has no member `(\w+)`", report.message)
            if found is not None:
                return found[2] in MODULES.get(found[1], ())
            found = re.search(r"Cannot resolve imported module `(\w+)`", report.message)
            return found is not None and found[1] in MODULES and found[1] != "__future__"
        case _:
            return False


def _is_coroutine(type_: str) -> bool:
    """Whether a type is that of a coroutine, and of nothing else: no union."""
    while (outer := re.sub(r"\[[^\[\]]*\]", "", type_)) != type_:
        type_ = outer
    return type_ == "CoroutineType"


WITHOUT = re.compile(r"Object of type `([^`]*)` has no attribute `([^`]*)`")
UNTAKEN = re.compile(
    r"Method `__getitem__` of type .* cannot be called with key of type `([^`]*)` on object of type `([^`]*)`"
)
EXPECTED = re.compile(r"Expected `([^`]*)`, found `([^`]*)`")
SCALARS = frozenset({"str", "int", "float", "bool", "bytes", "date", "datetime", "Decimal", "timedelta", "None"})


def _kind(type_: str) -> str | None:
    """Return what a type is at run time, as far as an operation cares; None: several things, or one that is not known."""
    head, _, rest = type_.partition("[")
    if rest and (not rest.endswith("]") or len(_members(type_)) > 1):
        return None
    if head in ("list", "dict"):
        return "list" if head == "list" else "mapping"
    if head in SCALARS:
        return head
    return "mapping" if re.fullmatch(r"[A-Z]\w*", type_) and type_ not in ("Any", "Unknown", "Never") else None


def _is_clash(wanted: str, got: str) -> bool:
    """Return whether no value of one type is one of the other, as far as an operation cares."""
    return all(_is_other(each, got) for each in _members(wanted))


def _is_other(wanted: str, got: str) -> bool:
    kinds = _kind(wanted), _kind(got)
    if None in kinds or kinds == ("float", "int"):
        return False
    if kinds == ("list", "list"):
        return _is_clash(wanted.removeprefix("list")[1:-1], got.removeprefix("list")[1:-1])
    return kinds[0] != kinds[1]


def _members(type_: str) -> list[str]:
    """Split a union at its own bars, not at those inside brackets."""
    parts, level = [""], 0
    for letter in type_:
        level += (letter == "[") - (letter == "]")
        if letter in "|&" and not level:
            parts.append("")
        else:
            parts[-1] += letter
    return [each.strip() for each in parts]


EXCLUDED = re.compile(r" & ~(?:Literal\[[^\]]*\]|\w+)")
"""What a test before has excluded: `str & ~Literal["all"]`."""
COMPUTED: Mapping[str, re.Pattern[str]] = {
    "str": re.compile(r"Literal\[[^\]]*[\"']"), "LiteralString": re.compile(r"Literal\[[^\]]*[\"']"),
    "int": re.compile(r"Literal\[(?:[^\]]*, )?(?:-?\d|True|False)"), "bool": re.compile(r"Literal\[(?:[^\]]*, )?(?:True|False)"),
}  # fmt: skip
"""What a program computes, and the literals of which it may be one."""


def _is_certain_type(message: str, *, may_be_there: bool) -> bool:
    """Whether both types of a mismatch are known well enough: exact, or `X | None` where `X` is needed.

    Of a None the program may know better than its type.
    A `str` may be one of the literals, an `int` one of the numbers; a dict or list of the program's own is inferred from its first items; a typed
    result may be kept in a plain `dict`; a generator expression with an `await` is a list here.
    """
    expected = re.search(r"[Ee]xpected `([^`]*)`|not assignable to (?:return type )?`([^`]*)`", message)
    found = re.search(r"found `([^`]*)`|[Oo]bject of type `([^`]*)`|value of type `([^`]*)`", message)
    if expected is None or found is None:
        return False
    wanted, got = (next(kind for kind in match.groups() if kind) for match in (expected, found))
    got = EXCLUDED.sub("", got)
    if set(_members(got)) - set(_members(wanted)) == {"None"} and got != "None":
        return not may_be_there
    if any(part in kind for part in (*LOOSE, "Generator", "object", "*") for kind in (wanted, got)):
        return "list[Literal" in wanted and got.startswith("Literal")
    if " | " in got:
        return got == f"{wanted} | None" and not may_be_there
    return not (got in COMPUTED and COMPUTED[got].search(wanted))


def _is_constant(node: ast.expr) -> bool:
    return all(
        isinstance(each, ast.Dict | ast.List | ast.Constant | ast.UnaryOp | ast.USub | ast.expr_context)
        for each in ast.walk(node)
    )


def _character(line: str, offset: int) -> int:
    """Turn a byte offset, as in `ast`, into a character offset, as the checker reports."""
    return len(line.encode()[:offset].decode(errors="ignore"))
