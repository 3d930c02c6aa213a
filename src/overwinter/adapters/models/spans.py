"""Model calls as OpenTelemetry spans: the one place that knows the names of its conventions, revision `SEMCONV`.

Conventions for GenAI are in development and change their names; a span says its revision in its schema's address. Of what is
said in a call a span has nothing, only counts, names and how it ended. Which provider of spans takes them, and where it sends
them, is whoever starts the process to say: `opentelemetry-instrument overwinter serve`, or the program that embeds a home.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from overwinter.errors import ConfigInvalid
from overwinter.gateway.budget import Line

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["SEMCONV", "attributes", "open_spans", "spans_to"]

SEMCONV = "1.37.0"
"""open-telemetry/semantic-conventions, docs/gen-ai/gen-ai-spans.md."""
OPERATIONS: Mapping[str, str] = {"embeddings": "embeddings", "gemini": "generate_content"}
"""`gen_ai.operation.name` by dialect; the others are `chat`."""
WELL = frozenset({"answered", "cached", "repeated"})
NS_PER_US = 1_000


def open_spans() -> Callable[[Line], None]:
    """Return what makes a span of each call that ended, in the process' provider of spans.

    Raises:
        ConfigInvalid: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415 - for whoever asks for spans
    except ImportError as error:
        raise ConfigInvalid("[gateway] spans needs OpenTelemetry: pip install 'overwinter[otel]'") from error
    schema = f"https://opentelemetry.io/schemas/{SEMCONV}"
    return spans_to(trace.get_tracer("overwinter.models", schema_url=schema))


def spans_to(tracer: "Tracer") -> Callable[[Line], None]:
    """Return what makes a span of each call, by one tracer."""
    from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415 - there, for there is a tracer

    def tell(line: Line) -> None:
        told = attributes(line)
        name = f"{told['gen_ai.operation.name']} {line.model}"
        span = tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=told, start_time=line.began_us * NS_PER_US
        )  # fmt: skip
        if "error.type" in told:
            span.set_status(Status(StatusCode.ERROR, line.status))
        span.end(end_time=(line.ended_us or line.began_us) * NS_PER_US)

    return tell


def attributes(line: Line) -> dict[str, str | int]:
    """Return what a span says of a call.

    `gen_ai.usage.input_tokens` includes what came from caches, which the field of this name in Anthropic's answers does not.
    """
    told: dict[str, str | int | None] = {
        "gen_ai.operation.name": OPERATIONS.get(line.dialect, "chat"),
        "gen_ai.provider.name": line.upstream or "overwinter",
        "gen_ai.request.model": line.model,
        "gen_ai.response.model": line.priced_model or None,
        "gen_ai.response.id": line.answer_id or None,
        "error.type": None if line.status in WELL else line.status,
        "overwinter.agent": line.agent,
        "overwinter.run": line.run_id or None,
        "overwinter.call": line.call,
        "overwinter.status": line.status,
        "overwinter.cost_nusd": line.cost_nusd,
        "overwinter.saved_nusd": line.saved_nusd or None,
    }
    if line.usage is not None and line.status not in ("cached", "repeated"):
        told |= {
            "gen_ai.usage.input_tokens": line.usage.input,
            "gen_ai.usage.output_tokens": line.usage.output,
            "overwinter.usage.source": line.usage.source,
        }
    return {name: value for name, value in told.items() if value is not None}
