"""Requests such as nobody should send: valid pushes, mutated by a seeded generator, as the bytes of HTTP."""

import base64
import copy
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

PATH = "/v1/reports"
ODD = [
    None, True, False, 0, -1, -0.0, 1.5, 1e308, 10**400, 2**53, 2**53 - 1, 2**63, math.nan, math.inf, -math.inf,
    "", "NaN", "-Infinity", "nan", "1", "../..", "a/b", "$(HALVARD_SEED)", "\x00", "\ud800", "\u202e", "x" * 200,
    [], {}, [[]], {"step": 1}, [{"step": 1}] * 3,
]  # fmt: skip
TEXTS = [
    b'{"reports": [], "elapsed": 1, "elapsed": -1}',
    b'{"reports": [{"step": 1, "step": "x"}], "elapsed": 1}',
    b'{"reports": [{"step": 1, "metrics": {"loss": 1e999999}}], "elapsed": 1}',
    b'{"reports": [{"step": 1, "metrics": {"loss": ' + b"9" * 5000 + b'}}], "elapsed": 1}',
    b'{"reports": [{"step": ' + b"1" * 5000 + b'}], "elapsed": 1}',
    b'{"reports": [{"step": 1, "metrics": {"\xff\xfe": 1}}], "elapsed": 1}',
    b'{"reports": [{"step": 1, "metrics": {"\\ud800": 1}}], "elapsed": 1}',
    b'\xef\xbb\xbf{"reports": [], "elapsed": 1}',
    '{"reports": [], "elapsed": 1}'.encode("utf-16"),
    b"[" * 60_000,
    b'{"reports":' * 5_000,
    b"\x00" * 1000,
    b"",
    b"nul",
    b"x" * 65_536,
]


@dataclass(frozen=True)
class Case:
    """One request: `kind` says what is wrong with it; `whole`: the server can answer it before it is hung up on.

    `proven`: its token proves whose it is, or nobody could tell.
    """

    kind: str
    head: bytes
    body: bytes
    whole: bool = True
    reusable: bool = False
    proven: bool = True

    @property
    def data(self) -> bytes:
        """Everything that is sent."""
        return self.head + self.body


