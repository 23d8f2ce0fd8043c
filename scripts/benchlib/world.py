"""Gateways, plugins, TCP servers: everything a measurement stands on, ended with it."""

import contextlib
import json
import multiprocessing
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request

TARGET = "i-0123456789abcdef0"
# What is sent and compared: random, so that nothing can be gained by compressing it.
BLOCK = os.urandom(1 << 20)
TWICE = BLOCK + BLOCK


class Failed(Exception):
    """A measurement that did not come to its end; the text goes into the table."""


class Gateway:
    """The simulator as a program, or a gateway that runs already."""

    def __init__(self, program, args=(), url=None):
        self.process, self.ca = None, None
        if "--tls-ca" in args:
            # Named after this process; the simulator writes it.
            self.ca = os.path.join(tempfile.gettempdir(), f"bench-ca-{os.getpid()}.pem")
            args = [*args, self.ca]
        if url is None:
            command = [program, "--exit-with-stdin", *args]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            line = self.process.stdout.readline()
            if not line.startswith("LISTENING "):
                raise Failed("the simulator did not start")
            url = line.split()[1]
        self.url = url.rstrip("/")

    def start_session(self, document=None, **parameters):
        request = {"Target": TARGET}
        if document:
            request["DocumentName"] = document
            request["Parameters"] = {name: [str(value)] for name, value in parameters.items()}
        return request, call(self.url, "StartSession", request, self.ca)

    def report(self, session_id):
        """The simulator's own counters of a session; empty elsewhere."""
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{self.url}/sim/sessions", timeout=10) as answer:
            for session in json.load(answer):
                if session.get("id") == session_id:
                    return session
        return {}

    def close(self):
        if self.process:
            self.process.stdin.close()
            end(self.process, None)
        if self.ca:
            os.unlink(self.ca)


def call(url, operation, request, ca=None):
    headers = {
        "X-Amz-Target": f"AmazonSSM.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
        # Well-formed, but of an unknown key: the simulator checks only its form.
        "Authorization": "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/ssm/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
    }
    query = urllib.request.Request(url, json.dumps(request).encode(), headers)
    context = ssl.create_default_context(cafile=ca) if ca else None
    with urllib.request.urlopen(query, timeout=20, context=context) as answer:
        return json.loads(answer.read() or b"{}")


def plugin_command(plugin, gateway_url, request, response):
    """Command and environment as the AWS CLI makes them."""
    name = "AWS_SSM_START_SESSION_RESPONSE"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SSM_PLUGIN_"))}
    env.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_EC2_METADATA_DISABLED="true")
    env[name] = json.dumps(response)
    return [plugin, name, "us-east-1", "StartSession", "", json.dumps(request), gateway_url], env


class Forward:
    """A running plugin that forwards a port. Without a plugin: the destination itself, plain loopback TCP."""

    def __init__(self, plugin, gateway, port, settings=None, limit=60.0, stream=None):
        self.limit, self.port, self.process, self.session_id = limit, port, None, None
        if plugin is None:
            return
        request, response = gateway.start_session("AWS-StartPortForwardingSession", portNumber=port, localPortNumber=0)
        self.session_id = response["SessionId"]
        if stream:
            response["StreamUrl"] = stream(response["StreamUrl"])
        command, env = plugin_command(plugin, gateway.url, request, response)
        env.update(settings or {})
        if gateway.ca:
            env["SSL_CERT_FILE"] = gateway.ca
        # At AWS the agent has connected by the time the CLI starts the plugin.
        time.sleep(0.1)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self.port = int(wait_for(self.process.stdout, rb"Port (\d+) opened", 20)[1])
        except Failed:
            end(self.process, signal.SIGINT)
            raise
        self.opened_after = time.perf_counter() - self.began
        # Nobody may be stopped by a full pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.limit)
        return connection

    def cpu(self):
        """Seconds of CPU so far, all threads; None where the system does not say."""
        return cpu(self.process.pid) if self.process else None

    def peak_mib(self):
        return peak_mib(self.process.pid) if self.process else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            end(self.process, signal.SIGINT)


