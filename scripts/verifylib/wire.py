"""What a recording of SSM_PLUGIN_WIRE_LOG says about a session."""

import json
from pathlib import Path

HEADER = 120
OUTPUT, HANDSHAKE_REQUEST, EXIT_CODE = 1, 5, 12


class Recording:
    def __init__(self, path):
        self.frames, self.events, self.opens = [], [], 0
        text = Path(path).read_text() if Path(path).exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of a session that was killed
            if "event" in entry:
                self.events.append(entry)
            elif entry.get("kind", "").startswith("open"):
                self.opens += 1
            elif "kind" in entry and (entry.get("hex") or entry.get("head")):
                self.frames.append(Frame(entry))

    def of(self, sender, kind):
        return [frame for frame in self.frames if frame.sender == sender and frame.kind == kind]

    def agent_version(self):
        """From the handshake; None in a session without one."""
        for frame in self.of("agent", "output_stream_data"):
            if frame.type == HANDSHAKE_REQUEST:
                return frame.json().get("AgentVersion")
        return None

    def has_handshake(self):
        return any(frame.type == HANDSHAKE_REQUEST for frame in self.of("agent", "output_stream_data"))

    def is_encrypted(self):
        return any(
            action.get("ActionType") == "KMSEncryption"
            for frame in self.of("agent", "output_stream_data")
            if frame.type == HANDSHAKE_REQUEST
            for action in frame.json().get("RequestedClientActions") or []
        )

    def largest(self, sender, kind):
        return max((frame.size for frame in self.of(sender, kind)), default=0)

    def rate(self, sender, kind):
        """Messages a second between the first and the last, and in the fullest second."""
        times = [frame.ms for frame in self.of(sender, kind)]
        if len(times) < 2 or times[-1] == times[0]:
            return 0, 0
        busiest, first = 0, 0
        for last, time in enumerate(times):
            while time - times[first] >= 1000:
                first += 1
            busiest = max(busiest, last - first + 1)
        return round((len(times) - 1) * 1000 / (times[-1] - times[0])), busiest

    def lost(self):
        """Why the connection was lost, each time."""
        return [event.get("reason", "") for event in self.events if event["event"] == "lost"]

    def pauses(self):
        return len(self.of("agent", "pause_publication"))


class Frame:
    def __init__(self, entry):
        self.sender, self.kind, self.ms = entry["from"], entry["kind"], entry.get("ms", 0)
        self.bytes = bytes.fromhex(entry.get("hex") or entry["head"])
        self.type = int.from_bytes(self.bytes[112:116], "big")
        self.size = entry["payload"]["length"] if "payload" in entry else len(self.bytes) - HEADER

    def json(self):
        try:
            found = json.loads(self.bytes[HEADER:])
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
