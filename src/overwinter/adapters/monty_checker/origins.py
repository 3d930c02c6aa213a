"""Where the values of a program come from: which tool answered them, and whether the program has put something in their place.

The type checker believes that a row is what a tool's stub says for as long as the program lives. The program may have put
something else there, in a function of its own or under a key that it computes. So values are followed through names, functions
and the program's own lists and dicts, without regard to order or scope: what happens anywhere counts everywhere. It is a
points-to analysis of Andersen's kind, with one object for each literal, and one for all that a tool's function answers.
"""

import ast
import builtins
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from overwinter.adapters.monty_checker.scopes import FUNCTIONS, own, paired
from overwinter.bindings import binds, root

__all__ = ["ANY", "ITEM", "Origin", "Origins", "key_of"]

Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"
Origin: TypeAlias = "str | int"
"""A tool's function, as the program calls it; a list, dict or object of the program's own, by its node; or one of these:"""
REPLACED: Final = "<put there by the program>"
REFILLED: Final = "<out of a list or dict of the program's own, whose making alone the checker has seen>"
UNTYPED: Final = "<of no type that the checker knows>"
ELSEWHERE: Final = "<from where it cannot be seen>"
BEFORE: Final = "<of a program before>"
MIXED: Final = "<one of several kinds, the checker does not know which>"
NONE: Final = "<None, by the program's own doing>"
GUESSED = frozenset({UNTYPED, ELSEWHERE, BEFORE})
"""What may be of any type: put where another is declared, the checker takes it without a word, and goes on to believe the declaration."""
SPECIAL = frozenset({REPLACED, REFILLED, UNTYPED, ELSEWHERE, BEFORE, MIXED, NONE})

ITEM: Final = "[]"
"""The key of what is in a list, or is gone through."""
ANY: Final = "*"
"""A key that is computed."""
PASSES_MAX = 24
WORK_MAX = 5_000_000
"""Steps after which a program counts as too tangled to follow: about two seconds, and no ordinary one takes a tenth of it."""
DEPTH_MAX = 100

PART_OF = frozenset({"max", "min", "next"})
SAME_AS = frozenset({"create_task", "ensure_future", "shield", "wait_for"})
ALL_OF = frozenset({
    "sorted", "list", "reversed", "iter", "dict", "set", "tuple", "frozenset", "filter", "deque", "Counter", "values", "copy", "deepcopy",
})  # fmt: skip
PAIRS_OF = frozenset({"enumerate", "zip", "items"})
TOGETHER = frozenset({"gather", "settle"})
OUT_OF = frozenset({"get", "pop", "setdefault", "popitem", "popleft"})
PUT: Mapping[str, int] = {"append": 0, "add": 0, "appendleft": 0, "insert": 1, "setdefault": 1}
"""Methods that put one thing into what they are called on, and which argument it is."""
POURED = frozenset({"extend", "extendleft", "update"})
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPUTED = frozenset({"sum", "abs", "round", "pow", "divmod"})
NOTHING_OF = frozenset(dir(builtins)) - PART_OF - ALL_OF - PAIRS_OF - {"getattr", "map"}


