"""What the gateway costs: processor time a call, memory, the time that it adds; LiteLLM's proxy beside it in the same run.

`overwinter serve --port` runs as a user starts it, in a process of its own, before a provider that gives every call the same
answer (`bench.provider`). Clients come over TCP with a token. Processor time is that of the server's whole process tree, from
/proc, user and system, so it hardly depends on who else runs; the provider and the clients are not in it. Both servers are
measured in short rounds that take turns, and the median of the rounds counts.

- `cpu_ms`: a call of 1.2 KB at 16 connections, no budget, no cache, the rules of a new home; `cpu_1_ms` at one connection.
- `cpu_ms_all_policies`: 20 KB that were never sent before, under three budgets, a rule of its own with a condition, the cache
  (a key, a miss, an answer that is kept), and every detector of redaction, with three values to be found in each request.
- `stream_us_per_event`: what a stream costs more than a whole answer, by its events, from a provider that writes them one after
  another; `stream_paced_*` from one that waits 2 ms before each, so that each must be passed on by itself. `stream_parts`: in how
  many chunks a client gets them.
- `added_p50_ms`: median at one connection through the gateway, less the median of the provider asked directly.
- `floor_*`: uvicorn and aiohttp alone, passing bytes on (`bench.passthrough`): no token, rule, budget, ledger, price or tap.
- `rss_mb`: the server's own process after all calls; `rss_tree_mb` with the three interpreters that `serve` keeps for programs.
- `litellm_*`: the same requests to its proxy: no database, no budgets (which need one), compiled, OpenTelemetry installed (else
  it retries a failing import at each request); `_all_policies` with its cache in memory and its content filter, 14 patterns of
  the 82 that it has, which find what our detectors do. Null if `make .venv/.rivals` has not installed it.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.callers import Called, called, request
from bench.confidential import samples
from bench.provider import STREAM
from bench.redact import conversations
from bench.report import percentile, rss_kb

RIVAL = Path(sys.prefix) / "rivals" / "litellm" / "bin" / "litellm"
CONNECTIONS = 16
ROUNDS = 5
START_S_MAX = 300.0
"""LiteLLM took 9 s until it answered, 7 of them on the processor; the rest is room for a machine on which others work too."""
TICKS = os.sysconf("SC_CLK_TCK")
MODEL = "gpt-4o-mini"
SETTINGS = """
[providers.mock]
url = "UPSTREAM"
dialects = ["chat"]
auth = "env:BENCH_KEY"
prices = "openai"
region = "eu"

[models."gpt-*"]
provider = "mock"

[agents.default]
owner = "owner"
team = "ops"
models = ["*"]
"""
POLICIES = """
[budgets.all]
of = "tenant"
window = "day"
usd = 1000.0

[budgets.team]
of = "team:*"
window = "month"
usd = 1000.0

[budgets.agent]
of = "agent:*"
window = "hour"
usd = 1000.0

