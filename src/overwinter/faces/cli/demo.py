"""`overwinter demo`: a model writes a program, ten thousand invoices sleep, a hundred wake, a server is killed with -9, and a count.

Everything is real but the model, a recording that says so unless `--live` names one: the server, the billing service and its ledger are processes of their own,
the kill is SIGKILL, and each figure was measured in this run.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import typer

from overwinter.errors import OverwinterError, ServerUnreachable, UsageError
from overwinter.faces.cli.demo_story import declare, revoked, written
from overwinter.faces.cli.door import is_served, served_socket
from overwinter.faces.cli.render import print_json
from overwinter.faces.client import Client

__all__ = ["run_demo"]

WAKING = 100
SPREAD_S = 8.0
"""The hundred fall due within this time."""
KILLS_AFTER_S = (2.5, 2.5)
LIMIT_CENTS = 380_000
OWNER = "owner@example.com"
START_S_MAX = 30.0
FINISH_S_MAX = 60.0
STARTERS = 4


def run_demo(*, is_small: bool, is_kept: bool, is_json: bool, live: str | None = None) -> int:
    """Run the demo; return 0 if every invoice was charged exactly once, or asked about."""
    if live and not os.environ.get("ANTHROPIC_API_KEY"):
        raise UsageError("--live asks a model of Anthropic: set ANTHROPIC_API_KEY")
    place = Path(tempfile.mkdtemp(prefix="overwinter-demo-"))
    with ExitStack() as stack:
        if not is_kept:
            stack.callback(rmtree, place, ignore_errors=True)
        demo = _Demo(place=place, count=500 if is_small else 10_000, is_quiet=is_json, live=live)
        stack.callback(demo.stop)
        try:
            figures = demo.play()
        except KeyboardInterrupt:
            typer.echo("stopped; everything it started is stopped too", err=True)
            return 130
    if is_kept:
        typer.echo(f"kept: {place}", err=True)
    if is_json:
        print_json(figures)
    is_right = not (figures["double_charges"] or figures["lost"] or figures["effects_after_revoke"])
    is_right = is_right and figures["audit_verified"]
    if not is_right:
        typer.echo("what was promised and what was counted disagree: this is a bug, please report it", err=True)
    return 0 if is_right else 1


@dataclass(slots=True)
class _Demo:
    place: Path
    count: int
    is_quiet: bool
    live: str | None = None
    began: float = field(default_factory=time.monotonic)
    processes: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    outages: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    unknown: set[str] = field(default_factory=set[str])
    asked: int = 0

    def play(self) -> dict[str, Any]:
        """The story, in order."""
        project = self._project()
        self._say(f"{self.count:,} invoices in a database, a billing service that fails a quarter of the time")
        server = self._serve(project)
        told = written(project, self.count, self._say, self.live)
        asleep = self._start_runs(project, range(WAKING + 1, self.count + 1))
        self._say(f"{len(asleep):,} runs of charge_overdue.py are asleep until their invoice is due, weeks from now")
        rss_mb, disk_mb = _rss_mb(server.pid), _disk_mb(project / ".overwinter")
        self._say(f"the server holds {rss_mb:.0f} MB for them, the disk {disk_mb:.0f} MB")
        self._make_due(project)
        waking = self._start_runs(project, range(1, WAKING + 1))
        self._say(f"{len(waking)} more fall due in the next {SPREAD_S:g} s")
        server = self._kill_and_restart(project, server)
        self._finish(project, waking)
        figures = told | self._count(project, waking)
        figures |= revoked(project, self._movements, self._say)
        figures |= {"rss_mb": round(rss_mb, 1), "disk_mb": round(disk_mb, 1)}
        figures["seconds"] = round(time.monotonic() - self.began, 1)
        self._report(figures)
        return figures

    # --- Setting the stage -------------------------------------------------------------------------------------------

    def _project(self) -> Path:
        project = self.place / "invoices"
        copytree(
            _examples(),
            project,
            ignore=lambda _, names: {each for each in names if each.startswith((".", "__"))} - {"__init__.py"},
        )
        make = [sys.executable, "-m", "shop.invoices", "invoices.db", str(self.count)]
        subprocess.run(make, cwd=project, check=True, env=self._environment(project, ""))  # noqa: S603 - our own example
        service = self._spawn([sys.executable, "billing_service.py", "ledger.db"], project, "")
        (project / "billing.url").write_text(self._address(service), encoding="ascii")
        erp, scripted = (
            self._address(self._spawn([sys.executable, *words], project, ""))
            for words in (("erp_service.py", "erp.db"), ("scripted_model.py",))
        )
        declare(project, erp=erp, scripted=scripted, live=self.live)
        return project

    @staticmethod
    def _address(service: subprocess.Popen[str]) -> str:
        assert service.stdout is not None
        line = service.stdout.readline()
        if not line:
            raise OverwinterError(f"{service.args} did not start")
        return json.loads(line)["url"]

    def _serve(self, project: Path) -> subprocess.Popen[str]:
        url = (project / "billing.url").read_text(encoding="ascii")
        server = self._spawn([sys.executable, "-m", "overwinter", "serve"], project, url)
        deadline = time.monotonic() + START_S_MAX
        while not is_served(project / ".overwinter"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise OverwinterError(f"the server did not start, exit code {server.poll()}")
            time.sleep(0.02)
        return server

    def _spawn(self, words: list[str], project: Path, url: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            words, cwd=project, stdout=subprocess.PIPE, text=True, env=self._environment(project, url)
        )
        self.processes.append(process)
        return process

    @staticmethod
    def _environment(project: Path, url: str) -> dict[str, str]:
        return {**os.environ, "INVOICES_DB": str(project / "invoices.db"), "BILLING_URL": url}

    def stop(self) -> None:
        """End every process that the demo started."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    # --- The story ---------------------------------------------------------------------------------------------------

    def _start_runs(self, project: Path, invoices: Sequence[int]) -> list[str]:
        """Start a run for each invoice and wait until all of them sleep."""
        source = (project / "charge_overdue.py").read_text(encoding="utf-8")
        socket = served_socket(project / ".overwinter")
        clients = threading.local()

        def start(invoice: int) -> str:
            client = clients.__dict__.setdefault("client", Client(socket))
            inputs = {"invoice_id": invoice, "limit_cents": LIMIT_CENTS, "owner": OWNER, "pause_s": 1.0}
            return client.post("runs", source=source, name=f"invoice-{invoice}", inputs=inputs)["id"]

        with ThreadPoolExecutor(STARTERS) as threads:
            run_ids = list(threads.map(start, invoices))
        client = Client(socket)
        while client.get("health")["queued"] or client.get("health")["calls_in_flight"]:
            time.sleep(0.05)
        return run_ids

    def _make_due(self, project: Path) -> None:
        """Move the first hundred invoices' dates to the next seconds: time itself is not faked."""
        script = (
            "import sys, time, apsw; path, step, last = sys.argv[1:]; db = apsw.Connection(path); db.set_busy_timeout(10000); "
            "db.execute('update invoice set due_at = ? + id * ? where id <= ?', (time.time() + 2, float(step), int(last)))"
        )
        words = [sys.executable, "-c", script, "invoices.db", str(SPREAD_S / WAKING), str(WAKING)]
        subprocess.run(words, cwd=project, check=True)  # noqa: S603 - our own line

    def _kill_and_restart(self, project: Path, server: subprocess.Popen[str]) -> subprocess.Popen[str]:
        time.sleep(2.0)
        for pause_s in KILLS_AFTER_S:
            self._answer_for(project, pause_s)
            dead_at = time.time()
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            self._say(f"kill -9 {server.pid}: the server is gone in the middle of its work")
            server = self._serve(project)
            self.outages.append((dead_at, time.time()))
            self._say(f"restarted as {server.pid} after {time.time() - dead_at:.2f} s; it goes on where it was")
        return server

    def _answer_for(self, project: Path, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(ServerUnreachable):
                self._answer(project)
            time.sleep(0.1)

    def _finish(self, project: Path, waking: Sequence[str]) -> None:
        client = Client(served_socket(project / ".overwinter"))
        deadline = time.monotonic() + FINISH_S_MAX
        open_runs = set(waking)
        while open_runs and time.monotonic() < deadline:
            self._answer(project)
            open_runs = {run for run in open_runs if client.get("runs", run)["status"] == "live"}
            time.sleep(0.1)

    def _answer(self, project: Path) -> None:
        """Answer as a person would: yes to charges, and for an unknown outcome look into the ledger first."""
        client = Client(served_socket(project / ".overwinter"))
        for question in client.get("questions")["questions"]:
            self.asked += 1
            if question["state"] != "unknown":
                client.post("questions", question["question"], "answer", answer="yes", by=OWNER)
                continue
            self.unknown.add(question["question"])
            moved = self._movements(project, question["arguments"]["invoice_id"])
            found = json.dumps({key: moved[0][key] for key in ("movement", "amount_cents")}) if moved else ""
            answer = f"done {found}" if moved else "repeat"
            self._say(
                f"{OWNER} is asked about {question['run_name']}: the ledger says {'done' if moved else 'nothing moved: repeat'}"
            )
            client.post("questions", question["question"], "answer", answer=answer, by=OWNER)

    @staticmethod
    def _movements(project: Path, invoice: int | None = None) -> list[dict[str, int]]:
        url = (project / "billing.url").read_text(encoding="ascii")
        query = "" if invoice is None else f"?invoice_id={invoice}"
        with urllib.request.urlopen(f"{url}/movements{query}", timeout=10) as answer:  # noqa: S310 - loopback, our own
            return json.load(answer)["movements"]

    # --- The count ---------------------------------------------------------------------------------------------------

    def _count(self, project: Path, waking: Sequence[str]) -> dict[str, Any]:
        client = Client(served_socket(project / ".overwinter"))
        charged: dict[int, int] = {}
        for movement in self._movements(project):
            charged[movement["invoice_id"]] = charged.get(movement["invoice_id"], 0) + 1
        wakes: list[float] = []
        lost = 0
        for invoice, run in enumerate(waking, 1):
            ended = client.get("runs", run)
            state: str = ended["result"]["state"] if ended["status"] == "finished" else ended["status"]
            lost += {"paid": 1, "declined": 0}.get(state, -1) != charged.get(invoice, 0)
            wakes += self._wakes(client.get("runs", run, "events")["events"])
        counts = client.get("runs", limit=1)["counts"]
        return {
            "asleep": counts.get("live", 0),
            "woken": len(waking),
            "kills": len(self.outages),
            "charged": len(charged),
            "double_charges": sum(times - 1 for times in charged.values()),
            "unknown": len(self.unknown),
            "lost": lost,
            "asked": self.asked,
            "wakes_measured": len(wakes),
            "wake_p50_ms": round(_percentile(wakes, 0.5), 2),
            "wake_p99_ms": round(_percentile(wakes, 0.99), 2),
            "recovery_s": round(max(end - begin for begin, end in self.outages), 2),
        }

    def _wakes(self, events: Sequence[Mapping[str, Any]]) -> Iterator[float]:
        """Yield, for each sleep that ended while a server was up, the milliseconds from its instant to the committed turn."""
        due = {event["body"]["index"]: event["body"]["due_us"] / 1e6 for event in events if "due_us" in event["body"]}
        for event in events:
            for given in event["body"].get("given", ()) if event["kind"] == "turn" else ():
                if given[1] == "timer" and not self._is_dark(due[given[0]]):
                    yield 1e3 * (_seconds(event["at"]) - due[given[0]])

    def _is_dark(self, instant: float) -> bool:
        return any(begin - 0.2 <= instant <= end + 0.5 for begin, end in self.outages)

    def _say(self, text: str) -> None:
        if not self.is_quiet:
            typer.echo(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def _report(self, figures: Mapping[str, Any]) -> None:
        for line in (
            f"{figures['woken']} runs woke, p50 {figures['wake_p50_ms']} ms, p99 {figures['wake_p99_ms']} ms after their instant",
            f"(over the {figures['wakes_measured']} sleeps that ended while a server was up)",
            f"{figures['kills']} kills, {figures['charged']} invoices charged, {figures['double_charges']} charged twice, {figures['lost']} lost",
            f"{figures['unknown']} outcomes were unknown and asked about, {figures['asked']} questions in all",
            f"{figures['asleep']:,} runs slept on, at no cost, until their agent was revoked: {figures['revoke_ms']} ms",
        ):
            self._say(line)


def _examples() -> Path:
    """Return where the example lies: in the installed package, or in the source checkout."""
    package = Path(__file__).parents[2]
    for place in (package / "examples" / "invoices", package.parents[1] / "examples" / "invoices"):
        if place.is_dir():
            return place
    raise OverwinterError("the example of the demo is not installed with this package")


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1_024


def _disk_mb(place: Path) -> float:
    return sum(each.stat().st_blocks for each in place.rglob("*") if each.is_file()) / 2_048


def _seconds(at: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - one use

    return datetime.fromisoformat(at).timestamp()


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
