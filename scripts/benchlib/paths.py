"""Paths to the service as travellers have them: long ones, and those that go dead without a word while new connections
work. Each measurement takes a `Case` and gives {row: value}, as in `measures`."""

import collections
import contextlib
import os
import pty
import select
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
import urllib.parse

from .world import Failed, Gateway, end, plugin_command, receive, receive_pattern, send_pattern

# Round trips in milliseconds, not counting TCP's own handshake: the path is on this machine.
ROUND_TRIPS = (0, 20, 150)
# A path that is noticed only when TCP gives up takes longer than this.
LIMIT = 75.0


class Path:
    """Carries all connections to a gateway, late by half a round trip each way. Stream URLs in the gateway's answers lead
    through it as well."""

    def __init__(self, url, round_trip=0.0):
        self.gateway, self.delay = urllib.parse.urlsplit(url), round_trip / 2
        self.generation, self.ended = 0, False
        # As many digits, since answers say how long they are.
        while True:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.port = self.listener.getsockname()[1]
            if len(str(self.port)) == len(str(self.gateway.port)):
                break
            self.listener.close()
        self.url = f"http://127.0.0.1:{self.port}"
        self.queue, self.changed = collections.deque(), threading.Condition()
        for target in (self.accept, self.deliver):
            threading.Thread(target=target, daemon=True).start()

    def die(self):
        """Existing connections stay, and carry nothing any more."""
        self.generation += 1

    def close(self):
        self.ended = True
        self.listener.close()
        with self.changed:
            self.changed.notify()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self.listener.accept()
                outer = socket.create_connection((self.gateway.hostname, self.gateway.port))
                for side in (inner, outer):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in ((inner, outer, False), (outer, inner, True)):
                    threading.Thread(target=self.read, args=(*pair, self.generation), daemon=True).start()

    def read(self, source, sink, is_answer, generation):
        theirs, ours = (f"127.0.0.1:{port}".encode() for port in (self.gateway.port, self.port))
        with contextlib.suppress(OSError):
            while True:
                piece = source.recv(1 << 16)
                if is_answer and b'"StreamUrl"' in piece:
                    piece = piece.replace(theirs, ours)
                if generation < self.generation:
                    # Neither an end nor a reset gets through.
                    return
                if not self.delay:
                    self.write(sink, piece, generation)
                else:
                    with self.changed:
                        self.queue.append((time.monotonic() + self.delay, sink, piece, generation))
                        self.changed.notify()
                if not piece:
                    return

    def deliver(self):
        while not self.ended:
            with self.changed:
                left = self.queue[0][0] - time.monotonic() if self.queue else None
                if left is None or left > 0:
                    self.changed.wait(left)
                    continue
                _, sink, piece, generation = self.queue.popleft()
            self.write(sink, piece, generation)

    def write(self, sink, piece, generation):
        if generation < self.generation:
            return
        with contextlib.suppress(OSError):
            if piece:
                sink.sendall(piece)
            else:
                sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def through(case, round_trip=0.0):
    """The case with a path before its gateway."""
    path = Path(case.gateway.url, round_trip)
    try:
        other = type(case)(case.plugin, case.kind, Gateway(None, url=path.url), case.servers, case.scale)
        yield path, other
    finally:
        path.close()


def typed(connection):
    """Sends a byte now and then until one comes back. Returns the seconds."""
    began = time.perf_counter()
    connection.settimeout(0.05)
    while time.perf_counter() - began < LIMIT:
        connection.sendall(b"k")
        with contextlib.suppress(TimeoutError):
            if connection.recv(1):
                return time.perf_counter() - began
            raise Failed("connection closed")
    raise Failed(f"nothing in {LIMIT:.0f} s")


def dead_path(case, rest, name):
    with through(case) as (path, case), case.forward("echo") as forward, forward.connect() as connection:
        connection.sendall(b"before")
        receive(connection, 6)
        time.sleep(1)
        path.die()
        time.sleep(rest)
        return {(name, "s"): typed(connection)}