[gateway]
cache = true
redact = { secret = "mask" }
"""
RULE = """
@id("confidential-stays-in-europe")
forbid (principal, action == Action::"think", resource)
when { resource.data == "confidential" && resource.region != "eu" };
"""
RIVAL_SETTINGS: dict[str, Any] = {
    "model_list": [{"model_name": "gpt-*", "litellm_params": {"model": "openai/gpt-*", "api_key": "bench"}}],
    "general_settings": {"master_key": "sk-bench"},
    "litellm_settings": {"telemetry": False, "callbacks": []},
}
PATTERNS = (
    "us_ssn", "email", "us_phone", "visa", "mastercard", "amex", "discover", "credit_card", "aws_access_key",
    "aws_secret_key", "github_token", "slack_token", "generic_api_key", "iban",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Server:
    """A gateway under test."""

    pid: int
    port: int
    headers: str
    """That let a client in."""
    cpu_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """By kind of call, of each round."""
    parts: dict[str, float] = field(default_factory=dict[str, float])

    def measure(self, kind: str, bodies: Sequence[bytes], count: int, connections: int) -> Called:
        """Make calls, and note what each cost."""
        requests = [request(self.port, self.headers, each) for each in bodies]
        before = cpu_s(self.pid)
        ended = uvloop.run(called(self.port, requests, count, connections))
        self.cpu_ms.setdefault(kind, []).append(1e3 * (cpu_s(self.pid) - before) / count)
        self.parts[kind] = ended.parts / count
        return ended

    def cost_ms(self, kind: str) -> float:
        """Return the median of the rounds."""
        return round(statistics.median(self.cpu_ms[kind]), 3)


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    share = 5 if is_small else 1
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        floor = stack.enter_context(passthrough(upstream))
        plain = stack.enter_context(ours(upstream, SETTINGS))
        full = stack.enter_context(ours(upstream, SETTINGS + POLICIES, RULE))
        rivals = [stack.enter_context(each) for each in rival(upstream)]
        idle_mb = own_mb(plain.pid)
        large = fresh(20)
        for number in range(ROUNDS):
            rounds(floor, 1_500 // share, is_rival=False)
            rounds(plain, 1_500 // share, is_rival=False)
            full.measure("large", [next(large) for _ in range(300 // share)], 300 // share, CONNECTIONS)
            for each in rivals[:1]:
                rounds(each, 150 // share, is_rival=True)
            for each in rivals[1:]:
                each.measure("large", [next(large) for _ in range(30)], 30, CONNECTIONS)
            if not number:  # the first warms everything up
                for each in (floor, plain, full, *rivals):
                    each.cpu_ms.clear()
        direct_ms, through_ms = added(upstream, plain, 400 // share)
        figures = told(floor, plain, full, direct_ms, through_ms)
        return figures | {"rss_mb": own_mb(plain.pid), "rss_all_policies_mb": own_mb(full.pid), "rss_tree_mb": rss_mb(plain.pid), "rss_idle_mb": idle_mb} | (
            compared(rivals, figures) if rivals else {"litellm_cpu_ms": None}
        )  # fmt: skip


def rounds(server: Server, count: int, *, is_rival: bool) -> None:
    """Make calls of each kind."""
    small, stream, paced = [chat(1.2)], [chat(1.2, stream=True)], [chat(1.2, model=f"{MODEL}-paced", stream=True)]
    server.measure("small", small, count, CONNECTIONS)
    server.measure("stream", stream, count // 3, CONNECTIONS)
    if not is_rival:
        server.measure("paced", paced, count // 5, CONNECTIONS)
        server.measure("single", small, count // 2, 1)
        server.measure("megabyte", [chat(1024)], count // 15, 4)


def told(floor: Server, plain: Server, full: Server, direct_ms: float, through_ms: float) -> dict[str, Any]:
    """Return the figures of ours, beside the floor's."""
    return {
        "cpu_ms": plain.cost_ms("small"),
        "cpu_1_ms": plain.cost_ms("single"),
        "cpu_ms_all_policies": full.cost_ms("large"),
        "stream_us_per_event": per_event_us(plain, "stream"),
        "stream_paced_us_per_event": per_event_us(plain, "paced"),
        "stream_cpu_ms": plain.cost_ms("stream"),
        "stream_events": len(STREAM),
        "stream_parts": round(plain.parts["stream"], 1),
        "stream_paced_parts": round(plain.parts["paced"], 1),
        "body_1mb_ms": plain.cost_ms("megabyte"),
        "added_p50_ms": round(through_ms - direct_ms, 3),
        "direct_p50_ms": round(direct_ms, 3),
        "floor_cpu_ms": floor.cost_ms("small"),
        "floor_cpu_1_ms": floor.cost_ms("single"),
        "floor_stream_cpu_ms": floor.cost_ms("stream"),
        "floor_stream_paced_us_per_event": per_event_us(floor, "paced"),
        "floor_body_1mb_ms": floor.cost_ms("megabyte"),
    }


def per_event_us(server: Server, kind: str) -> float:
    """Return what a stream costs more than a whole answer, for each of its events, microseconds."""
    return round(1e3 * (server.cost_ms(kind) - server.cost_ms("small")) / len(STREAM), 2)


def compared(rivals: Sequence[Server], figures: dict[str, Any]) -> dict[str, Any]:
    """Return LiteLLM's figures, and how many times ours they are."""
    best, filtering = rivals
    small, stream, large = best.cost_ms("small"), best.cost_ms("stream"), filtering.cost_ms("large")
    return {
        "litellm_cpu_ms": small,
        "litellm_stream_cpu_ms": stream,
        "litellm_cpu_ms_all_policies": large,
        "litellm_rss_mb": rss_mb(best.pid),
        "litellm_ratio": round(small / figures["cpu_ms"], 1),
        "litellm_stream_ratio": round(stream / figures["stream_cpu_ms"], 1),
        "litellm_ratio_all_policies": round(large / figures["cpu_ms_all_policies"], 1),
    }


def added(upstream: int, server: Server, count: int) -> tuple[float, float]:
    """Return the median of a call at one connection, of the provider asked directly and through the gateway, milliseconds."""
    direct: list[float] = []
    through: list[float] = []
    for _ in range(5):
        for port, headers, times in ((upstream, "", direct), (server.port, server.headers, through)):
            ended = uvloop.run(called(port, [request(port, headers, chat(1.2))], count, 1))
            times.extend(ended.times_s[10:])
    return 1e3 * percentile(direct, 0.5), 1e3 * percentile(through, 0.5)


def chat(kb: float, *, model: str = MODEL, stream: bool = False) -> bytes:
    """Return a request of about this size."""
    words = "The quick brown fox jumps over the lazy dog. " * (int(kb * 1024 - 120) // 45)
    told = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 500}
    return json.dumps(told | ({"stream": True} if stream else {})).encode()


def fresh(seed: int) -> Generator[bytes]:
    """Yield requests of 20 KB, no two alike."""
    made = list(samples(seed=seed, each=20))
    known = [json.loads(each) for each in conversations(100, made)]
    chance = random.Random(seed)
    while True:
        messages = chance.choice(known)
        other = [{"role": "user", "content": f"{chance.random()} {chance.choice(made).text}"}, *messages]
        yield json.dumps({"model": MODEL, "messages": other, "max_tokens": 500, "temperature": 0}).encode()


