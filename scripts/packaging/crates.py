"""Which crates are linked into the program, for the bill of materials and the licences."""

import json
import subprocess

ROOT = "session-manager-plugin"


def linked(target: str) -> tuple[dict[str, dict], dict[str, list[str]], str]:
    """What `cargo metadata` says of each package, by id; the linked ones with what each depends on; the program's id.

    Dependencies of builds and tests do not count.
    """
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(id for id, package in packages.items() if package["name"] == ROOT)

    linked, waiting = {}, [root]
    while waiting:
        id = waiting.pop()
        if id in linked:
            continue
        deps = nodes[id]["deps"]
        linked[id] = sorted(d["pkg"] for d in deps if any(kind["kind"] is None for kind in d["dep_kinds"]))
        waiting += linked[id]
    return packages, linked, root
