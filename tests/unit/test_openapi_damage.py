"""Descriptions with junk in random places: what is usable stays usable, and the module that comes out is always Python."""

import ast
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.catalog.modules import built
from overwinter.errors import ConfigInvalid

SLACK = lzma.decompress((Path(__file__).parents[2] / "bench/data/slack.json.xz").read_bytes())
JUNK: list[Any] = [
    None, [], {}, "", "\x00\x1b[31m", "x" * 5_000, -1, 1e308, True, [None], {"$ref": "#/"}, {"$ref": "#/paths"}, {"$ref": 5},
    {"type": ["x", None]}, {"type": []}, {"enum": [{}]}, {"enum": [1.5, "a", None]}, {"properties": []},
    {"properties": {"": 1, "a b": {}, "__class__": {}, "from": {}}}, {"allOf": [{"$ref": "#/x"}]}, {"items": {"items": {}}},
    {"required": "a"}, {"type": {}}, {"const": {"a": 1}}, {"oneOf": "x"}, {"nullable": "yes", "type": "string"}, "'''\"\"\"\\",
    "\ud800",
]  # fmt: skip


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


@pytest.mark.parametrize("seed", range(40))
def test_junk_in_a_description_spoils_at_most_the_operations_it_is_in(seed):
    random, document = Random(seed), json.loads(SLACK)
    found = list(places(document))
    for _ in range(random.choice([1, 10, 100, 1_000])):
        holder, key = random.choice(found)
        if (isinstance(holder, dict) and key in holder) or (isinstance(holder, list) and key < len(holder)):
            holder[key] = random.choice(JUNK)
    try:
        read = parse(json.dumps(document).encode(), "slack")
    except ConfigInvalid:
        return  # the junk took the place of the paths themselves
    described, _ = operations(read)
    module = built("slack", described, read.resolve)
    ast.parse(re.sub(r"^type ", "alias_", module.stub, flags=re.MULTILINE))
    for each in module.functions:
        assert each.function.name.partition(".")[2].isidentifier()
        assert len(each.function.summary) <= 100
        assert each.function.summary.isprintable()
        json.dumps([each.plan, each.schema])
