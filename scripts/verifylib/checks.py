"""What is tried. Each check takes a `Run` and gives the words for the report; it raises `Broken` or `NotRun`."""

import hashlib
import re
import shlex
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from . import instance
from .instance import BLOCK
from .world import Broken, Line, NotRun, Session

SHELL, COMMAND = None, "AWS-StartNonInteractiveCommand"
LINES = 20_000
EXIT = 7


class Run:
    """The world, what was found in it, and what several checks share."""

    def __init__(self, world):
        self.world, self.options, self.facts = world, world.options, {}
        self.services = self.idle = None

    def destination(self):
        """The port of the services on the instance, which the first that asks starts."""
        if self.services is None:
            limit = int(self.options.idle + 40 * self.options.seconds + 900)
            session = self.world.session(COMMAND, instance.parameters(instance.command(limit)))
            try:
                self.services = int(session.wait(rb"LIVE-PORT (\d+)")[1])
            except Broken as broken:
                missing = "python3" in str(broken) and ("not found" in str(broken) or "no such file" in str(broken))
                self.services = NotRun(f"there is no python3 on the instance: {broken}") if missing else broken
        if isinstance(self.services, Exception):
            raise self.services
        return self.services

    def forward(self, env=None):
        return self.world.port(self.destination(), env=env)


def shell(run):
    session = run.world.session(SHELL)
    session.send(b"echo live-$((40+2))\nexit\n")
    out = session.finish().decode(errors="replace")
    if "live-42" not in out:
        raise Broken(f"no answer from the shell: {session.words()}")
    wire = session.recording()
    run.facts |= {"handshake of a shell": wire.has_handshake(), "encrypted": wire.is_encrypted()}
    return "the answer came although the input had ended" + (", encrypted with KMS" if wire.is_encrypted() else "")


def terminal(run):
    session = run.world.session(SHELL, terminal=(33, 101))
    session.wait(rb"[$#%>] ?(\x1b[^\r\n]*)?$")
    session.send(b"stty size; exit\r")
    session.wait(rb"33 101|exit")
    session.process.wait(run.options.patience)
    time.sleep(0.2)
    if b"33 101" not in session.out:
        raise Broken(f"the remote terminal has another size than this one: {session.words()}")
    return "the remote terminal has the size of this one"


def command(run):
    line = f"sh -c {shlex.quote(f'echo to-stdout; echo to-stderr >&2; exit {EXIT}')}"
    session = run.world.session(COMMAND, instance.parameters(line))
    out = session.finish().decode(errors="replace")
    for word in ("to-stdout", "to-stderr"):
        if word not in out:
            raise Broken(f"{word} is missing: {session.words()}")
    code = re.search(r"EXIT_CODE: (-?\d+)", out)
    if not code:
        raise Broken(f"no exit code came: {session.words()}")
    if int(code[1]) != EXIT:
        raise Broken(f"the command ended with {EXIT}, and the exit code that came is {code[1]}")
    run.facts["exit code"] = int(code[1])
    return f"output, error output and exit code {EXIT}"


def output(run):
    session = run.world.session(COMMAND, instance.parameters(f"seq 1 {LINES}"))
    out = session.finish().decode(errors="replace")
    found = [int(line) for line in re.findall(r"^\d+\r?$", out, re.MULTILINE)]
    if found != list(range(1, LINES + 1)):
        missing = LINES - len(set(found))
        raise Broken(f"output was lost: {missing:,} of {LINES:,} lines are missing" if missing else "the output is not in order")
    wire = session.recording()
    kind = "output_stream_data"
    run.facts |= {"agent's payload": wire.largest("agent", kind), "agent's rate": wire.rate("agent", kind)}
    return f"{LINES:,} lines, all there and in order"