class Origins:
    """The origins of every value in one text.

    Args:
        tree: the text: the program, behind what it needs of those before it.
        tools: the names by which it reaches the modules of tools.
        first: row of the program's first line.
        is_refused: whether the checker refuses what a node puts somewhere: the value is then not of the type that it goes on to believe.
    """

    def __init__(
        self, tree: ast.Module, tools: Collection[str], first: int, is_refused: Callable[[ast.AST], bool]
    ) -> None:
        self._tools, self._first, self._is_refused = tools, first, is_refused
        self._named: dict[str, set[Origin]] = defaultdict(set)
        self._inside: dict[Origin, set[Origin]] = defaultdict(set)
        self._copies = set[Origin]()
        self._keys: dict[Origin, set[str]] = defaultdict(set)
        self._replaced: dict[Origin, set[str]] = defaultdict(set)
        self._refilled: dict[Origin, set[str]] = defaultdict(set)
        nodes = list(ast.walk(tree))
        classes = [each for each in nodes if isinstance(each, ast.ClassDef)]
        self._classes = {each.name for each in classes}
        self._functions = _by_name(nodes)
        self._methods = _by_name(part for each in classes for part in each.body)
        self._makers = {each.name: _by_name(each.body)["__init__"] for each in classes}
        self._fields = {each.name: _fields(each) for each in classes}
        self._modules = {each for node in nodes if isinstance(node, ast.Import) for each in binds(node)} | {"asyncio"}
        for node in nodes:
            if isinstance(node, ast.arg):
                self._named[node.arg].add(UNTYPED)
        self._is_changing, self._is_tangled, self._work = True, False, 0
        for _ in range(PASSES_MAX):
            self._is_changing = False
            for node in nodes:
                self._flow(node)
            if not self._is_changing:
                break
        else:
            self._is_tangled = True
        self._work = 0  # questions have as much again: what following took is none of theirs

    def of(self, node: ast.expr | None) -> frozenset[Origin]:
        """Return where a value may come from; empty: it is a number, a text or the like, or nothing is known of it."""
        return frozenset(self._of(node, 0))

    def is_promised(self, node: ast.expr) -> bool:
        """Return whether a value is what a tool answered, or a part of it, as it came: its type is then the tool's own word."""
        origins = self._of(node, 0)
        return bool(origins) and all(map(self._is_word, origins))

    def _is_word(self, origin: Origin) -> bool:
        """Return whether an origin is a tool, or an unchanged copy of what one answered."""
        if isinstance(origin, str):
            return origin not in SPECIAL
        inside = self._inside[origin]
        is_copy = origin in self._copies and not self._keys[origin] and bool(inside)
        return is_copy and all(isinstance(each, str) and each not in SPECIAL for each in inside)

    def is_replaced(self, node: ast.expr) -> bool:
        """Return whether the program may have put a value where the checker believes to find another."""
        return not {REPLACED, REFILLED}.isdisjoint(self._of(node, 0))

    def is_another_row(self, node: ast.expr) -> bool:
        """Return whether the program may have put another row or dict in the place of a tool's."""
        return REPLACED in self._of(node, 0)

    def is_mixed(self, node: ast.expr) -> bool:
        """Return whether a value is one of several things that the program keeps together: `[row, 5]`."""
        return MIXED in self._of(node, 0)

    def is_put(self, of: ast.expr, key: str) -> bool:
        """Return whether the program puts something under a key into what a value may be."""
        return any({key, ANY} & self._keys[each] for each in self._of(of, 0))

    # What happens to values.

    def _flow(self, node: ast.AST) -> None:  # noqa: C901, PLR0912 - a table of statements
        match node:
            case ast.Assign(targets=targets, value=value):
                for each in targets:
                    self._bind_all(each, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                self._bind_all(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                self._augment(node, target, op, value)
            case ast.For(target=target, iter=of) | ast.comprehension(target=target, iter=of):
                self._bind(target, self._taken(self._of(of, 0), ITEM))
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                self._bind(target, self._of(value, 0))
            case ast.Match(subject=subject, cases=cases):
                whole = self._of(subject, 0)
                for name in _captured(cases):
                    self._add(self._named[name], whole | self._taken(whole, ANY))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                for each in own(node):
                    if isinstance(each, ast.Return):
                        self._add(self._named[f"{name}()"], self._of(each.value, 0))
            case ast.Call():
                self._pass(node)
                self._put_by_method(node)
            case _:
                pass

    def _bind_all(self, target: ast.expr, value: ast.expr) -> None:
        for each, of in paired(target, value):
            self._bind(each, self._of(of, 0))

    def _bind(self, target: ast.expr, origins: set[Origin]) -> None:
        match target:
            case ast.Name(id=name):
                self._add(self._named[name], origins | ({BEFORE} if target.lineno < self._first else set()))
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for each in targets:
                    self._bind(each, self._taken(origins, ITEM))
            case ast.Starred(value=each):
                self._bind(each, origins)
            case ast.Subscript(value=of, slice=key):
                self._put(target, of, key_of(key), origins)
            case ast.Attribute(value=of, attr=name):
                self._add(self._named[f".{name}"], origins)
                self._put(target, of, name, origins)
            case _:
                pass

    def _augment(self, node: ast.AST, target: ast.expr, op: ast.operator, value: ast.expr) -> None:
        match target:
            case ast.Subscript(value=of, slice=key):
                self._put(node, of, key_of(key), self._of(value, 0))
            case ast.Name() if isinstance(op, ast.Add):
                self._put(node, target, ITEM, self._taken(self._of(value, 0), ITEM))
            case ast.Name() if isinstance(op, ast.BitOr):
                self._pour(node, target, value)
            case _:
                pass

    def _put_by_method(self, call: ast.Call) -> None:
        match call:
            case ast.Call(func=ast.Attribute(value=of, attr=name), args=args) if len(args) > PUT.get(name, len(args)):
                key = key_of(args[0]) if name == "setdefault" else ITEM
                self._put(call, of, key, self._of(args[PUT[name]], 0))
            case ast.Call(func=ast.Attribute(value=of, attr=name), args=args, keywords=words) if name in POURED:
                for each in args:
                    self._pour(call, of, each)
                for word in words:
                    self._put(call, of, word.arg or ANY, self._of(word.value, 0))
            case _:
                pass

    def _pour(self, node: ast.AST, of: ast.expr, more: ast.expr) -> None:
        if isinstance(more, ast.Dict):
            for key, value in zip(more.keys, more.values, strict=True):
                self._put(node, of, ANY if key is None else key_of(key), self._of(value, 0))
        else:
            key = ITEM if isinstance(node, ast.Call) and getattr(node.func, "attr", "") != "update" else ANY
            self._put(node, of, key, self._taken(self._of(more, 0), ITEM))

    def _put(self, node: ast.AST, of: ast.expr, key: str, origins: set[Origin]) -> None:
        """Put something into all that a value may be, and remember where the checker will be mistaken from then on."""
        targets = self._of(of, 0)
        is_unseen = UNTYPED in targets or self._is_refused(node)
        for each in targets - SPECIAL:
            self._add(self._keys[each], {key})
            if isinstance(each, int):
                self._add(self._inside[each], origins)
            is_row = isinstance(each, str) or each in self._copies
            is_same = bool(origins) and origins <= {each}
            is_other = is_row and (bool(origins & GUESSED) or (key == ANY and not is_same))
            if is_unseen or is_other:
                self._add(self._replaced[each], {key})
            elif not is_row and _is_blind(node, key):
                self._add(self._refilled[each], {key})

    def _pass(self, call: ast.Call) -> None:
        """Give functions of the program's own what they are called with."""
        given = [*call.args, *(word.value for word in call.keywords)]
        for function in self._called(call):
            self._give(function, call, is_method=isinstance(call.func, ast.Attribute))
        if isinstance(call.func, ast.Name):
            for maker in self._makers.get(call.func.id, ()):
                self._give(maker, call, is_method=True)
            for name in self._fields.get(call.func.id, ()):
                self._add(self._named[f".{name}"], self._all(given, 0))
        for each in given:
            functions: Sequence[ast.AST] = self._functions.get(each.id, ()) if isinstance(each, ast.Name) else (each,)
            for function in functions:
                if isinstance(function, FUNCTIONS):
                    others = {origin for other in given if other is not each for origin in self._of(other, 0)}
                    for name in _parameters(function):
                        self._add(self._named[name], others | self._taken(others, ITEM))

    def _called(self, call: ast.Call) -> "Sequence[Definition]":
        match call.func:
            case ast.Name(id=name):
                return self._functions.get(name, ())
            case ast.Attribute(attr=name):
                return self._methods.get(name, ())
            case _:
                return ()

    def _give(self, function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call, *, is_method: bool) -> None:
        parameters = [*function.args.posonlyargs, *function.args.args][is_method:]
        is_spread = any(isinstance(each, ast.Starred) for each in call.args) or any(
            not each.arg for each in call.keywords
        )
        for at, each in enumerate(call.args):
            if at < len(parameters) and not is_spread:
                self._add(self._named[parameters[at].arg], self._of(each, 0))
            else:
                self._give_all(function, each)
        for word in call.keywords:
            if word.arg in _parameters(function):
                self._add(self._named[word.arg], self._of(word.value, 0))
            else:
                self._give_all(function, word.value)

    def _give_all(self, function: ast.FunctionDef | ast.AsyncFunctionDef, value: ast.expr) -> None:
        whole = self._of(value, 0)
        for name in _parameters(function):
            self._add(self._named[name], whole | self._taken(whole, ITEM))
        for each in (function.args.vararg, function.args.kwarg):
            if each is not None:
                self._add(self._named[each.arg], self._new(each, whole | self._taken(whole, ITEM)))

    # What values are.

    def _of(self, node: ast.expr | None, depth: int) -> set[Origin]:  # noqa: C901, PLR0911, PLR0912 - a table of expressions
        if depth > DEPTH_MAX or self._is_tangled:
            return {ELSEWHERE, REPLACED}
        depth += 1
        match node:
            case ast.Name(id=name):
                return set(self._named.get(name, ()))
            case ast.Await(value=value) | ast.Starred(value=value) | ast.NamedExpr(value=value):
                return self._of(value, depth)
            case ast.Subscript(value=value, slice=key):
                return self._taken(self._of(value, depth), key_of(key))
            case ast.Attribute(value=value, attr=name):
                return self._taken(self._of(value, depth), name) | self._named.get(f".{name}", set())
            case ast.IfExp(body=one, orelse=other):
                return self._of(one, depth) | self._of(other, depth)
            case ast.BoolOp(values=values):
                return self._all(values, depth)
            case ast.BinOp(left=left, right=right):
                whole = self._all([left, right], depth)
                return self._new(node, self._taken(whole, ITEM)) | (whole & {REPLACED, REFILLED})
            case ast.Compare(left=left, comparators=others):
                return self._all([left, *others], depth) & {REPLACED, REFILLED}
            case ast.UnaryOp(operand=value):
                return self._of(value, depth) & {REPLACED, REFILLED}
            case ast.Call():
                return self._answered(node, depth)
            case ast.Constant(value=None):
                return {NONE}
            case _:
                return self._made(node, depth)

    def _all(self, nodes: Iterable[ast.expr], depth: int) -> set[Origin]:
        return {origin for each in nodes for origin in self._of(each, depth)}

    def _tuple(self, node: ast.expr, items: Sequence[ast.expr], depth: int) -> set[Origin]:
        """Return a tuple: of one that is written out the checker knows what is where."""
        is_written_out = not any(isinstance(each, ast.Starred) for each in items)
        return self._new(node, self._items(items, depth) - ({MIXED} if is_written_out else set()))

    def _items(self, nodes: Sequence[ast.expr], depth: int) -> set[Origin]:
        """Return what is in a list or dict of such elements. Of several kinds the checker does not know which is where."""
        found, kinds = set[Origin](), set[tuple[frozenset[Origin], str]]()
        for each in nodes:
            whole = self._of(each, depth)
            whole = self._taken(whole, ITEM) if isinstance(each, ast.Starred) else whole
            found |= whole
            kinds.add((frozenset(whole), key_of(each.slice) if isinstance(each, ast.Subscript) else ""))
        return found | ({MIXED} if len(kinds) > 1 else set())

    def _made(self, node: ast.expr | None, depth: int) -> set[Origin]:
        """Return the list, dict or set that an expression makes."""
        match node:
            case ast.List(elts=[]) | ast.Dict(keys=[]):
                return self._new(node, {UNTYPED})
            case ast.List(elts=items) | ast.Set(elts=items):
                return self._new(node, self._items(items, depth))
            case ast.Tuple(elts=items):
                return self._tuple(node, items, depth)
            case ast.Dict(keys=keys, values=values):
                items = [
                    ast.Starred(value=value) if key is None else value for key, value in zip(keys, values, strict=True)
                ]
                return self._new(node, self._items(items, depth))
            case ast.ListComp(elt=item) | ast.SetComp(elt=item) | ast.GeneratorExp(elt=item) | ast.DictComp(value=item):
                return self._new(node, self._of(item, depth))
            case _:
                return set()

    def _answered(self, call: ast.Call, depth: int) -> set[Origin]:
        """Return what a call gives."""
        function = call.func
        if root(function) in self._tools and not (isinstance(function, ast.Attribute) and function.attr in TOGETHER):
            return {_dotted(function)}
        called = self._called(call)
        if called:
            # What a function without a hint gives, the checker may not know.
            is_typed = all(each.returns is not None and "Any" not in ast.unparse(each.returns) for each in called)
            return self._named.get(f"{called[0].name}()", set()) | (set() if is_typed else {UNTYPED})
        match function:
            case ast.Attribute(value=of, attr=name) if root(of) not in self._modules:
                return self._of_method(call, of, name, depth)
            case ast.Attribute(attr=name) | ast.Name(id=name):
                return self._of_function(call, name, depth)
            case _:
                return {ELSEWHERE}

    def _of_method(self, call: ast.Call, of: ast.expr, name: str, depth: int) -> set[Origin]:
        whole = self._of(of, depth)
        if name in OUT_OF:
            key = key_of(call.args[0]) if call.args else ITEM
            return self._taken(whole, key) | self._all(call.args[1:], depth)
        if name in ALL_OF:
            return self._copy(call, self._taken(whole, ANY if name == "values" else ITEM))
        if name in PAIRS_OF:
            return self._new(call, self._new(call, self._taken(whole, ANY), -1))
        given = self._all([*call.args, *(word.value for word in call.keywords)], depth)
        return {ELSEWHERE} | whole | given

    def _of_function(self, call: ast.Call, name: str, depth: int) -> set[Origin]:  # noqa: PLR0911 - a table of functions
        if name in TOGETHER:
            return self._tuple(call, call.args, depth)
        given = self._all([*call.args, *(word.value for word in call.keywords)], depth)
        if name in SAME_AS:
            return given
        if name in PART_OF:
            return self._taken(given, ITEM) | (given if len(call.args) > 1 else set())
        if name in PAIRS_OF:
            return self._new(call, self._new(call, self._taken(given, ITEM), -1))
        if name in self._classes:
            return self._new(call, given)
        if name in ALL_OF:
            return self._copy(call, self._taken(given, ITEM))
        if name == "defaultdict":
            return self._new(call, {UNTYPED, -id(call)})
        if name == "getattr":
            return self._taken(given, ANY) | given
        if name in COMPUTED:
            return (given | self._taken(given, ITEM)) & {REPLACED, REFILLED}
        return set() if name in NOTHING_OF else {ELSEWHERE} | given

    def _copy(self, call: ast.Call, inside: set[Origin]) -> set[Origin]:
        """Return a new list or dict that the checker takes to be of the type of the old one."""
        self._copies.add(id(call))
        return self._new(call, inside)

    def _new(self, node: ast.AST, inside: set[Origin], sign: int = 1) -> set[Origin]:
        """Return what a node makes anew, with something in it."""
        self._add(self._inside[sign * id(node)], inside)
        return {sign * id(node)}

    def _taken(self, origins: set[Origin], key: str) -> set[Origin]:
        """Return what is under a key of what may be one of several things."""
        found = set[Origin]()
        for each in origins:
            found |= self._inside[each] if isinstance(each, int) else {each}
            if self._is_replaced(each, key):
                found.add(REPLACED)
            elif _has(self._refilled.get(each), key):
                found.add(REFILLED)
        self._spend(len(origins) + len(found))
        return found

    def _is_replaced(self, origin: Origin, key: str) -> bool:
        if _has(self._replaced.get(origin), key):
            return True
        return NONE in self._inside.get(origin, ()) and bool(self._keys.get(origin))  # `[None] * 3`, filled later

    def _add(self, known: "set[Origin] | set[str]", more: "set[Origin] | set[str]") -> None:
        self._spend(1 + len(more))
        if not self._is_tangled and not more <= known:
            known |= more
            self._is_changing = True

    def _spend(self, steps: int) -> None:
        self._work += steps
        self._is_tangled = self._is_tangled or self._work > WORK_MAX


def _has(keys: Collection[str] | None, key: str) -> bool:
    return bool(keys) and (key in (keys or ()) or ANY in (keys or ()) or key == ANY)


def _is_blind(node: ast.AST, key: str) -> bool:
    """Whether the checker, which knows what is in a dict or list of the program's own, does not see that something else is now."""
    return key == ANY or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") != "append")


def _by_name(nodes: Iterable[ast.AST]) -> "Mapping[str, list[Definition]]":
    found: dict[str, list[Definition]] = defaultdict(list)
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            found[node.name].append(node)
    return found


def _fields(node: ast.ClassDef) -> list[str]:
    """Return the fields that a class declares, as a dataclass does."""
    declared = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    return [each.id for each in declared if isinstance(each, ast.Name)]


def key_of(node: ast.expr) -> str:
    """Return by which key something is taken or put."""
    match node:
        case ast.Constant(value=str(key)):
            return key
        case ast.Constant() | ast.Slice() | ast.UnaryOp():
            return ITEM
        case _:
            return ANY


def _dotted(function: ast.expr) -> str:
    names: list[str] = []
    while isinstance(function, ast.Attribute):
        names.append(function.attr)
        function = function.value
    return ".".join([root(function) or "", *reversed(names)])


def _captured(cases: Iterable[ast.match_case]) -> Iterator[str]:
    for case in cases:
        for node in ast.walk(case.pattern):
            yield from binds(node)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[str]:
    return [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
