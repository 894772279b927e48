"""HTTP by hand, over a socket: requests that no well-behaved client would send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

TIMEOUT_S = 20.0


class Reset(Exception):
    """The connection was reset, or ended in the middle of a reply."""


@dataclass(frozen=True)
class RawReply:
    """A reply as it came; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> str:
        """The last part of a problem's type; empty if the body is no problem."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return json.loads(self.body)["type"].rpartition("/")[2]


class RawConnection:
    """A connection to 127.0.0.1 on which any bytes can be sent."""

    def __init__(self, port: int, receive_buffer: int | None = None, timeout: float = TIMEOUT_S):
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self._unread = b""

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> RawReply | None:
        """The next reply, whole; None if the server closed the connection instead."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        if status == 100:
            return RawReply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self._rest()
        return RawReply(status, headers, body)

    def closed(self) -> bool:
        """Waits for the server to close the connection; False if it sends more instead."""
        try:
            return not self._unread and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionError as error:
            raise Reset(str(error)) from error

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._unread:
            more = self._receive()
            if not more:
                if self._unread:
                    raise Reset(f"the reply ends early: {self._unread[:200]!r}")
                return None
            self._unread += more
        found, _, self._unread = self._unread.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        parts, missing = [self._unread], length - len(self._unread)
        while missing > 0:
            more = self._receive()
            if not more:
                raise Reset(f"{missing} bytes of the reply are missing")
            parts.append(more)
            missing -= len(more)
        whole = b"".join(parts)
        self._unread = whole[length:]
        return whole[:length]

    def _chunks(self) -> bytes:
        body = b""
        while True:
            size = self._until(b"\r\n")
            if size is None:
                raise Reset("the last chunk is missing")
            length = int(size.split(b";")[0], 16)
            chunk = self._exactly(length + 2)[:-2]
            if length == 0:
                return body
            body += chunk

    def _rest(self) -> bytes:
        while more := self._receive():
            self._unread += more
        whole, self._unread = self._unread, b""
        return whole


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a well-formed request."""
    fields = {"Host": "test", **({"Content-Length": str(len(body))} if body or method == "POST" else {}), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def post(path: str, body: bytes, content_type: str = "application/octet-stream", **headers: str) -> bytes:
    """The bytes of a well-formed POST."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return request("POST", path, body, {"Content-Type": content_type, **extra})


def exchange(port: int, data: bytes, timeout: float = TIMEOUT_S) -> RawReply | None:
    """One request on a connection of its own."""
    with RawConnection(port, timeout=timeout) as connection:
        connection.send(data)
        return connection.reply()
