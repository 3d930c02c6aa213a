"""What OpenTelemetry and the log are told of model calls: names, counts and costs, and nothing of what was said."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, NoOpTracer, SpanKind, StatusCode

from models_kit import MODEL, ask, chat, config_of, home_of
from overwinter.adapters.models.spans import SEMCONV, spans_to
from overwinter.faces.cli.logs import JsonLines
from provider import Mock

pytestmark = pytest.mark.anyio


@dataclass(slots=True)
class Told:
    """A span as a tracer was given it."""

    name: str
    kind: SpanKind
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int = 0
    statuses: list[Any] = field(default_factory=list[Any])


class Recorder(NoOpTracer):
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def start_span(self, name: str, *_: Any, **given: Any) -> Any:
        told = Told(name, given["kind"], dict(given["attributes"]), given["start_time"])
        self.told.append(told)

        class Span(NonRecordingSpan):
            def set_status(self, status: Any, description: str | None = None) -> None:
                told.statuses.append(status)

            def end(self, end_time: int | None = None) -> None:
                told.end_ns = end_time or 0

        return Span(INVALID_SPAN_CONTEXT)


async def test_a_call_is_a_span_by_the_names_of_the_conventions(project, provider: Mock):
    tracer = Recorder()
    async with home_of(project, config_of(provider.url)) as app:
        app.models._told = [spans_to(tracer)]
        _, line = await ask(app, chat("my secret question"))
        await ask(app, chat("my secret question"), agent="none")
    answered, denied = tracer.told
    assert (answered.name, answered.kind, answered.statuses) == ("chat cheap", SpanKind.CLIENT, [])
    assert answered.end_ns > answered.start_ns
    assert line.usage is not None
    assert {name: value for name, value in answered.attributes.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mock",
        "gen_ai.request.model": "cheap",
        "gen_ai.response.model": MODEL,
        "gen_ai.response.id": line.answer_id,
        "gen_ai.usage.input_tokens": line.usage.input,
        "gen_ai.usage.output_tokens": line.usage.output,
    }
    assert answered.attributes["overwinter.cost_nusd"] == line.cost_nusd
    assert denied.attributes["error.type"] == "denied"
    assert denied.statuses[0].status_code is StatusCode.ERROR
    assert "secret" not in repr(tracer.told)


async def test_the_sdk_takes_the_spans_with_their_times_and_the_revision_of_their_names(project, provider: Mock):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    kept, source = export.InMemorySpanExporter(), trace.TracerProvider()
    source.add_span_processor(pytest.importorskip("opentelemetry.sdk.trace.export").SimpleSpanProcessor(kept))
    schema = f"https://opentelemetry.io/schemas/{SEMCONV}"
    async with home_of(project, config_of(provider.url)) as app:
        app.models._told = [spans_to(source.get_tracer("overwinter.models", schema_url=schema))]
        _, line = await ask(app, chat())
    (span,) = kept.get_finished_spans()
    assert span.start_time == line.began_us * 1_000
    assert span.end_time == (line.ended_us or 0) * 1_000
    assert span.attributes["gen_ai.request.model"] == "cheap"
    assert span.instrumentation_scope.schema_url == schema


async def test_spans_are_made_if_the_configuration_says_so(project, provider: Mock):
    async with home_of(project, config_of(provider.url, spans=True)) as app:
        assert len(app.models._told) == 1
        assert (await ask(app, chat()))[0].status == 200  # nobody takes them, and nothing is the worse for it
    async with home_of(project, config_of(provider.url)) as app:
        assert list(app.models._told) == []


async def test_each_call_is_a_line_of_json_for_whoever_gathers_logs(project, provider: Mock, caplog):
    with caplog.at_level(logging.INFO, logger="overwinter.models"):
        async with home_of(project, config_of(provider.url)) as app:
            _, line = await ask(app, chat("my secret question"))
    (record,) = [each for each in caplog.records if each.name == "overwinter.models"]
    said = json.loads(JsonLines().format(record))
    assert said["at"].endswith("Z")
    assert (said["from"], said["said"]) == ("overwinter.models", "default cheap: answered")
    assert (said["call"], said["agent"], said["cost_nusd"]) == (line.call, "default", line.cost_nusd)
    assert "secret" not in json.dumps(said)
