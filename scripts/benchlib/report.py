"""The results as a Markdown table and as a chart."""

from html import escape

NAMES = {"ours": "ours", "official": "official plugin", "tcp": "plain TCP"}
# What the chart shows, and what it is called there.
CHART = {
    "upload, service's limit": "Upload, service's limit in force",
    "8 connections, upload, 4 sessions": "Upload, 4 sessions behind one port",
    "8 connections, download, 4 sessions": "Download, 4 sessions behind one port",
    "upload, no limit, 1 KiB": "Upload, no limit, 1 KiB messages",
    "upload, no limit, 16 KiB": "Upload, no limit, 16 KiB messages",
    "download, unpaced agent, 1 KiB": "Download, unpaced agent, 1 KiB messages",
    "download, unpaced agent, 1 KiB: CPU": "… its CPU time",
    "echo, unpaced agent, p50": "Echo of 32 bytes, p50",
    "echo under a bulk upload in the same session, p99": "Echo under a bulk upload, p99",
    "exec to port open": "Start until the port is open",
    "exec to port open, TLS": "… over TLS",
    "idle forward: private dirty memory": "Private memory, one idle forward",
    "idle forward: context switches in 30 s": "Wake-ups of an idle forward in 30 s",
    "4 MB echo, websocket cut every 0.45 s": "4 MB echo, websocket cut every 0.45 s",
    "1 MB echo, 1 % lost each way": "1 MB echo, 1 % of messages lost",
}


def number(value):
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def ratio(values, other):
    ours, theirs = values.get("ours"), values.get(other)
    if not isinstance(ours, float | int) or not isinstance(theirs, float | int) or not theirs:
        return ""
    return f"{ours / theirs:.2f}"


def table(results, kinds):
    others = [kind for kind in kinds if kind != "ours"]
    names = [NAMES.get(kind, kind) for kind in kinds]
    head = ["what", "unit", *names, *(f"ours / {NAMES.get(kind, kind)}" for kind in others)]
    rows = [head, ["---"] * 2 + ["--:"] * (len(head) - 2)]
    for (name, unit), values in results.items():
        rows.append([name, unit, *(number(values.get(kind)) for kind in kinds), *(ratio(values, kind) for kind in others)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    aligned = [[cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))] for row in rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in aligned)


def svg(results, kinds):
    """Bars, each row in its own scale; what failed has words instead of a bar."""
    kinds = [kind for kind in kinds if kind != "tcp"]
    rows = [(title, unit, values) for (name, unit), values in results.items() if (title := CHART.get(name))]
    bar, gap, left, wide = 15, 14, 300, 330
    height = 60 + len(rows) * (len(kinds) * bar + gap)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img" '
        f'aria-label="Measurements of {" and ".join(NAMES.get(kind, kind) for kind in kinds)}">\n{STYLE}\n'
    ]
    x = left
    for kind in kinds:
        parts.append(f'<rect class="{kind}" x="{x}" y="14" width="12" height="12" rx="2"/><text x="{x + 18}" y="24">{NAMES.get(kind, kind)}</text>\n')
        x += 120
    y = 44
    for title, unit, values in rows:
        better = "more is better" if unit == "MB/s" else "less is better"
        middle = y + len(kinds) * bar / 2
        parts.append(f'<text class="title" x="{left - 12}" y="{middle}">{escape(title)}</text>')
        parts.append(f'<text class="note" x="{left - 12}" y="{middle + 12}">{unit}, {better}</text>\n')
        most = max((v for kind in kinds if isinstance(v := values.get(kind), float | int)), default=1) or 1
        for kind in kinds:
            value = values.get(kind)
            length = max(2, wide * value / most) if isinstance(value, float | int) else 0
            if length:
                parts.append(f'<rect class="{kind}" x="{left}" y="{y + 1}" width="{length:.0f}" height="{bar - 2}" rx="2"/>')
            words = "cannot" if value is None else number(value)
            parts.append(f'<text class="value" x="{left + length + 6:.0f}" y="{y + 11}">{escape(words)}</text>\n')
            y += bar
        y += gap
    parts.append("</svg>\n")
    return "".join(parts)


STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { text-anchor: end; }
.note { text-anchor: end; font-size: 10px; fill: #656d76; }
.value { font-size: 11px; }
.ours { fill: #0969da; }
.official { fill: #afb8c1; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #8d96a0; }
  .ours { fill: #4493f8; }
  .official { fill: #59636e; }
}
</style>"""
