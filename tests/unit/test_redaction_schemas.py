"""Every text that the SDKs' types of a request have: redaction looks at it, or it is listed here as none for a model."""

import enum
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, Union, cast, get_args, get_origin

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming
from google.genai import types as gemini
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from typing_extensions import get_type_hints, is_typeddict

from overwinter.adapters.dialects import dialects
from overwinter.gateway.cleaning import SETTINGS
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Found, Redactor, Rules, Search

DEPTH_MAX = 14
MARK = re.compile(r"TEXT(\d{5})X")
NOT_FOR_A_MODEL: Mapping[DialectName, frozenset[str]] = {
    "chat": frozenset({
        "model", "prompt_cache_key", "tool_choice", "audio",
        ".id", ".tool_call_id", ".function.name", ".custom.name", ".function_call.name", "functions[].name",
        ".file.file_id", ".file.file_data", ".image_url.url", ".input_audio.data",
    }),
    "responses": frozenset({
        "model", "prompt_cache_key", "tool_choice", "conversation", "previous_response_id", "prompt_cache_options", "reasoning",
        "context_management", ".id", ".call_id", "input[].name", "tools[].name", ".type", ".fingerprint",
        ".file_id", ".file_data", ".image_url", ".encrypted_content",
    }),
    "messages": frozenset({
        "model", "tool_choice", "betas", "container", "inference_geo", "mcp_servers",
        ".id", ".tool_use_id", "messages[].content[].name", "tools[].name", ".definition.name", ".file_id",
        ".signature", ".thinking", ".encrypted_content", ".encrypted_index", ".encrypted_stdout",
        ".clear_tool_inputs[]", ".exclude_tools[]",
    }),
    "gemini": frozenset({
        "cachedContent", "toolConfig", ".role", ".fileUri", ".mimeType", ".responseMimeType",
        ".functionCall.name", ".functionResponse.name", "functionDeclarations[].name",
    }),
    "embeddings": frozenset({"model"}),
}  # fmt: skip
"""Fields at the top, and ends of paths: ids, names of tools, what is signed, bytes and addresses of files, settings."""


TYPES: Mapping[DialectName, Mapping[str, Any]] = {
    "chat": get_type_hints(CompletionCreateParamsNonStreaming),
    "responses": get_type_hints(ResponseCreateParamsNonStreaming),
    "messages": get_type_hints(MessageCreateParamsNonStreaming),
    "embeddings": get_type_hints(EmbeddingCreateParams),
    "gemini": {
        "contents": list[gemini.Content], "systemInstruction": gemini.Content, "tools": list[gemini.Tool],
        "toolConfig": gemini.ToolConfig, "generationConfig": gemini.GenerationConfig, "cachedContent": str,
        "safetySettings": list[gemini.SafetySetting], "labels": dict[str, str],
    },
}  # fmt: skip
"""Of each field at the top. Gemini's SDK has no type of a whole request."""


class Marks:
    """Makes values of a type, with a mark in the place of each text in them."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def of(self, kind: Any, path: str, above: tuple[Any, ...] = ()) -> list[Any]:
        """Return a value for each alternative of a type, a type within itself left out."""
        origin = get_origin(kind)
        if origin in (Required, NotRequired, Annotated):
            return self.of(get_args(kind)[0], path, above)
        if origin in (Union, types.UnionType):
            return [each for one in get_args(kind) for each in self.of(one, path, above)]
        if kind in (str, object, Any):
            self.paths.append(path)
            return [f"TEXT{len(self.paths) - 1:05}X"]
        if kind in above or len(above) > DEPTH_MAX:
            return []
        return fixed(kind, origin) or self._compound(kind, origin, path, (*above, kind))

    def _compound(self, kind: Any, origin: Any, path: str, above: tuple[Any, ...]) -> list[Any]:
        if origin is not None and issubclass(origin, Mapping):
            values = self.of(get_args(kind)[1], f"{path}.*", above)
            return [{f"key{number}": each for number, each in enumerate(values)}]
        if origin is not None and issubclass(origin, Iterable):
            return [self.of(get_args(kind)[0], f"{path}[]", above)]
        if is_typeddict(kind):
            return self._objects({name: (name, each) for name, each in get_type_hints(kind).items()}, path, above)
        fields: Mapping[str, Any] = getattr(kind, "model_fields", {})
        made = {name: (each.alias or name, each.annotation) for name, each in fields.items()}
        return self._objects(made, path, above) if made else []

    def _objects(self, fields: Mapping[str, tuple[str, Any]], path: str, above: tuple[Any, ...]) -> list[Any]:
        rows = {name: self.of(kind, f"{path}.{name}", above) for name, kind in fields.values()}
        literals = {name: rows[name][0] for name, kind in fields.values() if get_origin(kind) is Literal}
        others = [{**literals, name: each} for name, row in rows.items() for each in row[1:]]
        return [{name: row[0] for name, row in rows.items() if row}, *others]


def fixed(kind: Any, origin: Any) -> list[Any]:
    """Return a value of a type that has no texts of its own; none of another type."""
    if origin is Literal:
        return [get_args(kind)[0]]
    if kind in (bool, int, float):
        return [kind(1)]
    return [next(iter(kind)).value] if isinstance(kind, type) and issubclass(kind, enum.Enum) else []


class Marked:
    """A detector of marks."""

    name = "marks"

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        return [[Found(*each.span(), "email") for each in MARK.finditer(text)] for text in texts]


def seen_by(name: DialectName) -> Iterator[tuple[str, bool]]:
    """Yield the path of each text, and whether redaction looks at it."""
    marks, dialect = Marks(), dialects()[name]
    search = Search([cast("Any", Marked())], lambda: 0.0)
    for field, kind in TYPES[name].items():
        begin = len(marks.paths)
        raw = json.dumps(marks.of(kind, field)).encode()
        is_read = field in dialect.text_fields or field not in SETTINGS
        redactor = Redactor(search, Rules(), Vault(b"k"))
        gone = redactor.redact({field: raw}, [field] if is_read else [], dialect.opaque_keys).get(field, raw)
        left = {int(each) for each in MARK.findall(gone.decode())}
        yield from ((marks.paths[number], number not in left) for number in range(begin, len(marks.paths)))


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize(("name", "least"), [("chat", 60), ("responses", 400), ("messages", 900), ("gemini", 150), ("embeddings", 3)])  # fmt: skip
def test_each_text_of_a_request_is_looked_at_or_is_none_for_a_model(name: DialectName, least: int):
    seen = list(seen_by(name))
    assert len(seen) > least
    ends = tuple(each for each in NOT_FOR_A_MODEL[name] if "." in each or "[" in each)
    missed = {
        path
        for path, is_seen in seen
        if not is_seen and not path.endswith(ends) and re.split(r"[.\[]", path)[0] not in NOT_FOR_A_MODEL[name]
    }
    assert not missed
