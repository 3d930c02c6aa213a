"""The schema that arguments are judged by at the call."""

import jsonschema_rs
import pytest

from overwinter.adapters.monty_checker.judge import Judge
from overwinter.adapters.monty_checker.text import Checked, Report, parsed
from overwinter.catalog.schemas import arguments_schema

SCHEMAS = {
    "#/base": {
        "properties": {"ttl": {"type": "integer"}, "id": {"type": "string", "readOnly": True}},
        "required": ["ttl"],
    },
    "#/record": {
        "allOf": [{"properties": {"name": {"type": "string"}}}, {"$ref": "#/base"}],
        "required": ["name", "id"],
    },
    "#/loop": {"allOf": [{"$ref": "#/loop"}], "required": ["a"]},
}


@pytest.mark.parametrize(
    ("ref", "value", "is_right"),
    [
        ("#/record", {"name": "a", "ttl": 1}, True),
        ("#/record", {"ttl": 1}, False),
        ("#/record", {"name": "a"}, False),
        ("#/record", {}, False),
        ("#/loop", {"b": 1}, False),
    ],
)
def test_keys_that_are_required_beside_the_parts_of_an_object_are_required(ref, value, is_right):
    schema = dict(arguments_schema({"body": {"$ref": ref}}, frozenset({"body"}), SCHEMAS.get))
    if ref == "#/loop":  # no validator takes it; it must only be written
        assert schema["$defs"]["d0"]["required"] == ["a"]
        return
    assert jsonschema_rs.validator_for(schema).is_valid({"body": value}) == is_right


@pytest.mark.parametrize(
    ("found", "is_certain"),
    [
        ("list[BlockRule | LogRule | ... omitted 16 union elements]", False),
        ("list[BlockRule | LogRule]", False),
        ("list[BlockRule | dict[str, int]]", True),
        ("list[BlockRule | int]", True),
        ("list[int]", True),
    ],
)
def test_a_literal_that_fits_some_members_of_a_union_is_not_refused(found, is_certain):
    text = "await svc.put(rules=[{}])"
    message = f"Argument to function `put` is incorrect: Expected `list[Rule]`, found `{found}`"
    report = Report(row=1, column=15, rule="invalid-argument-type", message=message)
    judge = Judge(Checked(text=text, first=1, touched=frozenset()), parsed(text), ["svc"])
    assert judge.is_certain(report) == is_certain
