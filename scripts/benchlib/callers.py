"""`ssh host true` by each of the programs that open the session: the AWS CLI 1, the AWS CLI 2, and our own `ssh`. Takes a
`Case` and gives {row: value}, as in `measures`."""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .world import TARGET, Failed

ROOT = Path(__file__).resolve().parent.parent.parent
REPEATS = 5
PATIENCE = 60


def ssh_true(case):
    rows = {}
    with tempfile.TemporaryDirectory(prefix="bench-ssh-") as folder:
        os.symlink(os.path.abspath(case.plugin), f"{folder}/session-manager-plugin")
        found = callers(case)
        times = {name: [] for name in found}
        for _ in range(max(1, round(REPEATS * case.scale))):
            for name, proxy in found.items():
                times[name].append(timed(ssh(case, folder, proxy, "true")))
        for name, proxy in found.items():
            row = f"ssh host true, {name}"
            rows[row, "ms"] = statistics.median(times[name]) * 1e3
            cpu, memory = held(ssh(case, folder, proxy, "echo open; exec cat"))
            rows[f"{row}: CPU until open, all processes", "ms"] = cpu * 1e3
            rows[f"{row}: resident memory while open, all processes", "MiB"] = memory
    return rows


def callers(case):
    """{name: ProxyCommand} of those that are installed."""
    ours = f"{case.plugin} ssh --endpoint-url {case.gateway.url} %h %p"
    found = {} if case.kind == "official" else {"our ssh": ours}
    for version, candidates in (("1", [ROOT / "target/venv/bin/aws"]), ("2", ["/usr/bin/aws", "/usr/local/bin/aws", shutil.which("aws")])):
        program = next((path for path in candidates if path and is_version(path, version)), None)
        if program:
            found[f"AWS CLI {version}"] = (
                f"{program} --endpoint-url {case.gateway.url} ssm start-session --target %h "
                "--document-name AWS-StartSSHSession --parameters portNumber=%p"
            )
        else:
            print(f"         SKIPPED: no AWS CLI {version} (scripts/setup tests installs both)", file=sys.stderr, flush=True)
    return found


def is_version(program, version):
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=PATIENCE)
        return (answer.stdout + answer.stderr).startswith(f"aws-cli/{version}.")
    return False


def ssh(case, folder, proxy, command):
    """Command line and environment."""
    keys = case.servers.ssh
    options = {
        "ProxyCommand": proxy, "User": keys.user, "Port": case.servers.ports["sshd"], "IdentitiesOnly": "yes", "BatchMode": "yes",
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SSM_PLUGIN_"))}
    env.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_EC2_METADATA_DISABLED="true", AWS_REGION="us-east-1")
    env.update(AWS_DEFAULT_REGION="us-east-1", PATH=f"{folder}:{env['PATH']}")
    return ["ssh", "-F", "none", "-i", keys.key, *words, TARGET, command], env


def timed(command):
    words, env = command
    begin = time.perf_counter()
    try:
        subprocess.run(words, env=env, stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE, capture_output=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise Failed("ssh " + (getattr(error, "stderr", b"") or b"timed out").decode(errors="replace").strip()[-50:]) from error
    return time.perf_counter() - begin


def held(command):
    """CPU seconds and MiB of all that ssh has started, once the connection is open."""
    words, env = command
    process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if process.stdout.readline() != b"open\n":
            raise Failed("ssh did not connect")
        below = descendants(process.pid)
        return sum(map(cpu_of, below)), sum(map(memory_of, below))
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def descendants(pid):
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
            children.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def cpu_of(pid):
    """Its own CPU time and that of the processes that it has waited for."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:")), 0)
