"""The models' door: what official clients of OpenAI, Anthropic and Google send, over the App's gateway.

Raw ASGI, for a call costs a third of what it would behind a router. Everything else goes on to the API.

| path | dialect |
|---|---|
| `/v1/chat/completions` | chat |
| `/v1/responses`, `/v1/responses/ID`, `/v1/responses/ID/cancel` | responses |
| `/v1/messages`, `/v1/messages/count_tokens` | messages |
| `/v1/embeddings` | embeddings |
| `/v1beta/models/NAME:generateContent`, `:streamGenerateContent`, `:countTokens`, and below `/v1` | gemini |
| `/v1/models`, `/v1beta/models`, and `/NAME` below | the list or one of it, as the client's dialect has it |
| other paths of these providers | a refusal in their dialect: see `model_lists` |
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overwinter.app import App
from overwinter.app.departures import Staying
from overwinter.app.models import Wish
from overwinter.faces.model_lists import asked_model, listed, spoken
from overwinter.faces.scopes import CALLER
from overwinter.gateway.dialect import Dialect, DialectName
from overwinter.gateway.refusal import ModelRefused, Refusal, Why
from overwinter.tokens import Token

__all__ = ["InDialect", "ModelsDoor", "dialect_of"]

BODY_BYTES_MAX = 32 << 20
"""Providers take at most as much: Anthropic 32 MB, OpenAI less."""
DRAIN_S_MAX = 300.0
"""How long an answer is read on after its client has left."""
SCOPE = "models"
OURS = "x-overwinter-"
KEY = "idempotency-key"
PATHS: Mapping[str, DialectName] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
    "/v1/embeddings": "embeddings",
}
_RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]{1,256}(/cancel)?")
_GEMINI = re.compile(r"/v1(beta)?/models/[^/:]+:(generateContent|streamGenerateContent|countTokens)")
SESSIONS = ("x-claude-code-session-id", "session-id", "x-session-id")
"""Headers by which Claude Code, Codex and opencode name a conversation; without one, all calls of a token are one."""
PROBES = frozenset({"/", "/api/hello"})
"""Asked with HEAD by clients that want to know whether anybody is there."""


def dialect_of(path: str) -> DialectName | None:
    """Return the dialect of a path; None: it is no model call."""
    found = PATHS.get(path)
    if found is not None:
        return found
    if _RESPONSE.fullmatch(path):
        return "responses"
    return "gemini" if _GEMINI.fullmatch(path) else None


class ModelsDoor:
    """An ASGI application before another: answers model calls.

    Args:
        inner: gets what is none.
        app: whose gateway.
        is_remote: it stands behind `bearer.Bearer`, which leaves a token in the scope.
    """

    def __init__(self, inner: ASGIApp, app: App, *, is_remote: bool) -> None:
        self._inner, self._app, self._is_remote = inner, app, is_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path, method = scope["path"], scope["method"]
        name = dialect_of(path)
        if name is not None:
            await self._answer(scope, receive, send, self._app.models.dialects[name])
        elif (name := spoken(path, _headers(scope))) is not None:
            await self._told(scope, send, name)
        elif path in PROBES and method == "HEAD":
            await _sent(send, 200, {}, b"")
        else:
            await self._inner(scope, receive, send)

    def is_ended(self, path: str, token: Token) -> bool:
        """Cut the calls of a token that counts no more; return whether this path has such."""
        if dialect_of(path) is None:
            return False
        self._app.models.cut_key(token.id, f"token {token.id} counts no more")
        return True

    async def _answer(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
        headers = _headers(scope)
        try:
            agent, token = self._agent(scope, headers)
            body = await _body(receive, headers)
            await self._refuse_ended(token)
            place = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
            wish = _wish(headers, token, self._app.models.new_name)
            asked = dialect.read(scope["method"], place, _sent_on(headers, wish), body)
            is_aborted = _is_aborted(headers, self._app.config.gateway.on_disconnect)
        except ModelRefused as error:
            wire = dialect.refused(error.refusal)
            await _sent(send, wire.status, wire.headers, wire.body)
            return
        models, drain_s = self._app.models, 0.0 if is_aborted else DRAIN_S_MAX
        client = Staying(partial(_left, receive), lambda: models.gateway.leave(sink), drain_s)
        sink = _Sink(send, client, wish.call)
        models.departures.expect(client)
        try:
            await models.answer(asked, agent, wish, sink, method=scope["method"])
        finally:
            client.over()
        await sink.end()

    async def _refuse_ended(self, token: Token | None) -> None:
        """Look again whether a token counts: a body may take its time.

        Raises:
            ModelRefused: it was revoked meanwhile, or has expired.
        """
        if token is not None and not await self._app.access.counts(token.id):
            raise ModelRefused(Refusal(why="unknown-key", message=f"token {token.id} counts no more"))

    async def _told(self, scope: Scope, send: Send, name: DialectName) -> None:
        """Answer what is no call: about models, or that it is nothing of ours."""
        try:
            model = asked_model(scope["method"], scope["path"])
            agent, _ = self._agent(scope, _headers(scope))
            names = [self._known(model, agent)] if model else self._app.models.permitted(agent)
        except ModelRefused as error:
            wire = self._app.models.dialects[name].refused(error.refusal)
            await _sent(send, wire.status, wire.headers, wire.body)
            return
        body = json.dumps(listed(names, name, is_one=bool(model))).encode()
        await _sent(send, 200, {"content-type": "application/json"}, body)

    def _known(self, model: str, agent: str) -> str:
        """Return the name of a model that an agent may call, also one that a pattern stands for.

        Raises:
            ModelRefused: it may not, or there is none.
        """
        models = self._app.models
        if not models.gateway.permitted(models.caller(agent, Wish(call="")), [model]):
            message = f"agent {agent!r} may not call {model[:200]!r}: `overwinter models list` shows what it may"
            raise ModelRefused(Refusal(why="unknown-model", message=message))
        return model

    def _agent(self, scope: Scope, headers: Mapping[str, str]) -> tuple[str, Token | None]:
        """Return under whose identity a call is made, and the token that says so.

        Raises:
            ModelRefused: the token is not for that.
        """
        wanted = headers.get(f"{OURS}agent", "")
        if not self._is_remote:
            agent, token = wanted or "default", None
        else:
            token = scope[CALLER]
            assert isinstance(token, Token), "who came in over TCP has a token"
            if SCOPE not in token.scopes:
                message = f"model calls need the scope {SCOPE!r}; token {token.id} has {', '.join(token.scopes)}"
                raise ModelRefused(Refusal(why="denied", message=message))
            agent = wanted or ("default" if re.search(r"[*?\[]", token.agents) else token.agents)
            if not token.concerns(agent):
                message = (
                    f"token {token.id} is for agents {token.agents!r}, not for {agent!r}: {OURS}agent names another"
                )
                raise ModelRefused(Refusal(why="denied", message=message))
        if agent not in self._app.config.agents:
            raise ModelRefused(Refusal(why="denied", message=f"there is no agent {agent!r} in overwinter.toml"))
        return agent, token


class InDialect:
    """An ASGI application before `bearer.Bearer`: what that refuses is said in the dialect of the path."""

    def __init__(self, inner: ASGIApp, app: App) -> None:
        self._inner, self._app = inner, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = dialect_of(scope["path"]) or spoken(scope["path"], _headers(scope))
        if name is None:
            await self._inner(scope, receive, send)
            return
        head: list[Message] = []

        async def sent(message: Message) -> None:
            if CALLER in scope:
                await send(message)
            elif message["type"] == "http.response.start":
                head.append(message)
            else:
                wire = self._app.models.dialects[name].refused(_turned_away(head[0], message["body"]))
                await _sent(send, wire.status, {**wire.headers, **_challenge(head[0])}, wire.body)

        await self._inner(scope, receive, sent)


def _turned_away(head: Message, body: bytes) -> Refusal:
    """Return a refusal of the door before this one."""
    status, said = head["status"], json.loads(body)["error"]["message"]
    after = dict(head["headers"]).get(b"retry-after")
    why: Why = "unknown-key" if status == 401 else "rate" if status == 429 else "denied"  # noqa: PLR2004 - RFC 9110, 15.5.2; RFC 6585, 4
    return Refusal(why=why, message=said, status=status, retry_after_s=None if after is None else float(after))


def _challenge(head: Message) -> dict[str, str]:
    found = dict(head["headers"]).get(b"www-authenticate")
    return {} if found is None else {"www-authenticate": found.decode("latin-1")}


@dataclass(slots=True)
class _Sink:
    """See `gateway.caller.Sink`: an answer on its way over HTTP.

    One that is no stream is sent as a whole at its end, with its length: two writes to the socket in place of three.
    """

    send: Send
    client: Staying
    call: str
    has_begun: bool = False
    is_ended: bool = False
    whole: list[bytes] | None = None
    """What is held of an answer that is no stream."""
    head: tuple[int, Mapping[str, str]] = (0, {})

    @property
    def is_gone(self) -> bool:
        """Return whether nobody listens any more."""
        return self.client.has_left

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head."""
        self.has_begun = True
        told = {**headers, f"{OURS}call": self.call}
        if headers.get("content-type", "").startswith("text/event-stream"):
            await self.send(_head(status, told))
        else:
            self.whole, self.head = [], (status, told)

    async def write(self, body: bytes) -> None:
        """Send a part."""
        if self.whole is not None:
            self.whole.append(body)
        elif body and not self.is_gone:
            await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        """Say that there is no more, together with the last part: one packet."""
        if self.is_ended:
            return
        self.is_ended = True
        if self.whole is not None:
            await _sent(self.send, *self.head, b"".join((*self.whole, last)))
        elif self.has_begun:
            await self.send({"type": "http.response.body", "body": last, "more_body": False})


