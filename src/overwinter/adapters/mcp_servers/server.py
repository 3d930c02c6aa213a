"""The connection to one MCP server: started when it is needed, started again when it died, and what is said over it."""

import asyncio
import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from overwinter.adapters.egress import endpoint, judged, resolved_by_system, without_userinfo
from overwinter.adapters.masks import Mask, mask_of
from overwinter.adapters.mcp_servers.flow import Flow
from overwinter.adapters.mcp_servers.forms import answered, asked
from overwinter.adapters.mcp_servers.logins import Access, Untaken
from overwinter.adapters.mcp_servers.stdio import Child, Words, over_stdio
from overwinter.adapters.mcp_servers.web import UNTAKEN, Bearer, over_web
from overwinter.adapters.references import References
from overwinter.catalog import Asks, Later
from overwinter.config import Service
from overwinter.errors import ConfigInvalid

__all__ = ["BROKEN", "RESOURCES", "START_S_MAX", "Barred", "Lied", "Refused", "Server"]

NOT_TAKEN = (-32_600, -32_601, -32_602)
CLOSED = -32_000
"""JSON-RPC 2.0, 5.1: no valid request, no such method, wrong parameters; and the SDK's own for an end of the connection."""
START_S_MAX = 30.0
STOP_S_MAX = 5.0
LIVES_S_MAX = 2.0
"""How long a server that left a call without an answer may take to show that it lives."""
TOOLS_MAX = 10_000
PAGES_MAX = 100
ROUNDS_MAX = 10
"""Times that a server may ask in one attempt what it was answered before."""
POLL_S = 1.0
"""Pause between two looks at a task whose server names none."""
PROGRESS_S_MAX = 3_600.0
"""The longest that a request may go on by reporting progress."""
TOKENS_MAX = 16
"""Bearer tokens of a connection that its answers are searched for: the last ones. What ended hours ago opens nothing."""
TASK_TTL_MS = 86_400_000
MODERN = "2026-07-28"
"""From this protocol on a server that needs a person's word ends the request, and is asked again with it."""


class Refused(Exception):
    """The server did not take the request: nothing was carried out."""


class Barred(Refused):
    """The server did not take the request for the credential that it came with."""

    def __init__(self, untaken: Untaken) -> None:
        super().__init__(untaken.why)
        self.untaken = untaken


class Lied(Exception):
    """The server carried the request out, and its answer is not what its own schema says."""


class _Lost(Exception):
    """The server went away, or broke the protocol, while it was asked."""


BROKEN = (TimeoutError, OSError, _Lost)


@dataclass(slots=True, eq=False)
class _Flight:
    """One request under way, on a server that asks in the middle of it."""

    answers: Mapping[str, Any]
    """What people have said before: digest of the question to their answer."""
    question: Mapping[str, Any] | None = None
    """What nobody has answered yet: the request is cancelled there, and made again with the answer."""


