#!/usr/bin/env python3
"""Writes the bill of materials of the binary for one target: CycloneDX 1.5, from `cargo metadata` and Cargo.lock.

Only what is linked into the program counts: no tools of the build, no tests, no workspace members.
"""

import argparse
import json
import sys
import tomllib
import uuid

import crates


def main(target: str) -> None:
    packages, linked, root = crates.linked(target)
    with open("Cargo.lock", "rb") as file:
        checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}

    def purl(id: str) -> str:
        return f"pkg:cargo/{packages[id]['name']}@{packages[id]['version']}"

    def component(id: str, kind: str) -> dict:
        package = packages[id]
        entry = {"type": kind, "bom-ref": purl(id), "name": package["name"], "version": package["version"]}
        if package["description"]:
            entry["description"] = package["description"].strip()
        if checksum := checksums.get((package["name"], package["version"])):
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["license"]:
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        entry["purl"] = purl(id)
        if package["repository"]:
            entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return entry

    ids = sorted(linked, key=purl)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same for the same contents, so that builds can be compared.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, target + ' '.join(map(purl, ids)))}",
        "version": 1,
        "metadata": {
            "component": component(root, "application"),
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [component(id, "library") for id in ids if id != root],
        "dependencies": [{"ref": purl(id), "dependsOn": sorted(map(purl, linked[id]))} for id in ids],
    }
    json.dump(bom, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="such as x86_64-unknown-linux-gnu")
    main(parser.parse_args().target)
