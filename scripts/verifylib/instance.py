"""What runs on the instance while a check needs something to talk to: a few TCP services on its loopback, in a Python
program that is an argument of one session's command. It writes nothing there and ends with its session, at the latest
after its time."""

import base64
import hashlib
import json

# The same bytes at both ends, without sending them first.
BLOCK = hashlib.shake_128(b"scripts/verify-on-aws").digest(1 << 20)

PROGRAM = """
import hashlib, os, signal, socket, struct, threading, time
signal.alarm(%d)
block = hashlib.shake_128(b"scripts/verify-on-aws").digest(1 << 20)
def take(c, n):
    got = b""
    while len(got) < n:
        piece = c.recv(n - len(got))
        if not piece: raise EOFError
        got += piece
    return got
def serve(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind = take(c, 1)
    if kind == b"E":
        while True:
            piece = c.recv(65536)
            if not piece: return
            c.sendall(piece)
    if kind == b"A":
        take(c, 7)
        time.sleep(0.3)
        return c.sendall(b"answer")
    left, = struct.unpack(">Q", take(c, 8))
    if kind == b"D":
        while left > 0:
            c.sendall(block[:left])
            left -= len(block)
        return c.recv(1)
    digest = hashlib.sha256()
    while left > 0:
        piece = c.recv(min(left, 65536))
        if not piece: return
        digest.update(piece)
        left -= len(piece)
    c.sendall(digest.digest())
    c.recv(1)
def guarded(c):
    try: serve(c)
    except (OSError, EOFError): pass
    c.close()
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
print("LIVE-PORT", listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=guarded, args=(listener.accept()[0],), daemon=True).start()
"""


def command(seconds):
    """The command of AWS-StartNonInteractiveCommand that runs the services for at most so long."""
    code = base64.b64encode((PROGRAM % seconds).encode()).decode()
    return f"python3 -c \"import base64;exec(base64.b64decode('{code}'))\""


def parameters(line, separate=True):
    """The parameters of AWS-StartNonInteractiveCommand, as the AWS CLI takes them."""
    return json.dumps({"command": [line], "separateOutputStream": ["true" if separate else "false"]})