class _Patience:
    """A time-out that begins anew with each sign of work."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline: asyncio.Timeout | None = None
        self._last_s = 0.0

    def begin(self, deadline: asyncio.Timeout) -> None:
        self._deadline, self._last_s = deadline, asyncio.get_running_loop().time() + PROGRESS_S_MAX

    async def worked(self, progress: float, total: float | None, message: str | None) -> None:
        del progress, total, message
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(min(self._last_s, asyncio.get_running_loop().time() + self._timeout_s))


class Server:
    """One server: its connection lives in a task of its own, for as long as it works."""

    def __init__(  # noqa: PLR0913 - made by `McpServices` alone
        self,
        service: Service,
        references: Callable[[], References],
        directory: Path,
        tasks: asyncio.TaskGroup,
        seen: Callable[[Sequence[Mapping[str, Any]]], None],
        *,
        bytes_max: int,
        access: Access | None,
    ) -> None:
        self._service, self._references, self._directory = service, references, directory
        self._tasks, self._seen, self._bytes_max = tasks, seen, bytes_max
        self._access = access
        self._flow = Flow(bytes_max)
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._flights: set[_Flight] = set()
        self._alone = asyncio.Lock()
        self._does_ask = False
        self._mask = Mask()
        self._secrets = set[str]()
        self._tokens = list[str]()
        self._has_changed = False
        self._is_doubtful = False

    async def connect(self) -> bool:
        """Return whether a new connection had to be made; then its tools were looked at.

        Raises:
            Barred: it does not take its credential.
            ConfigInvalid: the server does not start.
            TimeoutError: it does not say what it has.
        """
        async with self._starting:
            if self._access is not None:  # a login that has ended says so here, not in the middle of the SDK
                await self._access.bearer()
            if self._client is not None and not self._flow.over.is_set() and await self._is_well():
                if self._has_changed:
                    self._has_changed = False
                    self._seen(await self._listed(self._client))
                return False
            await self.stop()
            client = await self._started()
            try:
                self._seen(await self._listed(client))
            except Barred:
                await self.stop()
                raise
            except Refused as error:
                await self.stop()
                raise ConfigInvalid(f"{self._service.mcp}: it does not say what tools it has: {error}") from error
            except BROKEN:
                await self.stop()
                raise
            self._client = client
            return True

    async def _is_well(self) -> bool:
        """Return whether a server that was silent once answers at all; one that does not is ended, to be started anew."""
        if self._is_doubtful:
            self._is_doubtful = False
            try:
                await self._asked(
                    self._client.list_tools(cache_mode="bypass"), LIVES_S_MAX
                )  # `ping` went with 2026-07-28
            except Refused:
                return True
            except BROKEN:
                await self.stop()
                self._is_doubtful = False
                return False
        return True

    def forgive(self) -> None:
        """Try its login again: a person says that it is well."""
        if self._access is not None:
            self._access.forgive()

    async def look(self) -> None:
        """Look at the tools that the server has now."""
        if not await self.connect():
            self._seen(await self._listed(self._client))

    async def stop(self) -> None:
        """End the connection, and the child with it."""
        task, self._task, self._client = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S_MAX)

    # --- Requests. `connect` comes before each. ----------------------------------------------------------------------

    async def call(
        self, tool: str, arguments: Mapping[str, Any], timeout_s: float, *, more: Any = None, is_task: bool = False
    ) -> Mapping[str, Any] | Later | Asks:
        """Return a tool's result as the protocol writes it, or what it waits for.

        Args:
            tool: its name.
            arguments: of it.
            timeout_s: the longest silence; progress that the server reports begins it anew.
            more: what `Later` or `Asks` had, with a person's answer.
            is_task: have the server work on it as a task that outlives the connection, where it can.

        Raises:
            Refused: the server did not take it.
            Lied: its answer is not as its schema says.
            TimeoutError, OSError, _Lost: no answer came.
            ValueError: the answer in `more` is not what was asked for.
        """
        client = self._connected()
        if isinstance(more, Mapping) and "task" in more:
            return await self._task_of(client, str(more["task"]), timeout_s)
        if client.protocol_version >= MODERN:
            return await self._call_modern(client, tool, arguments, timeout_s, more)
        if is_task:
            return await self._begin_task(client, tool, arguments, timeout_s)
        return await self._call_asking(client, tool, arguments, timeout_s, more)

    async def list_resources(self, timeout_s: float) -> list[Mapping[str, Any]]:
        """Return what the server has to read."""
        client, found, cursor = self._connected(), list[Mapping[str, Any]](), None
        for _ in range(PAGES_MAX):
            page = await self._asked(client.list_resources(cursor=cursor), timeout_s)
            found += [self._read(each) for each in page.resources]
            cursor = page.next_cursor
            if not cursor or len(found) > TOOLS_MAX:
                break
        return found

    async def read_resource(self, uri: str, timeout_s: float) -> list[Mapping[str, Any]]:
        """Return the contents of a resource as the protocol writes them."""
        result = await self._asked(self._connected().read_resource(uri, cache_mode="bypass"), timeout_s)
        return [self._read(each) for each in result.contents]

    def _connected(self) -> Any:
        if self._client is None:
            raise _Lost("the server ended")
        return self._client

    async def _call_modern(
        self, client: Any, tool: str, arguments: Mapping[str, Any], timeout_s: float, more: Any
    ) -> Mapping[str, Any] | Later | Asks:
        """Call a tool of a server that ends a request where it needs a person's word, and is asked again with it."""
        left = dict(more or {})
        answers, state, requests = _answers(left), left.get("state"), dict(left.get("requests") or {})
        for _ in range(ROUNDS_MAX):
            for params in requests.values():
                if _digest(params) not in answers:
                    return _asks(params, answers=answers, state=state, requests=requests)
            responses = {key: answers[_digest(params)] for key, params in requests.items()}
            try:
                body = await self._round(client, tool, arguments, timeout_s, responses=responses, state=state)
            except Refused:
                if state is None:
                    raise
                state, requests = None, {}  # it has restarted and forgotten: people are not asked twice for that
                continue
            if body.get("resultType") != "input_required":
                return body
            state, requests = body.get("requestState"), _wanted(body)
            if not requests:
                again = {"state": state, "answers": answers}
                return Later(more=again, after_s=POLL_S, why="its server asks to be called again", is_repeat=True)
        raise Refused(f"it asks the same again after {ROUNDS_MAX} answers")

    async def _round(  # noqa: PLR0913 - what is said in one round
        self,
        client: Any,
        tool: str,
        arguments: Mapping[str, Any],
        timeout_s: float,
        *,
        responses: Mapping[str, Any],
        state: str | None,
    ) -> Mapping[str, Any]:
        import mcp_types  # noqa: PLC0415 - as in `_client_of`

        patience = _Patience(timeout_s)
        made = {key: mcp_types.ElicitResult.model_validate(each) for key, each in responses.items()}
        request = client.session.call_tool(
            tool, dict(arguments), progress_callback=patience.worked, allow_input_required=True,
            input_responses=made or None, request_state=state,
        )  # fmt: skip
        result = await self._asked(request, timeout_s, patience)
        return self._read(result)

    async def _call_asking(
        self, client: Any, tool: str, arguments: Mapping[str, Any], timeout_s: float, more: Any
    ) -> Mapping[str, Any] | Asks:
        """Call a tool of a server that asks in the middle of a request.

        It cannot be kept open for days. So it is told that the person went away, which by the protocol ends the tool without
        an effect, and called again when the person has answered; the answer is given to the same question then.
        """
        answers = _answers(dict(more or {}))
        flight = _Flight(answers)
        if self._does_ask:
            async with self._alone:
                result = await self._flown(client, tool, arguments, timeout_s, flight)
        else:
            result = await self._flown(client, tool, arguments, timeout_s, flight)
        if flight.question is None:
            return result
        return _asks(flight.question, answers=answers)

    async def _flown(
        self, client: Any, tool: str, arguments: Mapping[str, Any], timeout_s: float, flight: _Flight
    ) -> Mapping[str, Any]:
        self._flights.add(flight)
        try:
            patience = _Patience(timeout_s)
            request = client.session.call_tool(tool, dict(arguments), progress_callback=patience.worked)
            result = await self._asked(request, timeout_s, patience)
        finally:
            self._flights.discard(flight)
        return self._read(result)

    async def _told(self, message: Any) -> None:
        """Note that the server has other tools now: they are looked at before it is called again."""
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self._has_changed = True

    async def _elicited(self, context: Any, params: Any) -> Any:
        import mcp_types  # noqa: PLC0415 - as in `_client_of`

        del context
        self._does_ask = True  # from now on its calls go one by one: a question does not say which one it belongs to
        body = self._read(params, without={"meta", "task"})
        if len(self._flights) != 1:
            return mcp_types.ElicitResult(action="cancel")
        (flight,) = self._flights
        if (known := flight.answers.get(_digest(body))) is not None:
            return mcp_types.ElicitResult.model_validate(known)
        flight.question = flight.question or body
        return mcp_types.ElicitResult(action="cancel")

    async def _begin_task(self, client: Any, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Later:
        import mcp_types as types  # noqa: PLC0415 - as in `_client_of`

        params = types.CallToolRequestParams(
            name=tool, arguments=dict(arguments), task=types.TaskMetadata(ttl=TASK_TTL_MS)
        )
        request = types.CallToolRequest(method="tools/call", params=params)
        made = await self._asked(_created(client.session.send_request(request, types.CreateTaskResult)), timeout_s)
        return self._later(types.CreateTaskResult.model_validate(made).task)

    async def _task_of(self, client: Any, task_id: str, timeout_s: float) -> Mapping[str, Any] | Later:
        import mcp_types as types  # noqa: PLC0415 - as in `_client_of`

        request = types.GetTaskRequest(method="tasks/get", params=types.GetTaskRequestParams(task_id=task_id))
        task = await self._asked(client.session.send_request(request, types.GetTaskResult), timeout_s)
        if task.status in ("working", "submitted"):
            return self._later(task)
        if task.status != "completed":
            words = self._mask.text(task.status_message or "") or f"the task is {task.status}"
            return {"isError": True, "content": [{"type": "text", "text": words}]}
        wanted = types.GetTaskPayloadRequest(
            method="tasks/result", params=types.GetTaskPayloadRequestParams(task_id=task_id)
        )
        result = await self._asked(client.session.send_request(wanted, types.CallToolResult), timeout_s)
        return self._read(result)

    def _later(self, task: Any) -> Later:
        after_s = task.poll_interval / 1_000 if task.poll_interval else POLL_S
        why = self._mask.text(task.status_message or f"its task is {task.status}")
        return Later(more={"task": task.task_id}, after_s=after_s, why=why)

    async def _listed(self, client: Any) -> Sequence[Mapping[str, Any]]:
        """Return what the server has to call; one that has resources has two more functions, to list and to read them."""
        tools, cursor = list[Mapping[str, Any]](), None
        for _ in range(PAGES_MAX):
            page = await self._asked(client.list_tools(cursor=cursor, cache_mode="bypass"), START_S_MAX)
            tools += [self._read(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor or len(tools) > TOOLS_MAX:
                break
        has_resources = client.server_capabilities is not None and client.server_capabilities.resources is not None
        return [*tools[:TOOLS_MAX], *(RESOURCES if has_resources else ())]

    def _read(self, model: Any, *, without: set[str] | None = None) -> dict[str, Any]:
        """Return what the server said as the protocol writes it, without the secrets that it was given."""
        return self._mask.value(model.model_dump(by_alias=True, exclude_none=True, mode="json", exclude=without))

    async def _asked(self, request: Any, timeout_s: float, patience: "_Patience | None" = None) -> Any:
        import mcp  # noqa: PLC0415 - as in `_client_of`

        try:
            async with asyncio.timeout(timeout_s) as deadline:
                if patience is not None:
                    patience.begin(deadline)
                return await request
        except TimeoutError:
            self._is_doubtful = True
            raise
        except mcp.MCPError as error:
            if (barred := _barred(error)) is not None:
                raise barred from error
            if error.code in NOT_TAKEN:
                raise Refused(self._mask.text(error.message)) from error
            what = self._flow.fault or error.message
            if error.code == CLOSED:
                await self.stop()
            raise _Lost(self._mask.text(what)) from error
        except Exception as error:
            if isinstance(error, RuntimeError) and "structured content" in str(error):  # the SDK's own judgement
                raise Lied(self._mask.text(str(error).partition("\n")[0])) from error
            await self.stop()  # what state it is in nobody knows: the next call starts it anew
            raise _Lost(self._mask.text(self._flow.fault or f"{type(error).__name__}: {error}")) from error

    # --- The connection ----------------------------------------------------------------------------------------------

    async def _started(self) -> Any:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = self._tasks.create_task(self._live(ready))
        await asyncio.wait([ready], timeout=START_S_MAX)
        if not ready.done():
            await self.stop()
            raise ConfigInvalid(f"{self._service.mcp}: it did not answer within {START_S_MAX:g} s")
        return ready.result()

    async def _live(self, ready: "asyncio.Future[Any]") -> None:
        """Hold the connection open; the SDK wants it opened and closed in one task."""
        with Words() as words:
            await self._live_saying(ready, words)

    async def _live_saying(self, ready: "asyncio.Future[Any]", words: Words) -> None:
        flow = self._flow = Flow(self._bytes_max)
        try:
            references = self._references()
            address = self._address(references)
            child = self._child(references) if address is None else None
            # What was used is known only now. The header of a user in an address is a secret too.
            self._secrets = {*references.secrets, address[1].get("Authorization", "") if address else ""}
            self._mask, self._tokens = mask_of(self._secrets), []
            if address is not None:
                there = endpoint(address[0], is_named=True)
                await judged(there.host, there.port, resolved_by_system, is_named=True)
            if address is None:
                assert child is not None
                wire = over_stdio(child, words, flow)
            else:
                auth = None if self._access is None else Bearer(access=self._access, hide=self._hide)
                wire = over_web(*address, flow, is_sse=self._service.mcp.startswith("sse+"), auth=auth)
            async with self._client_of(flow.through(wire)) as client:
                ready.set_result(client)
                await flow.over.wait()
        except Exception as error:  # noqa: BLE001 - a server's end is not ours
            flow.end(_root(error))
            if not ready.done() and (barred := _barred(_first(error))) is not None:
                ready.set_exception(barred)
            if not ready.done():
                said = f"; it said: {words.last()}" if words.last() else ""
                what = self._mask.text(f"{flow.fault}{said}")
                ready.set_exception(ConfigInvalid(f"{self._service.mcp}: it does not start: {what}"))
        finally:
            if not ready.done():
                ready.cancel()

    def _hide(self, token: str) -> None:
        """Have the answers of this connection searched for a token, too, before it is sent."""
        if token not in self._tokens:
            self._tokens = [*self._tokens[1 - TOKENS_MAX :], token]
            self._mask = mask_of({*self._secrets, *self._tokens})

    def _client_of(self, wire: AbstractAsyncContextManager[tuple[Any, Any]]) -> Any:
        try:
            import mcp  # noqa: PLC0415 - it takes half a second, and many homes have no server
        except ImportError as error:
            raise ConfigInvalid("the MCP client is not installed: pip install 'overwinter[mcp]'") from error
        # What the SDK logs of a server's nonsense holds it raw, and without a listener it would go to our standard error.
        for name in ("mcp", "client"):
            logging.getLogger(name).addHandler(logging.NullHandler())
        return mcp.Client(wire, elicitation_callback=self._elicited, message_handler=self._told)

    def _address(self, references: References) -> tuple[str, Mapping[str, str]] | None:
        """Return where a server is and what is said to it in headers; None: it is a command."""
        place = self._service.mcp.removeprefix("sse+")
        if not place.startswith(("http://", "https://")):
            return None
        url, said = without_userinfo(references.text(place, self._service.mcp))
        return url, {**said, **self._headers(references)}

    def _child(self, references: References) -> Child:
        """Return how the server is started. Its variables are filled in word by word: what they hold is never split."""
        service = self._service
        command = [references.text(word, service.mcp) for word in shlex.split(service.mcp)]
        if setpriv := shutil.which("setpriv"):  # the kernel ends the child with us, also when we are killed
            command = [setpriv, "--pdeathsig", "KILL", *command]
        place = f"env of {service.mcp}"
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {name: references.whole(value, place, name=name) for name, value in service.env.items()}
        return Child(command=command, environment=environment, directory=self._directory / service.cwd)

    def _headers(self, references: References) -> dict[str, str]:
        service, place = self._service, f"headers of {self._service.mcp}"
        headers = {name: references.whole(value, place, name=name) for name, value in service.headers.items()}
        if service.auth and self._access is None:
            secret = references.whole(service.auth, f"auth of {service.mcp}", name="credential")
            headers["Authorization"] = f"Bearer {secret}"
        return headers


INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
)  # fmt: skip
"""What a server has of our environment; the rest, where secrets are, only if it is named."""
RESOURCES: Sequence[Mapping[str, Any]] = (
    {
        "name": "resources/list",
        "description": "List what the server has to read: uri, name, type.",
        "inputSchema": {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "resources/read",
        "description": "Read a resource of the server by its uri: its text, or a file.",
        "inputSchema": {"type": "object", "properties": {"uri": {"type": "string"}}, "required": ["uri"]},
        "annotations": {"readOnlyHint": True},
    },
)
"""Written as tools, so that they have names, pins and grants like any other."""


async def _created(request: Awaitable[Any]) -> Any:
    """Return a new task. SDK 2.3 knows the type, and refuses it as the answer to `tools/call`: it is taken from the refusal."""
    from pydantic import ValidationError  # noqa: PLC0415 - as in `_client_of`

    try:
        return await request
    except ValidationError as error:
        refused = error.errors()[0]["input"]
        if not isinstance(refused, Mapping) or "task" not in refused:
            raise
        return cast("Mapping[str, Any]", refused)


def _answers(left: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people have said in a call so far, by the digest of what they were asked.

    Raises:
        ValueError: the last answer is not what was asked for.
    """
    answers: dict[str, Any] = dict(left.get("answers") or {})
    if "answer" in left:
        answers[_digest(left["asked"])] = answered(left["asked"], str(left["answer"]))
    return answers


def _asks(params: Mapping[str, Any], **left: Any) -> Asks:
    question, options = asked(params)
    return Asks(more={**left, "asked": dict(params)}, question=question, options=options)


def _wanted(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server asks for, by its own keys."""
    requests = cast("Mapping[str, Any]", body.get("inputRequests") or {})
    if any(each.get("method") != "elicitation/create" for each in requests.values()):
        raise Refused("it wants a model, or the roots of a client, which it does not get here")
    return {key: each["params"] for key, each in requests.items()}


def _digest(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def _barred(error: BaseException) -> Barred | None:
    """Return what `web` said of a refused credential; None if it is another error."""
    mcp = sys.modules.get("mcp")  # where it is not installed, that is the error
    fault: Any = error
    if mcp is None or not isinstance(error, mcp.MCPError) or fault.code != UNTAKEN:
        return None
    said: Any = fault.data if isinstance(fault.data, Mapping) else {}
    if said.get("needs") not in ("login", "mending", "time") or not isinstance(said.get("status"), int):
        return None  # a server's own words
    return Barred(Untaken(status=said["status"], needs=said["needs"], why=str(said.get("why"))))


def _root(error: BaseException) -> str:
    first = _first(error)
    return f"{type(first).__name__}: {first}"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
