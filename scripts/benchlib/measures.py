"""The measurements. Each takes a `Case` and gives {row: value}; a row is (label, unit)."""

import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from . import callers, costs, paths
from .world import BLOCK, REQUEST, Failed, Forward, receive, receive_pattern, send_pattern

# Environments: the simulator's arguments. `service`: as at AWS, paced agent and the service's limit in force.
ENVIRONMENTS = {
    "service": [],
    "tls": ["--tls-ca"],
    "unpaced": ["--unpaced", "--message-limit", "off"],
    "unpaced16": ["--unpaced", "--message-limit", "off", "--payload", "16384"],
    "cuts": ["--cut-every", "450", "--accept-old-urls"],
    "loss1": ["--loss-up", "0.01", "--loss-down", "0.01"],
    "loss5": ["--loss-up", "0.05", "--loss-down", "0.05"],
}
NO_RATE = {"SSM_PLUGIN_MESSAGE_RATE": "0"}
BIG = {**NO_RATE, "SSM_PLUGIN_MAX_PAYLOAD": "16384"}
ECHO, STALL_LIMIT = 32, 25.0


class Case:
    """One run of one measurement: which plugin (None: plain TCP), against what, how large."""

    def __init__(self, plugin, kind, gateway, servers, scale):
        self.plugin, self.kind, self.gateway, self.servers, self.scale = plugin, kind, gateway, servers, scale

    def forward(self, server, settings=None, limit=60.0):
        # The official plugin has no settings.
        settings = None if self.kind == "official" else settings
        return Forward(self.plugin and str(self.plugin), self.gateway, self.servers.ports[server], settings, limit)

    def size(self, megabytes):
        return max(200_000, int(megabytes * self.scale * 1e6))


def transfer(case, name, up, megabytes, settings=None):
    # The official plugin uploads one KiB a millisecond: no need to wait for all of it.
    if up and case.kind == "official":
        megabytes = min(megabytes, 6)
    size = case.size(megabytes * (8 if case.kind == "tcp" else 1))
    with case.forward("sink" if up else "source", settings, STALL_LIMIT) as forward, forward.connect() as connection:
        before, begin = forward.cpu(), time.perf_counter()
        connection.sendall(struct.pack(">Q", size))
        try:
            if up:
                send_pattern(connection, size)
                receive(connection, 1)
            else:
                receive_pattern(connection, size)
        except (TimeoutError, EOFError) as error:
            raise Failed("stalled") from error
        took = time.perf_counter() - begin
        rows = {(name, "MB/s"): size / 1e6 / took}
        if before is not None:
            rows[f"{name}: CPU", "ms/MB"] = (forward.cpu() - before) * 1e3 / (size / 1e6)
            rows[f"{name}: peak memory", "MiB"] = forward.peak_mib()
        traffic = case.gateway.report(forward.session_id).get("up") if up and forward.session_id else None
        if traffic:
            rows[f"{name}: data messages in the busiest 2 s", "msgs"] = traffic["peak_2s"]
        return rows


def upload(case):
    return transfer(case, "upload, service's limit", True, 9)


def upload_long(case):
    return transfer(case, "upload of 60 MB, service's limit", True, 60)


def download(case):
    return transfer(case, "download, agent's pace", False, 6)


def upload_1k(case):
    return transfer(case, "upload, no limit, 1 KiB", True, 60, NO_RATE)


def upload_16k(case):
    return transfer(case, "upload, no limit, 16 KiB", True, 60, BIG)


def download_1k(case):
    return transfer(case, "download, unpaced agent, 1 KiB", False, 60)


def download_16k(case):
    return transfer(case, "download, unpaced agent, 16 KiB", False, 120)