def dead_typing(case):
    return dead_path(case, 0, "path dead while typing, next byte")


def dead_idle(case):
    return dead_path(case, 5, "path dead, then typing after 5 s, next byte")


def dead_download(case):
    with through(case) as (path, case), case.forward("source", limit=LIMIT) as forward, forward.connect() as connection:
        connection.sendall(struct.pack(">Q", 4_000_000))
        receive(connection, 300_000)
        path.die()
        last = time.perf_counter()
        while True:
            try:
                if not connection.recv(1 << 16):
                    raise Failed("connection closed")
            except TimeoutError:
                raise Failed(f"nothing in {LIMIT:.0f} s") from None
            now = time.perf_counter()
            # What was under way arrives without a pause.
            if now - last > 1:
                return {("path dead in a download, next byte", "s"): now - last}
            last = now


def until(case, document, parameters, wanted, with_terminal):
    """Seconds from exec until `wanted` is in the plugin's output."""
    request, response = case.gateway.start_session(document, **parameters)
    command, env = plugin_command(str(case.plugin), case.gateway.url, request, response)
    time.sleep(0.1)
    mine, theirs = pty.openpty() if with_terminal else (None, None)
    streams = {"stdin": theirs, "stdout": theirs} if with_terminal else {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True, **streams)
    try:
        text, output = b"", mine if with_terminal else process.stdout.fileno()
        while not any(word in text.partition(b"SessionId:")[2] for word in wanted):
            left = began + 20 - time.perf_counter()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                raise Failed("no output")
            text += os.read(output, 1 << 16)
        return time.perf_counter() - began
    finally:
        end(process, signal.SIGTERM)
        for descriptor in filter(None, (mine, theirs)):
            os.close(descriptor)


def first_connection(case):
    """Milliseconds from exec to the open port, and from there to the answer of a client that is quick."""
    with case.forward("echo", limit=5.0) as forward:
        began = time.perf_counter()
        with forward.connect() as connection:
            connection.sendall(b"x")
            receive(connection, 1)
            return forward.opened_after * 1e3, (time.perf_counter() - began) * 1e3


def medians(measure, count):
    """Column by column, of the tries that did not fail. The official plugin fails in some: it loses or keeps the first bytes."""
    tries, failure = [], None
    for _ in range(count):
        try:
            tries.append(measure())
        except (Failed, OSError, EOFError) as error:
            failure = error
    if len(tries) * 2 < count:
        raise failure
    return [statistics.median(column) for column in zip(*tries, strict=True)]


def long_path(case, milliseconds):
    rows, name, count = {}, f"round trip {milliseconds} ms", 5 if case.scale == 1 else 1
    ssh = {"portNumber": case.servers.ports["banner"]}
    with through(case, milliseconds / 1e3) as (_, case):
        opened, answered = medians(lambda: first_connection(case), count)
        rows[f"{name}: exec to port open", "ms"] = opened
        rows[f"{name}: first connection, first byte", "ms"] = answered
        (prompt,) = medians(lambda: [until(case, None, {}, (b"$ ", b"# "), True) * 1e3], count)
        rows[f"{name}: exec to prompt", "ms"] = prompt
        (banner,) = medians(lambda: [until(case, "AWS-StartSSHSession", ssh, (b"SSH-2.0-",), False) * 1e3], count)
        rows[f"{name}: exec to ssh banner", "ms"] = banner
        size = case.size(3)
        for way in ("up", "down"):
            with case.forward("sink" if way == "up" else "source") as forward, forward.connect() as connection:
                began = time.perf_counter()
                connection.sendall(struct.pack(">Q", size))
                if way == "up":
                    send_pattern(connection, size)
                    receive(connection, 1)
                else:
                    receive_pattern(connection, size)
                rows[f"{name}: {way}", "MB/s"] = size / 1e6 / (time.perf_counter() - began)
    return rows


def long_paths(case):
    return {row: value for milliseconds in ROUND_TRIPS for row, value in long_path(case, milliseconds).items()}
