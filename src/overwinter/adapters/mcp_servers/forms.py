"""What an MCP server asks a person in the middle of a call (elicitation), as a question of ours and back.

| what is asked for | a person answers |
|---|---|
| one choice, or yes or no | one of the options |
| one field | its text or number |
| several fields | a JSON object: `{"name": "Ada", "age": 36}` |
| to open an address | `done` |
| any of them | `decline` |
"""

import json
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["DECLINE", "answered", "asked"]

DECLINE = "decline"
DONE = "done"
QUESTION_CHARACTERS_MAX = 2_000


def asked(params: Mapping[str, Any]) -> tuple[str, list[str] | None]:
    """Return the question and its options, of the parameters of an `elicitation/create`; None: free text."""
    message = "".join(each if each.isprintable() or each == "\n" else " " for each in str(params.get("message") or ""))
    if params.get("mode") == "url":
        return f"{message[:QUESTION_CHARACTERS_MAX]}\nopen {params.get('url')}", [DONE, DECLINE]
    fields = _fields(params)
    if len(fields) == 1:
        choices = _choices(next(iter(fields.values())))
        if choices is not None:
            return message[:QUESTION_CHARACTERS_MAX], [*choices, DECLINE]
    wanted = ", ".join(f"{name} ({_kind(schema)})" for name, schema in fields.items()) or "nothing: answer {}"
    form = "as a JSON object" if len(fields) != 1 else "as it is"
    return f"{message[:QUESTION_CHARACTERS_MAX]}\nwanted, {form}: {wanted}; or {DECLINE!r}", None


def answered(params: Mapping[str, Any], text: str) -> Mapping[str, Any]:
    """Return a person's answer as an `ElicitResult`.

    Raises:
        ValueError: it is not what was asked for; the message says what is.
    """
    if text.strip() == DECLINE:
        return {"action": "decline"}
    if params.get("mode") == "url":
        return {"action": "accept"}
    fields = _fields(params)
    content = {next(iter(fields)): _typed(*next(iter(fields.items())), text)} if len(fields) == 1 else _object(text)
    missing = [name for name in _required(params) if name not in content]
    unknown = [name for name in content if name not in fields]
    if missing or unknown:
        raise ValueError(f"{', '.join(missing)} is missing" if missing else f"nobody asked for {', '.join(unknown)}")
    for name, value in content.items():
        if fault := _fault(fields[name], value):
            raise ValueError(f"{name}: {fault}")
    return {"action": "accept", "content": content}


def _fields(params: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    schema = params.get("requestedSchema")
    rows = cast("Mapping[str, Any]", schema).get("properties") if isinstance(schema, Mapping) else None
    return {str(key): row for key, row in cast("Mapping[str, Any]", rows or {}).items() if isinstance(row, Mapping)}


def _required(params: Mapping[str, Any]) -> list[str]:
    required = params["requestedSchema"].get("required") if params.get("requestedSchema") else None
    return [str(each) for each in cast("list[Any]", required)] if isinstance(required, list) else []


def _choices(schema: Mapping[str, Any]) -> list[str] | None:
    if schema.get("type") == "boolean":
        return ["yes", "no"]
    titled = schema.get("oneOf")
    if isinstance(titled, list):
        return [str(each.get("const")) for each in cast("list[Any]", titled) if isinstance(each, Mapping)]
    plain = schema.get("enum")
    return [str(each) for each in cast("list[Any]", plain)] if isinstance(plain, list) else None


def _kind(schema: Mapping[str, Any]) -> str:
    choices = _choices(schema)
    return " or ".join(choices) if choices else str(schema.get("type") or "text")


def _typed(name: str, schema: Mapping[str, Any], text: str) -> Any:
    match schema.get("type"):
        case "boolean":
            return {"yes": True, "true": True, "no": False, "false": False}.get(text.strip().lower(), text)
        case "integer" | "number" | "array":
            try:
                return json.loads(text)
            except ValueError:
                return text
        case _:
            is_object = text.lstrip().startswith("{")
            return _object(text).get(name, text) if is_object else text


def _object(text: str) -> dict[str, Any]:
    try:
        made = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(made, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a person wrote it, no caller of ours
    return cast("dict[str, Any]", made)


def _fault(schema: Mapping[str, Any], value: Any) -> str:
    import jsonschema_rs  # noqa: PLC0415 - few servers ask

    try:
        error = next(jsonschema_rs.validator_for(dict(schema)).iter_errors(value), None)
    except ValueError:  # the server's schema is broken: the server judges
        return ""
    return error.message if error is not None else ""