def end(process, how):
    """Ends one process that we have started: asked first, then killed."""
    if process.poll() is None:
        if how:
            process.send_signal(how)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(stream, pattern, limit):
    text, deadline = b"", time.monotonic() + limit
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            raise Failed("port not opened")
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            raise Failed("plugin ended: " + text.decode(errors="replace").strip()[-60:])
        text += piece
        if match := re.search(pattern, text):
            return match


def cpu(pid):
    try:
        total = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e9
    except OSError:
        return None


def peak_mib(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return None


class Servers:
    """Destinations in a process of their own: `echo`, `source`, `sink`, `answer`, and `sshd` where it is given."""

    def __init__(self, sshd=None):
        self.ports, listeners = {}, {}
        for name in HANDLERS | ({"sshd": None} if sshd else {}):
            listeners[name] = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.ports[name] = listeners[name].getsockname()[1]
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=serve_all, args=(listeners, sshd), daemon=True)
        self.process.start()
        for listener in listeners.values():
            listener.close()

    def close(self):
        self.process.terminate()
        self.process.join(5)


def serve_all(listeners, sshd):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.stack_size(256 << 10)
    threads = []
    for name, listener in listeners.items():
        handler = HANDLERS.get(name) or (lambda connection: serve_ssh(connection, sshd))
        threads.append(threading.Thread(target=accept_all, args=(listener, handler), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


def accept_all(listener, handler):
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handle, args=(connection, handler), daemon=True).start()


def handle(connection, handler):
    with connection, contextlib.suppress(OSError, EOFError):
        handler(connection)


def serve_echo(connection):
    while piece := connection.recv(1 << 18):
        connection.sendall(piece)


def serve_source(connection):
    """Takes a size, sends as many bytes."""
    send_pattern(connection, *struct.unpack(">Q", receive(connection, 8)))
    connection.recv(1)


def serve_sink(connection):
    """Takes a size and as many bytes, says whether they were right."""
    (size,) = struct.unpack(">Q", receive(connection, 8))
    receive_pattern(connection, size)
    connection.sendall(b"!")
    connection.recv(1)


def serve_mixed(connection):
    """Echoes after an `E`, reads and drops after anything else."""
    if receive(connection, 1) == b"E":
        return serve_echo(connection)
    while connection.recv(1 << 18):
        pass


def serve_answer(connection):
    """Reads a request, answers a moment later. (Who waits for the end of the request can get none through an agent,
    which takes the end of one direction for the end of both.)"""
    receive(connection, len(REQUEST))
    time.sleep(0.3)
    connection.sendall(b"the answer")


def serve_banner(connection):
    """Speaks first, as SSH servers do."""
    connection.sendall(b"SSH-2.0-bench\r\n")
    while connection.recv(1 << 16):
        pass


def serve_ssh(connection, command):
    subprocess.run(command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=subprocess.DEVNULL, check=False)


REQUEST = b"GET / HTTP/1.0\r\n\r\n"
HANDLERS = {"echo": serve_echo, "source": serve_source, "sink": serve_sink, "mixed": serve_mixed, "answer": serve_answer, "banner": serve_banner}


def send_pattern(connection, size):
    while size > 0:
        connection.sendall(BLOCK if size >= len(BLOCK) else BLOCK[:size])
        size -= len(BLOCK)


def receive_pattern(connection, size):
    """Receives `size` bytes and compares them."""
    done = 0
    while done < size:
        try:
            piece = connection.recv(min(1 << 18, size - done))
        except TimeoutError:
            raise Failed(f"stalled at {done / 1e6:.1f} of {size / 1e6:.1f} MB") from None
        except OSError as error:
            raise Failed(f"{error.strerror} at {done / 1e6:.1f} MB") from None
        if not piece:
            raise Failed(f"ended at {done / 1e6:.1f} of {size / 1e6:.1f} MB")
        at = done % len(BLOCK)
        if piece != TWICE[at : at + len(piece)]:
            raise Failed(f"wrong bytes at {done}")
        done += len(piece)


def receive(connection, size):
    got = bytearray()
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            raise EOFError
        got += piece
    return bytes(got)