def echoes(connection, seconds, most):
    message, times, deadline = os.urandom(ECHO), [], time.monotonic() + seconds
    while len(times) < most and time.monotonic() < deadline:
        begin = time.perf_counter()
        connection.sendall(message)
        receive(connection, ECHO)
        times.append((time.perf_counter() - begin) * 1e3)
    if len(times) < 5:
        raise Failed(f"{len(times)} echoes in {seconds} s")
    times.sort()
    return times[len(times) // 2], times[int(len(times) * 0.99)]


def echo_rows(name, values):
    return {(f"{name}, p50", "ms"): values[0], (f"{name}, p99", "ms"): values[1]}


def echo(case, name="echo, real pace"):
    with case.forward("echo", None, 5.0) as forward, forward.connect() as connection:
        echoes(connection, 0.3, 50)
        rows = echo_rows(name, echoes(connection, 4 * case.scale + 1, 1000))
        if forward.process:
            rows["memory, one idle forward", "MiB"] = forward.peak_mib()
        return rows


def echo_unpaced(case):
    return echo(case, "echo, unpaced agent")


def echo_loaded(case):
    """A connection asks while another uploads in the same session."""
    with case.forward("mixed", None, 10.0) as forward, forward.connect() as bulk, forward.connect() as connection:
        connection.sendall(b"E")
        echoes(connection, 0.3, 20)
        ended = threading.Event()
        feeder = threading.Thread(target=flood, args=(bulk, ended))
        feeder.start()
        try:
            time.sleep(1.5)
            return echo_rows("echo under a bulk upload in the same session", echoes(connection, 6, 500))
        except TimeoutError as error:
            raise Failed("no echo in 10 s") from error
        finally:
            ended.set()
            bulk.shutdown(socket.SHUT_RDWR)
            feeder.join(15)


def flood(connection, ended):
    try:
        while not ended.is_set():
            connection.sendall(BLOCK[: 1 << 16])
    except OSError:
        pass


def stalled(case):
    """One connection's reader stops, with more on its way than sockets hold; how fast is another?"""
    with case.forward("source", None, 10.0) as forward, forward.connect() as lazy:
        lazy.sendall(struct.pack(">Q", 7_000_000))
        receive(lazy, 1000)
        time.sleep(0.5)
        size = case.size(4)
        with forward.connect() as connection:
            begin = time.perf_counter()
            connection.sendall(struct.pack(">Q", size))
            receive_pattern(connection, size)
            return {("download beside a stalled reader", "MB/s"): size / 1e6 / (time.perf_counter() - begin)}


def start(case):
    times = []
    for _ in range(5):
        with case.forward("echo") as forward:
            times.append(forward.opened_after * 1e3)
    return {("exec to port open", "ms"): statistics.median(times)}


def version(case):
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        subprocess.run([case.plugin, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - begin) * 1e3)
    return {("--version", "ms"): statistics.median(times)}


def connections(case, count, each, name):
    with case.forward("echo", NO_RATE, 30.0) as forward:
        intact, begin = [], time.perf_counter()

        def one():
            try:
                with forward.connect() as connection:
                    feeder = threading.Thread(target=send_pattern, args=(connection, each))
                    feeder.start()
                    receive_pattern(connection, each)
                    feeder.join()
                    intact.append(1)
            except (OSError, Failed):
                pass

        threading.stack_size(256 << 10)
        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
        if len(intact) < count:
            raise Failed(f"{len(intact)} of {count} intact in {took:.0f} s")
        rows = {(name, "s"): took}
        if forward.process:
            rows[f"{name}: peak memory", "MiB"] = forward.peak_mib()
        return rows


def connections_1(case):
    return connections(case, 1, 20_000, "1 connection, 20 KB echo")


def connections_50(case):
    return connections(case, 50, 20_000, "50 connections, 20 KB echo each")


def connections_1000(case):
    return connections(case, 1000, 2_000, "1,000 connections, 2 KB echo each")


def sessions(case, up):
    """Eight connections through one session and through four."""
    rows, way = {}, "upload" if up else "download"
    for count in (1, 4):
        size = case.size(1.0 * count)
        with case.forward("sink" if up else "source", {"SSM_PLUGIN_SESSIONS": str(count)}, STALL_LIMIT) as forward:
            # The additional sessions take a moment to open; connections go to what is there.
            time.sleep(1.5 if count > 1 else 0)
            failures = []

            def one():
                try:
                    with forward.connect() as connection:
                        connection.sendall(struct.pack(">Q", size))
                        if up:
                            send_pattern(connection, size)
                            receive(connection, 1)
                        else:
                            receive_pattern(connection, size)
                except (OSError, EOFError, Failed) as error:
                    failures.append(error)

            begin = time.perf_counter()
            threads = [threading.Thread(target=one) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise Failed(str(failures[0]))
            rows[f"8 connections, {way}, {count} session{'s' if count > 1 else ''}", "MB/s"] = (
                8 * size / 1e6 / (time.perf_counter() - begin)
            )
    return rows


def sessions_up(case):
    return sessions(case, True)


def sessions_down(case):
    return sessions(case, False)


def scp(case):
    """OpenSSH with the plugin as its ProxyCommand, against `sshd -i`."""
    ssh = case.servers.ssh
    proxy = f"{sys.executable} {ssh.bench} --proxy {case.gateway.url} {case.servers.ports['sshd']} {case.plugin}"
    if case.kind == "tcp":
        proxy = f"{sys.executable} {ssh.bench} --proxy-tcp {case.servers.ports['sshd']}"
    command = ["scp", "-q", "-F", "none", "-i", ssh.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
               "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", f"ProxyCommand={proxy}"]
    size, rows = case.size(4), {}
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/a", "wb") as file:
            file.write((BLOCK * (size // len(BLOCK) + 1))[:size])
        for way, paths in (("up", [f"{folder}/a", f"{ssh.user}@target:{folder}/b"]), ("down", [f"{ssh.user}@target:{folder}/b", f"{folder}/c"])):
            begin = time.perf_counter()
            try:
                subprocess.run(command + paths, stdin=subprocess.DEVNULL, check=True, timeout=90, capture_output=True)
            except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                raise Failed("scp " + (getattr(error, "stderr", b"") or b"timed out").decode(errors="replace").strip()[-50:]) from error
            rows[f"scp {way}", "MB/s"] = size / 1e6 / (time.perf_counter() - begin)
        with open(f"{folder}/a", "rb") as a, open(f"{folder}/c", "rb") as c:
            if a.read() != c.read():
                raise Failed("scp: other bytes")
    return rows


def intact(case, megabytes, name):
    """The time in which an echo comes back whole, over a bad link."""
    size = int(megabytes * 1e6)
    with case.forward("echo", None, STALL_LIMIT) as forward, forward.connect() as connection:
        begin = time.perf_counter()
        feeder = threading.Thread(target=quietly_send, args=(connection, size), daemon=True)
        feeder.start()
        receive_pattern(connection, size)
        return {(name, "s"): time.perf_counter() - begin}


def quietly_send(connection, size):
    try:
        send_pattern(connection, size)
    except OSError:
        pass


def cuts(case):
    return intact(case, 4, "4 MB echo, websocket cut every 0.45 s")


def loss_1(case):
    return intact(case, 1, "1 MB echo, 1 % lost each way")


def loss_5(case):
    return intact(case, 1, "1 MB echo, 5 % lost each way")


def half_close(case):
    with case.forward("answer", None, 10.0) as forward, forward.connect() as connection:
        begin = time.perf_counter()
        connection.sendall(REQUEST)
        connection.shutdown(socket.SHUT_WR)
        try:
            if receive(connection, 10) != b"the answer":
                raise Failed("another answer")
        except (EOFError, OSError) as error:
            raise Failed("answer lost") from error
        return {("answer 0.3 s after half-close", "s"): time.perf_counter() - begin}


# name: (environment, function, plain TCP too, official too)
MEASURES = {
    "version": ("service", version, False, True),
    "open": ("service", start, False, True),
    "open-tls": ("tls", costs.start, False, True),
    "idle": ("service", costs.idle, False, True),
    "size": ("service", costs.size, False, True),
    "echo": ("service", echo, True, True),
    "echo-unpaced": ("unpaced", echo_unpaced, True, True),
    "echo-loaded": ("service", echo_loaded, False, True),
    "up": ("service", upload, False, True),
    "up-60": ("service", upload_long, False, False),
    "down": ("service", download, False, True),
    "up-1k": ("unpaced", upload_1k, True, True),
    "up-16k": ("unpaced", upload_16k, False, True),
    "down-1k": ("unpaced", download_1k, True, True),
    "down-16k": ("unpaced16", download_16k, False, True),
    "connections-1": ("unpaced", connections_1, True, True),
    "connections-50": ("unpaced", connections_50, True, True),
    "connections-1000": ("unpaced", connections_1000, True, True),
    "sessions-up": ("service", sessions_up, False, False),
    "sessions-down": ("service", sessions_down, False, False),
    "scp": ("service", scp, True, True),
    "ssh-true": ("service", callers.ssh_true, False, True),
    "stalled": ("unpaced", stalled, False, True),
    "half-close": ("service", half_close, True, True),
    "cuts": ("cuts", cuts, False, True),
    "loss-1": ("loss1", loss_1, False, True),
    "loss-5": ("loss5", loss_5, False, True),
    "long-paths": ("service", paths.long_paths, False, True),
    "dead-typing": ("service", paths.dead_typing, False, True),
    "dead-idle": ("service", paths.dead_idle, False, True),
    "dead-download": ("service", paths.dead_download, False, True),
    "build": ("service", costs.build, False, False),
}
# Once is enough: long, or yes and no.
ONCE = {"size", "build", "dead-typing", "dead-idle", "dead-download", "up-60", "cuts", "loss-1", "loss-5", "half-close", "stalled", "scp"}
