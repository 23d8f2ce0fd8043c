"""The report: Markdown without account numbers, names of users and instances, or secrets."""

import getpass
import re


def assumptions(facts, outcome):
    """(what the plugin takes for true, on whose word, what was seen)"""

    def seen(name, words, otherwise="not tried"):
        return words(facts[name]) if name in facts and facts[name] is not None else otherwise

    def transfer(way):
        found = facts.get(way)
        if not found:
            return "not tried"
        end = "; ".join(dict.fromkeys(found["lost"])) if found["lost"] else "not cut"
        return f"{found['messages']:,} messages a second, {found['busiest']:,} in the busiest, {found['pauses']} pauses: {end}"

    rate = seen("agent's rate", lambda r: f"{r[0]:,} messages a second")
    return [
        ("the service takes 900 data messages a second for as long as one likes (the limit is about 1,000)",
         "a maintainer (agent#664), other clients", transfer("upload")),
        ("an agent sends at most 1,024 bytes in a message and rests 1 ms after each",
         "its source", seen("agent's payload", lambda size: f"at most {size:,} bytes; {rate}")),
        ("so a session downloads 0.6 to 0.8 MB/s", "measured with the agent's code, users",
         seen("download", lambda found: f"{found['rate']:.2f} MB/s")),
        ("a plain shell has no handshake unless it is encrypted", "the agent's source, recordings",
         seen("handshake of a shell", lambda has: f"{'a' if has else 'no'} handshake, {'encrypted' if facts.get('encrypted') else 'not encrypted'}")),
        ("the exit code comes as text when the streams are separate", "recordings", seen("exit code", lambda code: f"EXIT_CODE: {code}", outcome.get("command", "not tried"))),
        ("ResumeSession gives a new token and URL, and numbering goes on", "the official plugin's source",
         seen("resumed after", lambda took: f"went on after {took:.1f} s", outcome.get("resume", "not tried"))),
        ("pings keep an idle session's connection, and are no data", "the agent's source",
         seen("idle", lambda took: f"alive after {took:.0f} s", outcome.get("idle", "not tried"))),
        ("agents newer than 3.0.196.0 multiplex a forwarded port", "the official plugin's source", seen("agent", lambda version: f"agent {version}; {outcome.get('connections', 'not tried')}")),
        ("the agent ends the whole connection when one direction ends, so the end is held back", "its source", outcome.get("half-close", "not tried")),
        ("larger payloads at a legal rate: not known", "", "; ".join(f"{size} bytes: {facts[f'payload {size}']}" for size in (4096, 16384) if f"payload {size}" in facts)
         or outcome.get("payload-4k") or "not tried (--limits)"),
        ("the limit counts for each session, so four move four times as much", "other clients",
         seen("four sessions", lambda rate: f"{rate:.2f} MB/s together", outcome.get("four-sessions", "not tried (--limits)"))),
    ]


def markdown(about, results, facts):
    """`results`: (name, title, status, words)"""
    outcome = {name: words for name, _, _, words in results}
    lines = ["## scripts/verify-on-aws", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", "| tried | result | seen |", "|---|---|---|"]
    lines += [f"| {title} | {status} | {cell(words)} |" for _, title, status, words in results]
    lines += ["", "| assumed | on whose word | seen |", "|---|---|---|"]
    lines += [f"| {cell(what)} | {cell(source)} | {cell(found)} |" for what, source, found in assumptions(facts, outcome)]
    return "\n".join(lines) + "\n"


def cell(text):
    return " ".join(str(text).replace("|", "\\|").split())


def scrub(text, private):
    """Without what nobody else shall read: `private` are the names known here."""
    for name, value in sorted(private.items(), key=lambda item: -len(item[1])):
        if len(value) >= 3:
            text = text.replace(value, f"[{name}]")
    for pattern, word in PATTERNS:
        text = re.sub(pattern, word, text)
    return text


PATTERNS = [
    (r"arn:[\w-]+:[^\s|)]+", "[arn]"),
    (r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b", "[key]"),
    (r"\b(?:i|mi|ssm|vpce|vol|eni|sg)-[0-9a-f]{8,17}(?:-[0-9a-z]+)?\b", "[id]"),
    # Session ids: the user's name, then random characters.
    (r"\b[\w+=,.@-]+-[0-9a-z]{17,}\b", "[session]"),
    (r"\b\d{12}\b", "[account]"),
    (r"[\w.+-]+@[\w-]+\.[\w.-]+", "[address]"),
    (r"[A-Za-z0-9+/=_-]{60,}", "[redacted]"),
]


def private_names(options):
    names = {"target": options.target, "profile": options.profile, "user": getpass.getuser(), "task": options.task,
             "remote host": options.remote_host, "key": options.ssh_key}
    names = {name: value for name, value in names.items() if value}
    # Words that are in every report are no secret.
    return {name: value for name, value in names.items() if value not in ("root", "default")}