def echo(run):
    """Also the one that tells who the agent is."""
    session = run.forward()
    with session.connect() as connection:
        connection.sendall(b"E")
        times = round_trips(connection, 200)
    wire = session.end()
    run.facts |= {"agent": wire.agent_version(), "round trip": times[len(times) // 2]}
    return f"round trip of 32 bytes: p50 {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms"


def round_trips(connection, count):
    times, deadline = [], time.monotonic() + 30
    while len(times) < count and time.monotonic() < deadline:
        begin = time.perf_counter()
        connection.sendall(BLOCK[:32])
        if receive(connection, 32) != BLOCK[:32]:
            raise Broken("other bytes came back")
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)


def upload(run):
    return transfer(run, "upload", run.options.seconds)


def download(run):
    return transfer(run, "download", run.options.seconds)


def transfer(run, way, seconds, env=None, rate=900_000):
    """As many bytes as move in about so many seconds, through one connection."""
    session = run.forward(env)
    # The bytes, and what is still on its way when they are through.
    size, begin = int(seconds * rate), time.monotonic()
    try:
        with session.connect() as connection:
            (send_all if way == "upload" else receive_all)(connection, size)
    except (OSError, EOFError, Broken) as error:
        stop = f"stopped after {time.monotonic() - begin:.0f} s ({error or type(error).__name__})"
    else:
        stop = None
    took, wire = time.monotonic() - begin, session.end()
    sender, kind = ("client", "input_stream_data") if way == "upload" else ("agent", "output_stream_data")
    messages, busiest = wire.rate(sender, kind)
    run.facts[way if env is None else "other transfer"] = {
        "rate": size / 1e6 / took, "messages": messages, "busiest": busiest, "pauses": wire.pauses(), "lost": wire.lost(),
    }
    happened = f"{messages:,} messages a second, {busiest:,} in the busiest"
    if wire.pauses():
        happened += f"; the service paused it {wire.pauses()} times"
    if wire.lost() or stop:
        reasons = "; ".join(dict.fromkeys(wire.lost())) or stop
        closed = wire.of("agent", "channel_closed")
        verb = "ended the session" if closed else "cut the connection" if wire.lost() else "let the transfer stop"
        raise Broken(f"the service {verb} during the {way} ({reasons}): {happened}")
    return f"{size / 1e6 / took:.2f} MB/s over {took:.0f} s, never cut: {happened}"


def send_all(connection, size):
    connection.sendall(b"U" + struct.pack(">Q", size))
    digest, left = hashlib.sha256(), size
    while left > 0:
        piece = BLOCK[:left]
        connection.sendall(piece)
        digest.update(piece)
        left -= len(piece)
    if receive(connection, 32) != digest.digest():
        raise Broken("other bytes arrived than were sent")


def receive_all(connection, size):
    connection.sendall(b"D" + struct.pack(">Q", size))
    done = 0
    while done < size:
        piece = receive(connection, min(size - done, len(BLOCK) - done % len(BLOCK), 1 << 16))
        at = done % len(BLOCK)
        if piece != BLOCK[at : at + len(piece)]:
            raise Broken(f"other bytes came than were sent, at {done:,}")
        done += len(piece)


def receive(connection, size):
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            raise EOFError("the connection ended")
        got += piece
    return got


def connections(run, count=20):
    """Several at once, each with its own bytes."""
    session, intact = run.forward(), []

    def one(number):
        piece = BLOCK[number * 5_000 : number * 5_000 + 5_000]
        try:
            with session.connect() as connection:
                connection.sendall(b"E" + piece)
                if receive(connection, len(piece)) == piece:
                    intact.append(number)
        except (OSError, EOFError):
            pass

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.end()
    if len(intact) < count:
        raise Broken(f"{count - len(intact)} of {count} connections did not get their bytes back")
    return f"{count} connections at once, each got its own bytes back"


def half_close(run):
    session = run.forward()
    try:
        with session.connect(20) as connection:
            connection.sendall(b"Arequest"[:8])
            connection.shutdown(socket.SHUT_WR)
            if receive(connection, 6) != b"answer":
                raise Broken("another answer came")
    except (OSError, EOFError) as error:
        raise Broken(f"the answer did not come after the end of the request: {error}") from None
    finally:
        session.end()
    return "the answer came after the request's end"


def resume(run):
    """The connection to the service is cut here, in the middle of an echo."""
    line = Line(run.world)
    session = run.forward(line.env)
    try:
        with session.connect() as connection:
            connection.sendall(b"E")
            round_trips(connection, 5)
            if not line.cut():
                raise Broken("the plugin did not take the way that was to be cut")
            begin = time.monotonic()
            round_trips(connection, 5)
            took = time.monotonic() - begin
    except (OSError, EOFError) as error:
        wire = session.end()
        raise Broken(f"the session did not come back after a cut ({error}): {session.words()}; {wire.opens} opens") from None
    finally:
        line.close()
    run.facts["resumed after"] = took
    session.end()
    return f"cut here; the connection went on {took:.1f} s later, no byte lost"


def remote_host(run):
    if not run.options.remote_host:
        raise NotRun("no --remote-host HOST:PORT")
    host, _, port = run.options.remote_host.rpartition(":")
    session = run.world.port(port, host)
    with session.connect() as connection:
        # The agent connects to the destination, and says so if it cannot, when there is something to carry.
        connection.settimeout(3)
        try:
            said = f"it said {len(connection.recv(256))} bytes first"
        except TimeoutError:
            said = "it waits for us to speak first"
        except OSError as error:
            raise Broken(f"the connection ended: {error}") from None
    session.end()
    if b"Connection to destination port failed" in session.out or b"forbidden" in session.out:
        raise Broken(f"the agent cannot or may not connect: {session.words()}")
    return f"connected; {said}"


def ssh(run):
    options = run.options
    probe = run.world.session("AWS-StartSSHSession", f'{{"portNumber":["{options.ssh_port}"]}}')
    try:
        probe.wait(rb"SSH-2\.0-[^\r\n]+", 20)
    except Broken as broken:
        raise NotRun(f"no SSH server answers on port {options.ssh_port}: {broken}") from None
    finally:
        probe.end()
    finished = ended(run, [*ssh_words(run, "ssh", "-p"), f"{options.ssh_user}@{options.target}", "echo live-$((40+2))"])
    if "Permission denied" in finished.stderr:
        raise NotRun(f"an SSH server answers, but it takes no key of {options.ssh_user}: see --ssh-key, --ssh-user")
    if "live-42" not in finished.stdout:
        raise Broken(f"ssh: {finished.stderr.strip()[-200:]}")
    run.facts["ssh"] = True
    return "a command over ssh"


def scp(run):
    if not run.facts.get("ssh"):
        raise NotRun("no SSH server that takes a key")
    size = int(run.options.seconds * 400_000)
    folder = Path(run.world.folder)
    (folder / "sent").write_bytes((BLOCK * (size // len(BLOCK) + 1))[:size])
    # Nothing may stay on the instance: through a pipe of ssh up and down again, which is what scp's bytes do.
    begin = time.monotonic()
    with open(folder / "sent", "rb") as sent, open(folder / "back", "wb") as back:
        finished = subprocess.run(
            [*ssh_words(run, "ssh", "-p"), f"{run.options.ssh_user}@{run.options.target}", "cat"],
            env=run.world.env, stdin=sent, stdout=back, stderr=subprocess.PIPE,
            timeout=run.options.patience + 10 * run.options.seconds,
        )
    took = time.monotonic() - begin
    if (folder / "back").read_bytes() != (folder / "sent").read_bytes():
        raise Broken(f"other bytes came back: {finished.stderr.decode(errors='replace').strip()[-200:]}")
    there = f"{run.options.ssh_user}@{run.options.target}:/etc/passwd"
    finished = ended(run, [*ssh_words(run, "scp", "-P"), there, str(folder / "copied")])
    if finished.returncode or not (folder / "copied").stat().st_size:
        raise Broken(f"scp: {finished.stderr.strip()[-200:]}")
    return f"{size / 1e6:.1f} MB up and down over ssh in {took:.0f} s, the same bytes; scp copied a file"


def ended(run, words):
    return subprocess.run(
        words, env=run.world.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * run.options.patience,
        text=True, errors="replace",
    )


def ssh_words(run, program, port):
    proxy = " ".join(shlex.quote(word) for word in run.world.aws("ssm", "start-session", "--target", "%h"))
    proxy += " --document-name AWS-StartSSHSession --parameters portNumber=%p"
    settings = {"ProxyCommand": proxy, "BatchMode": "yes", "StrictHostKeyChecking": "no", "LogLevel": "ERROR",
                "UserKnownHostsFile": f"{run.world.folder}/known_hosts", "ControlPath": "none"}
    words = [program, *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    words += [port, str(run.options.ssh_port)]
    return words + (["-i", run.options.ssh_key, "-o", "IdentitiesOnly=yes"] if run.options.ssh_key else [])


def ecs(run):
    if not run.options.task:
        raise NotRun("no --task CLUSTER/TASK[/CONTAINER]")
    cluster, _, rest = run.options.task.partition("/")
    task, _, container = rest.partition("/")
    words = ["ecs", "execute-command", "--cluster", cluster, "--task", task, "--interactive", "--command", "/bin/sh"]
    words += ["--container", container] if container else []
    session = Session(run.world, run.world.aws(*words), {}, (24, 80))
    session.wait(rb"[$#] ?$")
    session.send(b"echo live-$((40+2)); exit\r")
    session.wait(rb"live-42")
    session.process.wait(run.options.patience)
    return "a shell in a container"


def begin_idle(run):
    """Opens what stays idle while everything else is tried."""
    run.idle = run.forward()
    run.idle.connection = run.idle.connect()
    run.idle.connection.sendall(b"E")
    round_trips(run.idle.connection, 3)
    run.idle.since = time.monotonic()


def idle(run):
    if run.idle is None:
        raise NotRun("it did not open")
    left = run.idle.since + run.options.idle - time.monotonic()
    if left > 0:
        time.sleep(left)
    took = time.monotonic() - run.idle.since
    try:
        round_trips(run.idle.connection, 3)
    except (OSError, EOFError) as error:
        raise Broken(f"dead after {took:.0f} s without data ({error}): {run.idle.words()}") from None
    finally:
        wire = run.idle.end()
    run.facts["idle"] = took
    if wire.lost():
        return f"alive after {took:.0f} s without data, but the connection was lost in between: {'; '.join(wire.lost())}"
    return f"alive after {took:.0f} s without data, on the same connection"


def larger(run, payload):
    words = transfer(run, "upload", run.options.seconds, {"SSM_PLUGIN_MAX_PAYLOAD": str(payload)}, 900 * payload)
    run.facts[f"payload {payload}"] = words
    return words


def larger_4k(run):
    return larger(run, 4096)


def larger_16k(run):
    return larger(run, 16384)


def four_sessions(run):
    session, size, failed = run.forward({"SSM_PLUGIN_SESSIONS": "4"}), int(run.options.seconds * 400_000), []
    time.sleep(5 if not run.world.is_local() else 1.5)

    def one():
        try:
            with session.connect(2 * run.options.patience) as connection:
                receive_all(connection, size)
        except (OSError, EOFError, Broken) as error:
            failed.append(str(error))

    threads, begin = [threading.Thread(target=one) for _ in range(8)], time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = 8 * size / 1e6 / (time.monotonic() - begin)
    session.end()
    if failed:
        raise Broken(f"{len(failed)} of 8 downloads failed: {failed[0]}")
    run.facts["four sessions"] = rate
    return f"8 downloads through 4 sessions: {rate:.2f} MB/s together"


# name: what it is called in the report, the check. In this order; `idle` waits for the rest.
CHECKS = {
    "shell": ("a shell, its input from a pipe", shell),
    "terminal": ("a shell on a terminal", terminal),
    "command": ("a command with an exit code", command),
    "output": ("a command with much output", output),
    "echo": ("a forwarded port", echo),
    "connections": ("many connections at once", connections),
    "half-close": ("a request that ends before its answer", half_close),
    "upload": ("upload at the defaults", upload),
    "download": ("download at the defaults", download),
    "resume": ("a cut connection", resume),
    "remote-host": ("a port of another host", remote_host),
    "ssh": ("ssh", ssh),
    "scp": ("bytes over ssh, and scp", scp),
    "ecs": ("ecs execute-command", ecs),
    "idle": ("an idle forwarded port", idle),
}
LIMITS = {
    "payload-4k": ("upload, payloads of 4 KiB, 900 messages a second", larger_4k),
    "payload-16k": ("upload, payloads of 16 KiB, 900 messages a second", larger_16k),
    "four-sessions": ("four sessions behind one port", four_sessions),
}
