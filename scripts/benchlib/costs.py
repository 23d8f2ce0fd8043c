"""What the plugin costs before it moves anything, and while it waits: its start in parts, an idle forward, its file and
its build. Each takes a `Case` and gives {row: value}, as in `measures`."""

import contextlib
import os
import select
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from .world import Failed, Forward

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE_SECONDS = 30


class Tap:
    """Carries one connection to the gateway and notes when something was seen of it."""

    def __init__(self, url):
        self.gateway, self.seen = urllib.parse.urlsplit(url), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.carry, daemon=True).start()

    def through(self, stream_url):
        """The same URL with this in the gateway's place."""
        parts = urllib.parse.urlsplit(stream_url)
        return parts._replace(netloc=f"127.0.0.1:{self.listener.getsockname()[1]}").geturl()

    def carry(self):
        with contextlib.suppress(OSError):
            inner, _ = self.listener.accept()
            self.seen.append(("connected", time.perf_counter()))
            outer = socket.create_connection((self.gateway.hostname, self.gateway.port))
            for side in (inner, outer):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with inner, outer:
                while True:
                    for side in select.select([inner, outer], [], [])[0]:
                        piece = side.recv(1 << 16)
                        if not piece:
                            return
                        self.seen.append(("up" if side is inner else "down", time.perf_counter()))
                        (outer if side is inner else inner).sendall(piece)

    def times(self, what):
        return [time for kind, time in self.seen if kind == what]


def start(case):
    """From exec to the open port over TLS, and where the time goes."""
    parts = {}
    for _ in range(5):
        tap = Tap(case.gateway.url)
        with Forward(str(case.plugin), case.gateway, case.servers.ports["echo"], stream=tap.through) as forward:
            connected, up, opened = tap.times("connected"), tap.times("up"), forward.began + forward.opened_after
            tap.listener.close()
            if not connected or len(up) < 3:
                raise Failed("it went another way")
            # The client's hello, then the end of its handshake and the request, then the token.
            steps = [forward.began, connected[0], up[1], up[2], opened]
            for name, first, last in zip(STEPS, steps, steps[1:]):
                parts.setdefault(name, []).append((last - first) * 1e3)
            parts.setdefault("exec to port open, TLS", []).append(forward.opened_after * 1e3)
    return {(name, "ms"): statistics.median(values) for name, values in parts.items()}


STEPS = [
    "start: process, settings, credentials, trust store",
    "start: TLS handshake",
    "start: websocket upgrade",
    "start: handshake with the agent, listening",
]


def idle(case):
    seconds = max(5, IDLE_SECONDS * case.scale)
    with case.forward("echo") as forward:
        # What opening has left behind settles.
        time.sleep(2)
        before, used = switches(forward.process.pid), forward.cpu()
        time.sleep(seconds)
        after = switches(forward.process.pid)
        rows = {
            (f"idle forward: context switches in {IDLE_SECONDS} s", "times"): (after - before) * IDLE_SECONDS / seconds,
            (f"idle forward: CPU in {IDLE_SECONDS} s", "ms"): (forward.cpu() - used) * 1e3 * IDLE_SECONDS / seconds,
        }
        memory = rollup(forward.process.pid)
        for name, key in (("resident memory", "Rss"), ("private dirty memory", "Private_Dirty")):
            rows[f"idle forward: {name}", "MiB"] = memory[key] / 1024
        return rows


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/status") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


def rollup(pid):
    """Names and KiB of /proc/<pid>/smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}


def size(case):
    return {("size of the program", "MiB"): os.path.getsize(case.plugin) / (1 << 20)}


def build(case):
    """A build from nothing but downloaded crates, and how many crates are in the program."""
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=ROOT, check=True)
        begin = time.perf_counter()
        command = ["cargo", "build", "--release", "--locked", "--quiet", "--bin", "session-manager-plugin", "--target-dir", folder]
        subprocess.run(command, cwd=ROOT, check=True)
        took = time.perf_counter() - begin
    listed = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    crates = set(subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines())
    return {("release build from nothing", "s"): took, ("crates in the program", "crates"): len(crates)}