def _headers(scope: Scope) -> dict[str, str]:
    """Return a request's headers by their names in lower case; of one that came twice, both (RFC 9110, 5.3)."""
    found = dict[str, str]()
    for raw_key, raw_value in scope["headers"]:
        key, value = raw_key.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _head(status: int, headers: Mapping[str, str]) -> Message:
    rows = [(key.encode("latin-1"), value.encode("latin-1", "replace")) for key, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": rows}


async def _sent(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    await send(_head(status, {**headers, "content-length": str(len(body))}))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _left(receive: Receive) -> None:
    """Return once a client has left, or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """Return a request's body.

    Raises:
        ModelRefused: it is too large, or packed.
    """
    if headers.get("content-encoding", "identity") != "identity":
        raise ModelRefused(Refusal(why="invalid", message="a request is not compressed: content-encoding is refused"))
    too_large = Refusal(why="too-large", message=f"the body has more than {BODY_BYTES_MAX >> 20} MB")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
        raise ModelRefused(too_large)
    message = await receive()
    parts, size_bytes = [message.get("body", b"")], len(message.get("body", b""))
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ModelRefused(Refusal(why="invalid", message="the client left before its request was whole"))
        size_bytes += len(message.get("body", b""))
        if size_bytes > BODY_BYTES_MAX:
            raise ModelRefused(too_large)
        parts.append(message.get("body", b""))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _wish(headers: Mapping[str, str], token: Token | None, new_name: Callable[[], str]) -> Wish:
    """Return what a client's headers ask for; a call that they give no name to gets a new one.

    Raises:
        ModelRefused: one of them says what nobody knows.
    """
    who = token.id if token is not None else "local"
    named = headers.get(KEY, "")
    if named and (agent := headers.get(f"{OURS}agent", "")):
        named = f"{agent}\0{named}"  # a token may stand for several: what one got under a name is not another's
    call = f"{who}:{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}" if named else new_name()
    cache = headers.get(f"{OURS}cache", "")
    age = re.fullmatch(r"max-age=(\d{1,9})", cache)
    if cache not in ("", "use", "similar", "none") and age is None:
        message = f"{OURS}cache is 'use', 'similar', 'none' or 'max-age=SECONDS', not {cache[:100]!r}"
        raise ModelRefused(Refusal(why="invalid", message=message))
    return Wish(
        call=call,
        is_named=bool(named),
        key=token.id if token is not None else "",
        session=next((headers[each] for each in SESSIONS if headers.get(each)), "")[:200],
        data=headers.get(f"{OURS}data", "")[:100],
        is_unlogged=_is_unlogged(headers),
        is_cached=None if not cache else cache != "none",
        is_similar=cache == "similar",
        cache_s=float(age[1]) if age is not None else None,
    )


def _sent_on(headers: Mapping[str, str], wish: Wish) -> Mapping[str, str]:
    """Return the headers from which the provider's are made, with a key of our own in the place of the client's.

    All callers of a home are one account to a provider. If it honours keys, the same word of two of them must not be the same
    request to it; and another try of one call must be.
    """
    return {**headers, KEY: hashlib.sha256(wish.call.encode()).hexdigest()[:32]} if wish.is_named else headers


def _is_unlogged(headers: Mapping[str, str]) -> bool | None:
    """Return whether nothing of what is said is kept; None: as the configuration says. A client can ask for less, never for more.

    Raises:
        ModelRefused: its header says what nobody knows.
    """
    log = headers.get(f"{OURS}log", "")
    if log not in ("", "none"):
        message = f"{OURS}log is 'none' or left out, not {log[:100]!r}"
        raise ModelRefused(Refusal(why="invalid", message=message))
    return True if log else None


def _is_aborted(headers: Mapping[str, str], otherwise: str) -> bool:
    """Whether a call is stopped when its client leaves.

    Raises:
        ModelRefused: its header says what nobody knows.
    """
    gone = headers.get(f"{OURS}on-disconnect", otherwise)
    if gone not in ("drain", "abort"):
        message = f"{OURS}on-disconnect is 'drain' or 'abort', not {gone[:100]!r}"
        raise ModelRefused(Refusal(why="invalid", message=message))
    return gone == "abort"
