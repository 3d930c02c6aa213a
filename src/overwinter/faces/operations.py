"""What each route of the API takes and answers, in the notation that `openapi` makes schemas of. A test holds it to the routes.

A shape is `name kind, name kind`: `?` after a name, it may be absent; `?` after a kind, it may be null; `[kind]`, a list.
A kind is a word of `openapi.KINDS` or a shape of `SHAPES`.
"""

from collections.abc import Mapping

from overwinter.app.repeats import Again
from overwinter.frozen import frozen

__all__ = ["OPERATIONS", "SHAPES", "Operation"]


@frozen
class Operation:
    """One method of one path."""

    summary: str
    answer: str = "object"
    """A shape, a kind, or a media type where it is no JSON."""
    body: str = ""
    query: str = ""
    status: int = 200
    has_key: bool = False
    """Whether it takes `Idempotency-Key`, or `dedup` in its body, and keeps it with what it changes."""
    again: Again | None = None
    """Its answer is kept under a key for a day; and what a repetition does if nobody lived to write the answer down."""


SHAPES: Mapping[str, str] = {
    "Run": (
        "id text, name text, agent text, status text, turns whole, events whole, calls whole, failures whole, created instant, "
        "changed instant, due instant?, is_ready flag, is_revoked flag, snapshot_bytes whole, program text?, parent text?, "
        "is_kept flag, result any, reason? text, by? text, open_calls? [Call], warnings? [Finding]"
    ),
    "Call": (
        "index whole, function text, arguments object, effect text, line whole?, state text, attempt whole, since instant?, "
        "not_before instant?, due instant?, approval? Approval, question? text, run? text, run_name? text, agent? text, "
        "person? text, text? any, options? any"
    ),
    "Approval": (
        "digest text, approver text, needs [Need], left text, reason text, policies [text], expires instant?, is_used flag, votes [Vote]"
    ),
    "Need": "people [text], count whole",
    "Vote": "person text, reason text, at instant?",
    "Event": "position whole, at instant, kind text, body object",
    "Finding": (
        "line whole, column whole, rule text, message text, is_certain flag, at text, got text, did_you_mean [text], stub text"
    ),
    "Reach": "gated [Gated], is_open flag",
    "Gated": "function text, decision text, approver text?, policies [text], reason text?",
    "Function": "name text, required [text], result text, summary text, effect text, line text",
    "Service": "service text, functions whole, imported instant?, faults [Fault]",
    "Fault": "place text, what text",
    "Pin": "name text, origin text, state text, accepted instant?",
    "Agent": (
        "name text, id text, owner text, purpose text, parent text?, models [text], expires instant?, epoch whole, state text, "
        "changed instant?, by text, reason text, budgets? [Spent]"
    ),
    "Spent": (
        "of text, window text, limit_usd number?, spent_usd number, held_usd number, calls whole, calls_max whole?, until instant?"
    ),
    "Revocation": (
        "agents [Agent], runs whole, turns whole, calls whole, model_calls whole, on_the_wire [Sent], fenced_ms number, "
        "stopped_ms number, token? object, grant? Grant"
    ),
    "Sent": "key text, function text, effect text",
    "Grant": "id text, agent text, pattern text, how text, approver text, expires instant?, by text, made instant?",
    "Token": (
        "id text, person text, name text, scopes [text], agents text, state text, created instant?, expires instant?, used instant?, "
        "token? text"
    ),
    "Entry": "at instant?",
    "ModelCall": "call text, began instant?, agent text, model text, state text, cost_usd number?",
    "Schedule": "id text, name text, agent text, next instant?, by text",
    "Webhook": "name text, host text?, events [text], arguments flag, waiting whole, set_aside whole, why text?",
    "PolicyFinding": "place any, rule any, message text, is_error flag",
}
WHO = "by? text, reason? text"
KEYED = "dedup? text"
PAGE = "limit? whole, after? text"
START = "source? text, goal? text, inputs? object, agent? text, model? text, steps? whole, usd? number, seconds? number, name? text"

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/runs": Operation(
        summary="Start a run: a program, or a goal", body=f"{START}, after? text, keep? flag, dedup? text", answer="id text", status=201, has_key=True,
    ),
    "GET /v1/runs": Operation(
        summary="List runs, newest first", query=f"status? text, agent? text, name? text, {PAGE}, before? text",
        answer="runs [Run], counts object, following text?",
    ),
    "GET /v1/runs/{run}": Operation(summary="Show a run and why it waits", answer="Run"),
    "GET /v1/runs/{run}/result": Operation(summary="Wait for a run's end", query="wait_s? number", answer="Run"),
    "GET /v1/runs/{run}/source": Operation(summary="Return the program", answer="text/x-python"),
    "GET /v1/runs/{run}/events": Operation(
        summary="Return the journal, or follow it as server-sent events", query="since? whole, after? whole, limit? whole, follow? text",
        answer="events [Event]",
    ),
    "GET /v1/runs/{run}/hook": Operation(summary="Return the path at which others may send the run messages", query="signed_by? text, secret? text", answer="run text, path text"),
    "POST /v1/runs/{run}/messages": Operation(
        summary="Send a run a message", body="message any, by? text, dedup? text", answer="is_new flag", status=202, has_key=True
    ),
    "POST /v1/runs/{run}/cancel": Operation(summary="Cancel a run", body=f"{WHO}, dedup? text", answer="is_cancelled flag", has_key=True),
    "POST /v1/runs/{run}/release": Operation(
        summary="Let a quarantined run go on", body="by? text, dedup? text", answer="is_released flag", has_key=True
    ),
    "POST /v1/check": Operation(
        summary="Check a program; nothing runs", body="source text, agent? text, inputs? object, after? text",
        answer="is_accepted flag, findings [Finding], reach Reach, report? object",
    ),
    "GET /v1/questions": Operation(
        summary="List open questions, oldest first", query=f"run? text, {PAGE}", answer="questions [Call], following text?"
    ),
    "GET /v1/questions/{question}": Operation(summary="Show a question", answer="Call"),
    "POST /v1/questions/{question}/answer": Operation(
        summary="Answer a question", body="answer text, by? text, dedup? text", answer="is_answered flag", has_key=True
    ),
    "POST /v1/questions/{question}/approve": Operation(
        summary="Let a call through", body=f"{WHO}, digest? text, dedup? text", answer="became text", has_key=True
    ),
    "POST /v1/questions/{question}/reject": Operation(
        summary="Refuse a call", body=f"{WHO}, digest? text, dedup? text", answer="became text", has_key=True
    ),
    "GET /v1/tools": Operation(
        summary="List services, or functions below a prefix", query="prefix? text, agent? text, limit? whole",
        answer="services? [Service], functions? [Function]",
    ),
    "GET /v1/tools/search": Operation(
        summary="Search functions, best first", query="query? text, service? text, agent? text, limit? whole", answer="functions [Function]"
    ),
    "GET /v1/tools/describe": Operation(summary="Return stubs of functions", query="name? [text], agent? text", answer="text text"),
    "GET /v1/tools/brief": Operation(summary="Return what a model is told first", query="agent? text", answer="text text"),
    "GET /v1/tools/pins": Operation(summary="List definitions that changed", query="all? text", answer="pins [Pin]"),
    "POST /v1/tools/refresh": Operation(
        summary="Import services again", body=f"service? text, by? text, {KEYED}", again="again", answer="imported [text], failed object, different [Pin]"
    ),
    "POST /v1/tools/accept": Operation(
        summary="Accept changed definitions", body=f"names [text], by? text, {KEYED}", again="again", answer="accepted [text], changed any"
    ),
    "GET /v1/values/{handle}": Operation(
        summary="Read a value by its handle", query="path? text, characters? whole, whole? text", answer="value any"
    ),
    "GET /v1/agents": Operation(summary="List agents", query=PAGE, answer="agents [Agent], following text?"),
    "GET /v1/agents/{agent}": Operation(summary="Show an agent", answer="Agent"),
    "GET /v1/agents/{agent}/document": Operation(summary="Return an agent's identity document, signed", answer="id text, jwt text"),
    "POST /v1/revoke": Operation(
        summary="Revoke an agent, a run, a token or a grant", body=f"subject text, {WHO}, {KEYED}", again="again", answer="Revocation"
    ),
    "POST /v1/restore": Operation(summary="Restore an agent", body=f"agent text, {WHO}, has_runs? flag, {KEYED}", again="once", answer="Agent"),
    "GET /v1/grants": Operation(summary="List grants", query="agent? text", answer="grants [Grant]"),
    "POST /v1/grants": Operation(
        summary="Grant functions to an agent", answer="Grant", status=201,
        body=f"agent text, pattern text, reads? flag, asks? flag, approver? text, expires_us? whole, by? text, {KEYED}", again="once",
    ),
    "GET /v1/policy/check": Operation(summary="Check the policies", answer="findings [PolicyFinding], is_well flag"),
    "POST /v1/policy/explain": Operation(
        summary="Say how a call would be decided", body="function text, agent? text, arguments? object, by? text",
        answer="decision text, policies [text], sides [object], is_outdated flag",
    ),
    "GET /v1/policy/explain/{handle}": Operation(
        summary="Say how a call was decided, and would be now", answer="function text, agent text, arguments object, was [Event], now object"
    ),
    "GET /v1/policy/suggest": Operation(
        summary="Return the least policy that allows what was done", query="agent? text, since_us? whole, whole? text", answer="text text"
    ),
    "POST /v1/policy/simulate": Operation(
        summary="Decide past calls by other policies", body="policies? text, agent? text, since_us? whole, by? text", answer="changes [object]"
    ),
    "GET /v1/policy/shadow": Operation(
        summary="Return what rules on trial would change",
        answer="rules [text], since instant?, decided whole, failed whole, forgotten whole, faults [any], differences [object]",
    ),
    "POST /v1/policy/reload": Operation(
        summary="Read the policies again", body=f"by? text, {KEYED}", again="again", answer="version any, added [text], removed [text], is_outdated flag"
    ),
    "GET /v1/tokens": Operation(summary="List tokens", answer="tokens [Token]"),
    "POST /v1/tokens": Operation(
        summary="Make a token", body=f"person text, scopes? [text], agents? text, expires_s? number, name? text, by? text, {KEYED}", again="once",
        answer="Token", status=201,
    ),
    "GET /.well-known/jwks.json": Operation(summary="Return the public keys of identities", answer="application/jwk-set+json"),
    "POST /v1/issuer/rotate": Operation(summary="Sign identities with a new key", body=f"{WHO}, {KEYED}", again="once", answer="keys [object], counts_until instant?"),
    "GET /v1/audit": Operation(
        summary="List entries of the audit log",
        query=(
            "agent? text, run? text, function? text, person? text, kind? text, since_ms? whole, until_ms? whole, order? text, limit? whole, "
            "begin? whole"
        ),
        answer="entries [Entry], following whole?",
    ),
    "GET /v1/audit/{seq}": Operation(summary="Show an entry with its bodies", answer="at instant?, bodies object"),
    "GET /v1/audit/{seq}/proof": Operation(summary="Return a proof of an entry", answer="text/plain"),
    "GET /v1/audit/key": Operation(
        summary="Return the log's key and head", answer="key text, entries whole, head any, witness text?, witness_fault text?"
    ),
    "POST /v1/audit/key/rotate": Operation(
        summary="Sign the log with a new key", body=f"{WHO}, {KEYED}", again="once", answer="entry whole, key text, witness_fault text?"
    ),
    "POST /v1/audit/witness": Operation(
        summary="Have the log witnessed", body=f"url text, key text, by? text, {KEYED}", again="again", answer="entries whole, name text?, at instant?"
    ),
    "GET /v1/gateway/models": Operation(summary="List models", query="agent? text", answer="models [object]"),
    "POST /v1/gateway/test": Operation(
        summary="Ask a model for a word", body=f"model text, agent? text, by? text, {KEYED}", again="once", answer="is_answered flag, message text"
    ),
    "GET /v1/gateway/usage": Operation(
        summary="Sum up model calls", query="by? text, days? number", answer="days number, by [text], usage [object]"
    ),
    "GET /v1/gateway/budgets": Operation(summary="List budgets", answer="budgets [Spent]"),
    "GET /v1/gateway/calls": Operation(
        summary="List model calls", answer="calls [ModelCall], before whole?",
        query="agent? text, run? text, model? text, key? text, state? text, status? text, limit? whole, before? whole",
    ),
    "GET /v1/gateway/calls/{call}": Operation(summary="Show a model call", answer="ModelCall"),
    "POST /v1/gateway/calls/{call}/cost": Operation(
        summary="Correct what a model call cost", body=f"usd number, by? text, {KEYED}", again="once", answer="ModelCall"
    ),
    "GET /metrics": Operation(summary="Figures for Prometheus", answer="text/plain"),
    "GET /v1/webhooks": Operation(summary="List webhooks", answer="webhooks [Webhook]"),
    "POST /v1/webhooks/{webhook}/retry": Operation(summary="Send what was set aside again", body=f"by? text, {KEYED}", again="again", answer="retried whole"),
    "POST /v1/webhooks/{webhook}/test": Operation(
        summary="Send a message that tells nothing", body=f"by? text, {KEYED}", again="once", answer="is_taken flag, why text?"
    ),
    "GET /v1/schedules": Operation(summary="List schedules", query="agent? text", answer="schedules [Schedule]"),
    "POST /v1/schedules": Operation(
        summary="Add a schedule", answer="Schedule", status=201,
        body=f"{START}, cron? text, at? text, zone? text, misfire? text, overlap? text, by? text, {KEYED}", again="once",
    ),
    "GET /v1/schedules/{schedule}": Operation(summary="Show a schedule and what it starts", answer="Schedule"),
    "POST /v1/schedules/{schedule}/{verb}": Operation(
        summary="Pause, resume, remove or run a schedule now (`run`: 201 with the run's id)", body=f"{WHO}, {KEYED}", again="once", answer="id text"
    ),
    "GET /v1/health": Operation(summary="Say what the server is and does", answer="engine text, runs object, epoch whole, is_outdated flag"),
    "POST /v1/collect": Operation(summary="Delete what is old", body=f"older_than_s? number, by? text, {KEYED}", again="again"),
    "GET /openapi.json": Operation(summary="This document"),
    "GET /healthz": Operation(summary="Say that the server is up", answer="is_up flag"),
    "GET /readyz": Operation(
        summary="Say whether it may decide and write down, or 503", answer="is_ready flag, faults [text]"
    ),
}  # fmt: skip