class Fuzzer:
    """The same requests for the same seed."""

    def __init__(self, seed: int, tokens: dict[str, str]) -> None:
        """`tokens` are bearer tokens by what is wrong with them; that of `""` is believed."""
        self._random = random.Random(seed)
        self._tokens = tokens

    def case(self) -> Case:
        """The next request."""
        make = self._random.choices([self._body, self._framing, self._head, self._token], [9, 4, 2, 5])[0]
        return make()

    def push(self) -> dict[str, Any]:
        """A valid push."""
        draw = self._random
        reports = [
            {"step": step, "metrics": {"loss": draw.uniform(-9, 9), "accuracy": "NaN"}, "checkpoint": f"step-{step}"}
            for step in sorted(draw.sample(range(1, 100), draw.randrange(5)))
        ]
        return {"reports": reports, "budget": 3, "elapsed": draw.uniform(0, 1e9), "invalid": draw.randrange(3)}

    # --- bodies ---------------------------------------------------------------------------------------------------

    def _body(self) -> Case:
        draw = self._random
        way = draw.choice(["value", "value", "value", "bytes", "cut", "text", "many"])
        text = json.dumps(self._mutated(self.push()) if way == "value" else self.push()).encode()
        if way == "bytes":
            spoilt = bytearray(text)
            for _ in range(draw.randrange(1, 9)):
                spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
            text = bytes(spoilt)
        elif way == "cut":
            text = text[: draw.randrange(len(text))]
        elif way == "text":
            text = draw.choice(TEXTS)
        elif way == "many":
            reports = [{"step": step} for step in range(draw.choice([999, 1001, 5000]))]
            text = json.dumps({"reports": reports, "elapsed": 1}).encode()
        return replace(self._request(text), kind=f"body: {way}", reusable=True)

    def _mutated(self, push: dict[str, Any]) -> Any:
        """Some values anywhere in it are replaced, go, or come under another name."""
        for _ in range(self._random.randrange(1, 4)):
            places = list(_places(push))
            holder, key = self._random.choice(places) if places else (push, "reports")
            value: Any = copy.deepcopy(self._random.choice(ODD))
            if isinstance(holder, list):
                holder[key] = value
            elif (way := self._random.random()) < 0.15:
                holder.pop(key, None)
            elif way < 0.3:
                holder[self._random.choice(["", "step", "métrics", "__proto__", "x" * 200])] = value
            else:
                holder[key] = value
        return push

    # --- framing --------------------------------------------------------------------------------------------------

    def _framing(self) -> Case:
        text = json.dumps(self.push()).encode()
        ways: dict[str, Callable[[bytes], Case]] = {
            "too short a length": lambda b: self._request(b, f"Content-Length: {len(b) // 2}"),
            "too long a length": lambda b: replace(self._request(b, f"Content-Length: {len(b) + 9}"), whole=False),
            "two lengths": lambda b: self._request(b, f"Content-Length: {len(b)}", "Content-Length: 3"),
            "no length": lambda b: self._request(b, "X-No-Length: 1"),
            "a length below 0": lambda b: self._request(b, "Content-Length: -1"),
            "a length with a sign": lambda b: self._request(b, f"Content-Length: +{len(b)}"),
            "a length of 400 digits": lambda b: self._request(b, f"Content-Length: {'9' * 400}"),
            "a huge length": lambda b: self._request(b, "Content-Length: 10000000000"),
            "length and chunks": lambda b: self._request(
                _chunks(b), f"Content-Length: {len(b)}", "Transfer-Encoding: chunked"
            ),
            "odd chunks": lambda b: self._request(b"zz\r\n" + b + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
            "a chunk of 16 EiB": lambda b: replace(
                self._request(b"f" * 16 + b"\r\n" + b, "Transfer-Encoding: chunked"), whole=False
            ),
            "a broken chunk": lambda b: replace(
                self._request(_chunks(b)[:-7], "Transfer-Encoding: chunked"), whole=False
            ),
            "chunks twice": lambda b: self._request(
                _chunks(b), "Transfer-Encoding: chunked", "Transfer-Encoding: identity"
            ),
            "chunks, spelled oddly": lambda b: self._request(_chunks(b), "Transfer-Encoding: xchunked"),
            "space before the colon": lambda b: self._request(_chunks(b), "Transfer-Encoding : chunked"),
            "a request inside": lambda b: self._request(b"0\r\n\r\n" + self._request(b).data, "Content-Length: 5"),
            "chunks that are sound": lambda b: self._request(_chunks(b), "Transfer-Encoding: chunked"),
            "an expectation": lambda b: self._request(b, f"Content-Length: {len(b)}", "Expect: the-impossible"),
            "compressed": lambda b: self._request(b, f"Content-Length: {len(b)}", "Content-Encoding: gzip"),
        }
        kind = self._random.choice(list(ways))
        return replace(ways[kind](text), kind=f"framing: {kind}")

    # --- heads ----------------------------------------------------------------------------------------------------

    def _head(self) -> Case:
        text = json.dumps(self.push()).encode()
        sound = self._request(text)
        flood = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 20) for number in range(self._random.choice([100, 4000])))
        first, _, rest = sound.head.partition(b"\r\n")
        ways = {
            "a flood of headers": first + b"\r\n" + flood + rest,
            "a long header": first + b"\r\nX: " + b"y" * 100_000 + b"\r\n" + rest,
            "a long path": b"POST /" + b"v" * 20_000 + b" HTTP/1.1\r\n" + rest,
            "another method": b"PATCH" + sound.head[4:],
            "an odd method": b"P\x00ST" + sound.head[4:],
            "a path with zeros": first.replace(b"reports", b"rep\x00rts") + b"\r\n" + rest,
            "a path that climbs": first.replace(b"/v1", b"/../../v1") + b"\r\n" + rest,
            "an absolute URL": first.replace(b"/v1", b"http://[::1/v1") + b"\r\n" + rest,
            "another version": first.replace(b"1.1", b"9.9") + b"\r\n" + rest,
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 50,
            "a folded header": first + b"\r\nX: a\r\n b\r\n" + rest,
            "line feeds alone": sound.head.replace(b"\r\n", b"\n"),
            "an upgrade": first + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + rest,
            "bytes": bytes(self._random.randrange(256) for _ in range(200)) + b"\r\n\r\n",
        }
        kind = self._random.choice(list(ways))
        return Case(f"head: {kind}", ways[kind], text)

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _token(self) -> Case:
        """A sound push under a token that is another's, or that was tampered with, or is not where it belongs."""
        draw, text = self._random, json.dumps(self.push()).encode()
        if draw.random() < 0.3:
            kind = draw.choice(list(self._tokens))
            return replace(self._request(text, token=self._tokens[kind]), kind=f"token: {kind or 'sound'}")
        if draw.random() < 0.3:
            case = self._under(b"Authorization: Bearer " + self._tampered(), text)
            return replace(case, kind="token: tampered with", proven=False)
        return self._misplaced(text)

    def _tampered(self) -> bytes:
        """A genuine token after something was done to it, or what never was one."""
        draw, genuine, *others = self._random, *(token.encode("latin-1") for token in self._tokens.values())
        flipped = bytearray(genuine)
        for place in draw.sample(range(len(genuine)), draw.randrange(1, 4)):
            flipped[place] ^= 1 << draw.randrange(8)
        spliced, which = genuine.split(b"."), draw.randrange(1, 3)
        spliced[which] = draw.choice([other for other in others if b"." in other]).split(b".")[which]
        place = draw.randrange(len(genuine))
        ways = [
            bytes(flipped),
            b".".join(spliced),
            genuine[:place],
            genuine[place + 1 :],
            genuine[:place] + draw.randbytes(1) + genuine[place:],
            genuine + draw.choice([b"=", b".", b".e30", b"\x00", b";", b"A", b"A" * 1000, b"A" * 7000, b"A" * 60_000]),
            genuine.swapcase(),
            genuine.replace(b".", b"%2E"),
            b'"' + genuine + b'"',
            draw.randbytes(draw.randrange(1, 300)),
            b".".join(base64.urlsafe_b64encode(draw.randbytes(60)) for _ in range(3)),
        ]
        return draw.choice([*ways, bytes(flipped)])

    def _misplaced(self, text: bytes) -> Case:
        """A push whose genuine token is not what its header Authorization says, as far as a client can send that."""
        draw, genuine = self._random, self._tokens[""].encode()
        bearer, nothing = b"Authorization: Bearer ", b"X: y"
        scheme = draw.choice([b"bearer", b"BEARER", b"Basic", b"Bearer\t", b"Bearer ", b"Token", b"Bearer:", b""])
        header = draw.choice([b"X-Authorization", b"Proxy-Authorization", b"Authorization_", b"Cookie", b"Host", b""])
        between = draw.choice([b"\n", b"\r", b"\x00", b"\x0b", b"\r\n ", b"\r\n\t", b"\xe2\x80\xa8"])
        trailer = _chunks(text)[:-2] + bearer + genuine + b"\r\n\r\n"
        unproven = self._under(nothing, text)
        ways = {
            "another scheme": self._under(b"Authorization: " + scheme + b" " + genuine, text),
            "another header": self._under(header + b": Bearer " + genuine, text),
            "a colon too late": self._under(b"Authorization : Bearer " + genuine, text),
            "nobody's before it": self._under(bearer + self._tampered() + b"\r\n" + bearer + genuine, text),
            "within another header": self._under(nothing + between + bearer + genuine, text),
            "twice": self._under(bearer + genuine + draw.choice([b" ", b", ", b"\t"]) + genuine, text),
            "no token": self._under(draw.choice([bearer, b"Authorization:", b"Authorization: Bearer", nothing]), text),
            "a trailer": self._under(nothing, trailer, "Transfer-Encoding: chunked", "Trailer: Authorization"),
            "the path": replace(unproven, head=unproven.head.replace(b" HTTP", b"?access_token=" + genuine + b" HTTP")),
        }
        kind = draw.choice(list(ways))
        return replace(ways[kind], kind=f"token: {kind}", proven=False)

    def _request(self, body: bytes, *headers: str, token: str = "") -> Case:
        return self._under(f"Authorization: Bearer {token or self._tokens['']}".encode("latin-1"), body, *headers)

    def _under(self, authorization: bytes, body: bytes, *headers: str) -> Case:
        """A push with these header lines, and the one that says how long its body is where none of them does."""
        framing = [header.encode() for header in headers] or [b"Content-Length: %d" % len(body)]
        lines = [f"POST {PATH} HTTP/1.1".encode(), b"Host: halvard", authorization, *framing]
        return Case("", b"\r\n".join(lines) + b"\r\n\r\n", body)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside, as what holds it and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _chunks(body: bytes) -> bytes:
    pieces = [body[start : start + 50] for start in range(0, len(body), 50)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
