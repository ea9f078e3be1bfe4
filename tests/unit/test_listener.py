"""Real sockets against a real listener; what it serves says `hello`, and who hears that is believed from then on."""

import asyncio
import contextlib
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from halvard import listener as module
from halvard.listener import CutOff, Limits, Listener, believe
from halvard.tls import Tls, load_or_create

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO_BEGINS = b"\x16\x03\x01\x02\x00"  # the first bytes of a TLS handshake


@dataclass
class Client:
    """One connection to the listener."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def is_served(self) -> bool:
        """Asks, and says whether that was answered."""
        try:
            self.writer.write(REQUEST)
            await asyncio.wait_for(self.reader.readuntil(b"hello"), 30)
        except (OSError, asyncio.IncompleteReadError):
            return False
        return True

    async def is_cut_off(self) -> bool:
        """Waits for the end of what the listener says; whether it said nothing."""
        try:
            return await asyncio.wait_for(self.reader.read(), 30) == b""
        except OSError:
            return True


@dataclass
class Hall:
    """A listener, and who comes to it."""

    tls: Tls
    listener: Listener
    results: list[CutOff]
    clients: list[Client] = field(default_factory=list)

    async def connect(self, address: str = "127.0.0.1", *, raw: bool = False) -> Client:
        """Connects from this address of the machine, with TLS unless `raw`."""
        context = None if raw else ssl.create_default_context(cadata=self.tls.ca_pem)
        came_in = asyncio.open_connection("127.0.0.1", self.listener.port, local_addr=(address, 0), ssl=context)
        client = Client(*await came_in)
        self.clients.append(client)
        return client

    async def is_let_in(self, address: str = "127.0.0.1") -> bool:
        """Whether a handshake succeeds."""
        try:
            await self.connect(address)
        except OSError:
            return False
        return True


async def hello(request: web.Request) -> web.Response:
    believe(request)
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def hall(directory: Path, limits: Limits = module.LIMITS) -> AsyncIterator[Hall]:
    application = web.Application()
    application.router.add_get("/", hello)
    results: list[CutOff] = []
    tls = load_or_create(directory, ["127.0.0.1"])
    listener = Listener(application, results.append, tls.server_context(), limits)
    await listener.start("127.0.0.1", 0)
    opened = Hall(tls, listener, results)
    try:
        yield opened
    finally:
        for client in opened.clients:
            client.writer.transport.abort()
        await listener.close()


@pytest.mark.parametrize("sent", [b"", HELLO_BEGINS])
async def test_a_handshake_that_does_not_come_to_its_end_is_cut_off_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.05)
    async with hall(tmp_path) as opened:
        client = await opened.connect(raw=True)
        client.writer.write(sent)
        assert await client.is_cut_off()
        assert opened.results == ["too_slow"]


async def test_a_head_that_dribbles_in_is_cut_off_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.2)
    async with hall(tmp_path) as opened:
        client = await opened.connect()

        async def dribble() -> None:
            client.writer.write(REQUEST[:-2] + b"x: ")
            while True:
                client.writer.write(b"x")
                await asyncio.sleep(0.01)

        dribbling = asyncio.create_task(dribble())
        assert await client.is_cut_off()
        assert opened.results == ["too_slow"]
        dribbling.cancel()


async def test_so_is_one_that_dribbles_in_after_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    async with hall(tmp_path) as opened:
        client = await opened.connect()
        assert await client.is_served()
        client.writer.write(REQUEST[:-2])
        assert await client.is_cut_off()


async def test_one_address_has_few_strangers_and_another_is_served(tmp_path: Path) -> None:
    async with hall(tmp_path, Limits(strangers_of_one_address=2)) as opened:
        strangers = [await opened.connect(raw=raw) for raw in (True, False)]
        assert not await opened.is_let_in()
        assert opened.results == ["overloaded"]
        assert await (await opened.connect("127.0.0.2")).is_served()
        assert await strangers[1].is_served()  # and is no stranger from here on
        assert await opened.is_let_in()


async def test_all_together_are_few_strangers_too(tmp_path: Path) -> None:
    async with hall(tmp_path, Limits(strangers=2)) as opened:
        for last in (1, 2):
            await opened.connect(f"127.0.0.{last}")
        assert not await opened.is_let_in("127.0.0.3")
        assert await opened.clients[0].is_served()
        assert await opened.is_let_in("127.0.0.3")


async def test_no_more_connections_are_held_than_there_is_memory_for(tmp_path: Path) -> None:
    async with hall(tmp_path, Limits(connections=2)) as opened:
        for _ in range(2):
            assert await (await opened.connect()).is_served()
        assert not await opened.is_let_in()
        assert opened.results == ["overloaded"]


async def test_who_leaves_makes_room(tmp_path: Path) -> None:
    async with hall(tmp_path, Limits(connections=1)) as opened:
        client = await opened.connect()
        client.writer.close()
        await client.writer.wait_closed()
        async with asyncio.timeout(30):
            while not await opened.is_let_in():  # noqa: ASYNC110  # it hears of the end a moment later
                await asyncio.sleep(0.01)


async def test_one_address_opens_so_many_connections_and_then_only_so_many_a_second(tmp_path: Path) -> None:
    async with hall(tmp_path, Limits(new_at_once=2, new_a_second=1e-6)) as opened:
        assert [await opened.is_let_in() for _ in range(3)] == [True, True, False]
        assert opened.results == ["overloaded"]
        assert await opened.is_let_in("127.0.0.2")


async def test_hundreds_of_half_open_handshakes_keep_nobody_else_out(tmp_path: Path) -> None:
    async with hall(tmp_path) as opened:
        for _ in range(300):
            await opened.connect(raw=True)
        assert await (await opened.connect("127.0.0.2")).is_served()
        assert opened.results == ["overloaded"] * (300 - module.LIMITS.strangers_of_one_address)


@pytest.mark.parametrize("sent", [REQUEST, b"\x00" * 1000, HELLO_BEGINS + b"x" * 1000])
async def test_what_is_no_tls_is_cut_off_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with hall(tmp_path) as opened:
        client = await opened.connect(raw=True)
        client.writer.write(sent)
        await client.is_cut_off()
        assert await (await opened.connect()).is_served()
    assert caplog.text == ""


@pytest.mark.parametrize("sent", [b"\x00\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000])
async def test_what_is_no_http_is_refused_and_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with hall(tmp_path) as opened:
        client = await opened.connect()
        client.writer.write(sent)
        assert (await asyncio.wait_for(client.reader.readline(), 30))[:12] == b"HTTP/1.0 400"
    assert caplog.text == ""


async def test_a_new_certificate_is_shown_to_who_comes_next(tmp_path: Path) -> None:
    async with hall(tmp_path / "old") as opened:
        client = await opened.connect()
        opened.tls = load_or_create(tmp_path / "new", ["127.0.0.1"])
        assert not await opened.is_let_in()
        opened.listener.renew(opened.tls.server_context())
        assert await opened.is_let_in()
        assert await client.is_served()


async def test_whoever_is_connected_when_it_closes_is_cut_off(tmp_path: Path) -> None:
    async with hall(tmp_path) as opened:
        clients = [await opened.connect(raw=raw) for raw in (True, False, False)]
        assert await clients[2].is_served()
        await opened.listener.close()
        assert [await client.is_cut_off() for client in clients] == [True] * 3


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_without_a_host_it_listens_in_both_families(address: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    listener = Listener(web.Application(), lambda _: None)
    await listener.start("", 0)
    reader, writer = await asyncio.open_connection(address, listener.port)
    writer.write(REQUEST)
    assert (await asyncio.wait_for(reader.readline(), 30))[:12] == b"HTTP/1.1 404"
    writer.close()
    await listener.close()


async def test_a_thousand_sidecars_fit_into_memory(tmp_path: Path) -> None:
    async with hall(tmp_path) as opened:
        assert await (await opened.connect()).is_served()
        tracemalloc.start()
        for _ in range(10):
            assert await (await opened.connect()).is_served()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken / 10 < 150_000  # bytes, of both ends of a connection
