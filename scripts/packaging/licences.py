#!/usr/bin/env python3
"""Writes the licences and notices of what is linked into the program: every crate for one target, and Rust's library.

Each text is taken from the crate as the registry has it, and stands once, under the names of all crates it came with.
"""

import argparse
import html
import re
import subprocess
import sys
from pathlib import Path

import crates

# Names of the files that crates keep their terms in; a crate may hold others' code with theirs (ring does).
TERMS = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)
RULE = "=" * 100

# For crates that declare this licence and come without its text.
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def main(target: str) -> None:
    packages, linked, root = crates.linked(target)
    listed, texts, holders = [], {}, {}
    for package in sorted((packages[id] for id in linked if id != root), key=lambda p: (p["name"], p["version"])):
        name = f"{package['name']} {package['version']}"
        listed.append(f"{name}: {package['license']}")
        for path, text in terms(package):
            # The same words in other lines are the same text.
            key = " ".join(text.split())
            texts.setdefault(key, text)
            holders.setdefault(key, []).append(f"{name} ({path})")

    print("The program is made of these crates, under the licences named here; their texts follow, and after them")
    print("those of Rust's standard library.")
    print()
    print("\n".join(listed))
    for key, text in texts.items():
        print(f"\n{RULE}\n" + "\n".join(holders[key]) + f"\n{RULE}\n\n{text}")
    print(f"\n{RULE}\nRust's standard library\n{RULE}\n\n{standard_library()}")


def terms(package: dict) -> list[tuple[str, str]]:
    """The texts a crate comes with, under their paths in it."""
    folder = Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.rglob("*") if path.is_file() and TERMS.match(path.name))
    found = [
        (str(path.relative_to(folder)), path.read_text(errors="replace").replace("\r\n", "\n").strip("\n"))
        for path in files
        if path.suffix != ".rs"
    ]
    if found:
        return found
    if package["license"] != "MIT":
        sys.exit(f"licences: {package['name']} comes without a text, and {package['license']} is not known here")
    owners = ", ".join(package["authors"]) or f"the authors of {package['name']}, {package['repository']}"
    return [("as declared", f"Copyright {owners}\n\n{MIT}")]


def standard_library() -> str:
    """What the toolchain says of its library, the part of it that is linked; the page's words without its markup."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, stdout=subprocess.PIPE, text=True).stdout
    page = Path(sysroot.strip(), "share/doc/rust/COPYRIGHT-library.html")
    if not page.is_file():
        sys.exit(f"licences: the toolchain has no {page}")
    text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\n\s*\n+", "\n\n", html.unescape(text)).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="such as x86_64-unknown-linux-gnu")
    main(parser.parse_args().target)
