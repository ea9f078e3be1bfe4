"""Accepts connections, but not from everybody for ever: who is slow, too many or too frequent costs next to nothing.

A *stranger* is a connection on which nobody was believed yet. Strangers are few and short-lived, so however many there
are, they take no place from those who were believed.
"""

import asyncio
import logging
import socket
import ssl
from asyncio import sslproto
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError
from typing_extensions import override

from halvard.rate import RateLimit

HANDSHAKE_SECONDS = 5.0
FIRST_REQUEST_SECONDS = 10.0  # from the end of the handshake to the end of the first request's head
IDLE_SECONDS = 30.0
LINGER_SECONDS = 1.0  # what was refused unread is still swallowed, for its sender to read the answer
SHUTDOWN_SECONDS = 0.5  # pushes that wait for a decision are asked again elsewhere
BACKLOG = 1024

# asyncio holds (and touches) a buffer of this size for each TLS connection: its own 256 KiB would be 256 MiB for a
# thousand sidecars. 16 KiB is a TLS record.
sslproto.SSLProtocol.max_size = 16 * 1024

CutOff = Literal["overloaded", "too_slow"]
"""Why a connection ended before there was a request on it."""

log = logging.getLogger(__name__)
http_log = logging.getLogger("halvard.http")
# aiohttp has a traceback for everything that is not HTTP, and strangers shall not fill the disk.
http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be at once, and how many new ones one address may open."""

    connections: int = 2048
    strangers: int = 512
    strangers_of_one_address: int = 64
    new_at_once: int = 200  # Pods behind one NAT address come back all together when another operator leads
    new_a_second: float = 50.0


LIMITS = Limits()


class Connection(asyncio.Protocol):
    """One client: aiohttp's handler, and what a listener has to know of it."""

    def __init__(self, handler: asyncio.Protocol, address: str) -> None:
        """`address` is whom it counts for."""
        self._handler = handler
        self.address = address
        self.believed = False
        self.asked = asyncio.Event()
        self.lost = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handler.connection_made(transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    @override
    def pause_writing(self) -> None:
        self._handler.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._handler.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)
        self.asked.set()
        self.lost.set()


class Listener:
    """Serves an application at one port."""

    def __init__(
        self,
        application: web.Application,
        cut_off: Callable[[CutOff], None],
        context: ssl.SSLContext | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """`cut_off` hears of connections that came to no request; without `context` it is plain HTTP."""
        application.middlewares.append(_note_request)
        self._context = context
        self._cut_off = cut_off
        self._limits = limits
        self._rate = RateLimit(limits.new_a_second, limits.new_at_once)
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log,
            auto_decompress=False,  # nobody sends compressed requests, and a small body stays small
            keepalive_timeout=IDLE_SECONDS,  # also ends a connection that dribbles its next head
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )

    async def start(self, host: str, port: int) -> None:
        """Listens; raises OSError where the port is taken. An empty host is every address of this machine."""
        await self._runner.setup()
        self._server = cast("web.Server", self._runner.server)
        self._socket = _bind(host, port)
        self._accepting = asyncio.create_task(self._accept())

    @property
    def port(self) -> int:
        """Where it listens."""
        found: int = self._socket.getsockname()[1]
        return found

    def renew(self, context: ssl.SSLContext) -> None:
        """Takes another context for every handshake from here on."""
        self._context = context

    async def close(self) -> None:
        """Stops listening, gives requests a moment to finish and ends all connections."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._socket.close()
        await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, (address, *_) = await loop.sock_accept(self._socket)
            except OSError as error:  # no file descriptors, no memory: what is open ends some time
                log.warning("no connection can be accepted: %s", error)
                await asyncio.sleep(1.0)
                continue
            if self._admits(address):
                task = asyncio.create_task(self._serve(accepted, address))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._cut_off("overloaded")
                accepted.close()
            await asyncio.sleep(0)  # while others wait to be accepted, `sock_accept` lets nobody else run

    def _admits(self, address: str) -> bool:
        limits = self._limits
        if not self._rate.allows(address) or len(self._open) >= limits.connections:
            return False
        strangers = Counter(connection.address for connection in self._open if not connection.believed)
        return strangers.total() < limits.strangers and strangers[address] < limits.strangers_of_one_address

    async def _serve(self, accepted: socket.socket, address: str) -> None:
        """Lives as long as the connection, from before its handshake on."""
        connection = Connection(self._server(), address)
        self._open.add(connection)
        try:
            transport = await self._shake_hands(accepted, connection)
            try:
                async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                    await connection.asked.wait()
            except TimeoutError:
                self._cut_off("too_slow")
                transport.abort()
            await connection.lost.wait()
        except ConnectionAbortedError:  # what asyncio calls a handshake that took too long
            self._cut_off("too_slow")
        except OSError as error:  # gone away, or it does not speak TLS or believe our CA
            log.debug("no handshake with %s: %s", address, error)
        finally:
            self._open.remove(connection)

    async def _shake_hands(self, accepted: socket.socket, connection: Connection) -> asyncio.Transport:
        timeouts = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": HANDSHAKE_SECONDS}
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: connection, accepted, ssl=self._context, **(timeouts if self._context else {})
        )
        return transport


def believe(request: web.Request) -> None:
    """Notes that this request's connection is no stranger any more."""
    if connection := _connection(request):
        connection.believed = True


@web.middleware
async def _note_request(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if connection := _connection(request):
        connection.asked.set()
    return await handler(request)


def _connection(request: web.Request) -> Connection | None:
    protocol = request.transport.get_protocol() if request.transport else None  # None: the client is gone
    return protocol if isinstance(protocol, Connection) else None


def _bind(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        listening = socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    else:
        listening = socket.create_server((host, port), backlog=BACKLOG)
    listening.settimeout(0)
    return listening
