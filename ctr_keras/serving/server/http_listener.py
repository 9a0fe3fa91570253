"""HTTP that slow, broken or hostile clients cannot hang."""

import contextlib
import http.server
import io
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from ctr_keras.serving.server.limits import Limits
from ctr_keras.serving.server.rest_api import Response, error_response

_Respond = Callable[[str, str, bytes, str | None], Response]
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: 33\r\n\r\n"
    b'{"error":"Too many connections."}'
)


class HttpListener:
    """Answers HTTP requests, a thread a connection.

    A request must be there, whole, `read_seconds` after its first byte, and its size must be known
    beforehand.

    Args:
        address: Host and port; port 0 takes a free one.
        respond: From verb, path, body and `Authorization` to the response.
        limits: Sizes and times.
        tls: Encrypts, if given.
    """

    def __init__(
        self,
        address: tuple[str, int],
        respond: _Respond,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ):
        self._server = _Server(address, respond, limits, tls)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="http", daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Take no more requests and finish those that came; whether they were done in time."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        return self._server.drain(seconds)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address, respond: _Respond, limits: Limits, tls: ssl.SSLContext | None):
        self.respond, self.limits, self.tls = respond, limits, tls
        self.draining = False
        self._places = threading.BoundedSemaphore(limits.connections)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._idle: set[socket.socket] = set()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def get_request(self):
        connection, client = super().get_request()
        if self.tls is not None:
            # The handshake waits for the client: it is done in the connection's own thread.
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, client

    def process_request(self, request, client_address):
        if not self._places.acquire(blocking=False):
            with contextlib.suppress(OSError):
                if self.tls is None:
                    request.settimeout(0)
                    request.send(_TOO_MANY)
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)
            self._places.release()

    def handle_error(self, request, client_address):
        """A connection that broke is the client's affair; `respond` catches our own errors."""

    @contextlib.contextmanager
    def idling(self, connection: socket.socket):
        """Mark a connection on which nothing is under way; yields whether it may wait for more."""
        with self._lock:
            self._idle.add(connection)
            may_wait = not self.draining
        try:
            yield may_wait
        finally:
            with self._lock:
                self._idle.discard(connection)

    def drain(self, seconds: float) -> bool:
        with self._lock:
            self.draining = True
            for connection in self._idle:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            time.sleep(0.005)
        return not self._open


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # so that what cannot be read gets a status as well
    server_version, sys_version = "ctr-keras", ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: Any
    rfile: Any
    _refused = False

    def setup(self):
        if self.server.tls is not None:
            self.request.settimeout(self.server.limits.read_seconds)
            self.request.do_handshake()
        super().setup()
        self._reader = _DeadlineReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self):
        limits = self.server.limits
        self.close_connection = True
        self._reader.give(limits.idle_seconds)
        with self.server.idling(self.connection) as may_wait:
            if not may_wait or not self._has_more():
                return
        self._reader.give(limits.read_seconds)
        super().handle_one_request()

    def handle_expect_100(self):
        allowed = super().handle_expect_100()
        self.wfile.flush()  # The client waits for it.
        return allowed

    def finish(self):
        super().finish()
        if self._refused:
            self._discard_rest()

    def do_GET(self):
        if "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # Its body must not be taken for the next request.
        self._respond(b"")

    def do_POST(self):
        size = self._body_size()
        if size is None:
            return
        if size > self.server.limits.request_bytes:
            most = self.server.limits.request_bytes
            return self.send_error(413, f"A request may have {most:,} bytes, not {size:,}")
        try:
            body = self.rfile.read(size)
        except TimeoutError:
            return self.send_error(408, "The request did not arrive in time")
        if len(body) == size:  # else the client has gone
            self._respond(body)
        else:
            self.close_connection = True

    def send_error(self, code, message=None, explain=None):
        """In JSON; what is left of the request is not read."""
        self.close_connection = self._refused = True
        self._send(error_response(code, message or self.responses[code][0]))

    def log_message(self, *args):
        """Requests are counted, not logged."""

    def _respond(self, body: bytes) -> None:
        token = self.headers.get("Authorization")
        self._send(self.server.respond(self.command, self.path, body, token))

    def _send(self, response: Response) -> None:
        self.close_connection = self.close_connection or self.server.draining
        self.connection.settimeout(self.server.limits.read_seconds)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(response.body)

    def _body_size(self) -> int | None:
        if "Transfer-Encoding" in self.headers or "Content-Length" not in self.headers:
            return self.send_error(411, "The request must have a Content-Length")
        sizes = set(self.headers.get_all("Content-Length", []))
        size = sizes.pop()
        if sizes or not (size.isascii() and size.isdigit()) or len(size) > 18:
            return self.send_error(400, "Malformed Content-Length")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            return self.send_error(415, "The body must not be compressed")
        return int(size)

    def _discard_rest(self) -> None:
        """Give the client the time to read why its request was not read."""
        self._reader.give(1.0)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self._reader.readinto(bytearray(65536)):
                pass

    def _has_more(self) -> bool:
        try:
            return bool(self.rfile.peek(1))
        except (TimeoutError, OSError):
            return False


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment; a timeout of the socket itself begins anew with each byte."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._until = 0.0

    def give(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("The client is too slow")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