# --- Servers ---------------------------------------------------------------------------------------------------------


@contextmanager
def provider() -> Generator[int]:
    """Run the provider; yield its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.provider"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        try:
            yield int(ran.stdout.readline())
        finally:
            ran.stdin.close()
            ran.wait(10)


@contextmanager
def passthrough(upstream: int) -> Generator[Server]:
    """Run the floor."""
    command = [sys.executable, "-m", "bench.passthrough", str(upstream)]
    with stopped(subprocess.Popen(command, stdout=subprocess.PIPE)) as ran:
        assert ran.stdout is not None
        yield Server(pid=ran.pid, port=int(ran.stdout.readline()), headers="")


@contextmanager
def ours(upstream: int, settings: str, rule: str = "") -> Generator[Server]:
    """Run `overwinter serve` over a new home; yield it with a token for its gateway."""
    command = [sys.executable, "-m", "overwinter"]
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as place:
        (Path(place) / "overwinter.toml").write_text(settings.replace("UPSTREAM", f"http://127.0.0.1:{upstream}"))
        if rule:
            (Path(place) / "policies").mkdir()
            (Path(place) / "policies" / "bench.cedar").write_text(rule)
        home = ["--home", str(Path(place) / ".overwinter"), "--json"]
        made = [*command, "token", "create", "owner", "--scope", "models", "--agents", "default", *home]
        token = json.loads(subprocess.run(made, check=True, capture_output=True, cwd=place).stdout)["token"]
        environment = os.environ | {"BENCH_KEY": "sk-upstream"}
        with stopped(
            subprocess.Popen(
                [*command, "serve", "--port", "0", *home], stdout=subprocess.PIPE, env=environment, cwd=place
            )
        ) as ran:
            assert ran.stdout is not None
            url = str(json.loads(ran.stdout.readline())["url"])
            port = int(url.rpartition(":")[2])
            yield Server(pid=ran.pid, port=port, headers=f"authorization: Bearer {token}\r\n")


def rival(upstream: int) -> list[Any]:
    """Return two of LiteLLM's proxies, to be entered: as plain as it gets, and with its policies; none if it is not there."""
    if not RIVAL.exists():
        return []
    patterns = [{"pattern_type": "prebuilt", "pattern_name": each, "action": "MASK"} for each in PATTERNS]
    guard = {"guardrail": "litellm_content_filter", "mode": "pre_call", "default_on": True, "patterns": patterns}
    caching = {"cache": True, "cache_params": {"type": "local"}}
    settings = RIVAL_SETTINGS["litellm_settings"] | caching
    policies = {"guardrails": [{"guardrail_name": "filter", "litellm_params": guard}], "litellm_settings": settings}
    return [litellm(upstream, RIVAL_SETTINGS), litellm(upstream, RIVAL_SETTINGS | policies)]


@contextmanager
def litellm(upstream: int, settings: dict[str, Any]) -> Generator[Server]:
    """Run LiteLLM's proxy; yield it with its key."""
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
        environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
            "OPENAI_API_BASE": f"http://127.0.0.1:{upstream}/v1",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "NO_DOCS": "True",
        }
        command = [RIVAL, "--config", f"{place}/config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with (Path(place) / "log").open("wb") as log, stopped(
            subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=place)
        ) as ran:  # fmt: skip
            server = Server(pid=ran.pid, port=port, headers="authorization: Bearer sk-bench\r\n")
            answered(server, Path(place) / "log", ran)
            yield server


def answered(server: Server, log: Path, ran: "subprocess.Popen[bytes]") -> None:
    """Return once a server answers a call."""
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            # Its port may be open long before it answers: a call made too early is given up soon, and made again.
            uvloop.run(called(server.port, [request(server.port, server.headers, chat(1.2))], 1, 1, hung_s=5.0))
        except* (OSError, RuntimeError):
            if ran.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write(log.read_text(errors="replace")[-4_000:])
                raise
            time.sleep(0.5)
        else:
            return


@contextmanager
def stopped(ran: "subprocess.Popen[bytes]") -> "Generator[subprocess.Popen[bytes]]":
    """Stop a process when the block is left."""
    with ran:
        try:
            yield ran
        finally:
            ran.terminate()
            try:
                ran.wait(15)
            except subprocess.TimeoutExpired:
                ran.kill()


def free_port() -> int:
    """Return a port that nobody has."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# --- /proc -----------------------------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Return the processor time of a process tree, user and system, with that of its children that have ended."""
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
        total += sum(map(int, fields[11:15]))  # proc(5): utime, stime, cutime, cstime
    return total / TICKS


def own_mb(pid: int) -> float:
    """Return the resident memory of a process alone."""
    return round(rss_kb(pid) / 1024, 1)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process tree."""
    return round(sum(map(rss_kb, tree(pid))) / 1024, 1)
