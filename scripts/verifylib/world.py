"""The AWS CLI with the plugin on its PATH, and the network between the plugin and the service."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
import urllib.parse
from pathlib import Path

from .wire import Recording

SESSION = re.compile(rb"Starting session with SessionId: (\S+)")


class Broken(Exception):
    """What was expected did not happen; the text says what did."""


class NotRun(Exception):
    """There is nothing to run this against; the text says what is missing."""


class World:
    """One run: which CLI, plugin, account and instance."""

    def __init__(self, options):
        self.options, self.sessions, self.folder = options, [], tempfile.mkdtemp(prefix="live-")
        folder = Path(self.folder, "bin")
        folder.mkdir()
        (folder / "session-manager-plugin").symlink_to(Path(options.plugin).resolve())
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("SSM_PLUGIN_")}
        self.env.update(PATH=f"{folder}:{os.environ['PATH']}", AWS_PAGER="", SSM_PLUGIN_STATUS="always")

    def aws(self, *words):
        """The command line of the CLI."""
        given = {"--profile": self.options.profile, "--region": self.options.region, "--endpoint-url": self.options.endpoint_url}
        return [self.options.aws, *words, *(part for name, value in given.items() if value for part in (name, value))]

    def session(self, document=None, parameters=None, env=None, terminal=None):
        words = ["ssm", "start-session", "--target", self.options.target]
        if document:
            words += ["--document-name", document, "--parameters", parameters]
        return Session(self, self.aws(*words), env or {}, terminal)

    def port(self, port, host=None, env=None):
        """A forwarded port, open."""
        name = "AWS-StartPortForwardingSession" + ("ToRemoteHost" if host else "")
        given = f'"portNumber":["{port}"],"localPortNumber":["0"]' + (f',"host":["{host}"]' if host else "")
        session = self.session(name, "{" + given + "}", env)
        session.local = int(session.wait(rb"Port (\d+) opened")[1])
        return session

    def is_local(self):
        """Whether the service is a stand-in on this machine."""
        host = urllib.parse.urlsplit(self.options.endpoint_url or "").hostname or ""
        return host == "localhost" or host.startswith("127.") or host == "::1"

    def close(self):
        for session in self.sessions:
            session.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """A CLI that runs, with all it has said so far."""

    def __init__(self, world, command, env, terminal):
        self.out, self.err, self.local, self.master = b"", b"", None, None
        self.patience = world.options.patience
        self.record = Path(world.folder, f"wire-{len(world.sessions)}")
        env = {**world.env, "SSM_PLUGIN_WIRE_LOG": str(self.record), **env}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if terminal:
            self.master, slave = pty.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal, 0, 0))
            streams = {"stdin": slave, "stdout": slave}
        self.process = subprocess.Popen(
            command, **streams, stderr=subprocess.PIPE, env=env, start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,
        )
        world.sessions.append(self)
        if terminal:
            os.close(slave)
        self.changed = threading.Condition()
        self.readers = []
        for name, file in (("out", self.master or self.process.stdout.fileno()), ("err", self.process.stderr.fileno())):
            self.readers.append(threading.Thread(target=self.read, args=(name, file), daemon=True))
            self.readers[-1].start()

    def read(self, name, file):
        while True:
            try:
                piece = os.read(file, 65536)
            except OSError:  # a terminal whose other end is closed
                piece = b""
            with self.changed:
                setattr(self, name, getattr(self, name) + piece)
                self.changed.notify_all()
            if not piece:
                return

    def send(self, text):
        if self.master:
            os.write(self.master, text)
        else:
            self.process.stdin.write(text)
            self.process.stdin.flush()

    def wait(self, pattern, limit=None):
        """Until stdout holds this."""
        limit = limit or self.patience
        deadline = time.monotonic() + limit
        with self.changed:
            while not (found := re.search(pattern, self.out)):
                ended = self.process.poll() is not None and not self.readers[0].is_alive()
                if ended or time.monotonic() > deadline:
                    raise Broken(f"{'the session ended' if ended else f'nothing within {limit:.0f} s'}: {self.words()}")
                self.changed.wait(0.1)
            return found

    def finish(self):
        """Until it has ended by itself."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            raise Broken(f"the session did not end within {self.patience:.0f} s: {self.words()}") from None
        for reader in self.readers:
            reader.join(5)
        return self.out

    def end(self):
        """As Ctrl-C does, which the CLI leaves to the plugin."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.kill()
        return self.recording()

    def kill(self):
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def words(self):
        """The last that was said, for a person."""
        lines = [line.strip() for line in (self.out + b"\n" + self.err).decode(errors="replace").splitlines()]
        return " / ".join([line for line in lines if line][-3:]) or "no word"

    def id(self):
        found = SESSION.search(self.out)
        return found[1].decode() if found else None

    def recording(self):
        return Recording(self.record)

    def connect(self, limit=None):
        connection = socket.create_connection(("127.0.0.1", self.local), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(limit or self.patience)
        return connection


class Line:
    """The plugin's way to the service, which can be cut: a proxy for AWS, a relay for a stand-in, which the plugin never
    reaches through a proxy."""

    def __init__(self, world):
        self.pairs, self.upstream = [], None
        self.listener = socket.create_server(("127.0.0.1", 0))
        here = "127.0.0.1:%d" % self.listener.getsockname()[1]
        if world.is_local():
            url = urllib.parse.urlsplit(world.options.endpoint_url)
            self.fixed = (url.hostname, url.port)
            self.env = {"SSM_PLUGIN_STREAM_HOST": here}
        else:
            self.fixed = None
            url = urllib.parse.urlsplit(world.env.get("HTTPS_PROXY") or world.env.get("https_proxy") or "")
            if url.hostname:
                if url.scheme != "http" or url.username:
                    raise NotRun("the way to AWS leads through a proxy that this script cannot use")
                self.upstream = (url.hostname, url.port or 80)
            self.env = {"HTTPS_PROXY": f"http://{here}", "https_proxy": f"http://{here}"}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(connection,), daemon=True).start()

    def carry(self, inner):
        name = "ssmmessages"
        try:
            if self.fixed:
                outer = socket.create_connection(self.fixed, 20)
            else:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = inner.recv(4096)
                    if not piece:
                        return
                    head += piece
                name = head.split()[1].decode()
                host, _, port = name.rpartition(":")
                outer = socket.create_connection(self.upstream or (host, int(port)), 20)
                if self.upstream:
                    outer.sendall(head)
                else:
                    inner.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        except (OSError, ValueError, IndexError):
            return inner.close()
        if "ssmmessages" in name:
            self.pairs.append((inner, outer))
        while True:
            ready, _, _ = select.select([inner, outer], [], [], 60)
            for side in ready:
                try:
                    piece = side.recv(1 << 16)
                    (outer if side is inner else inner).sendall(piece)
                except OSError:
                    piece = b""
                if not piece:
                    for end in (inner, outer):
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RDWR)
                    return

    def cut(self):
        """Shuts the data channels down; says how many there were."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def close(self):
        self.cut()
        self.listener.close()
