"""Every package that is installed, with its licence, in docs/licences.md: `make licences`.

It fails where a licence is not among those that were read and found to suit. Tools, which are not
part of what is delivered, may have more of them.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "licences.md"
LOCKS = ("requirements-torch.txt", "requirements.txt", "requirements-dev.txt")
SUITING = {
    *("0BSD", "Apache 2.0", "Apache Software License", "Apache-2.0", "BSL-1.0"),
    *("Apache-2.0 WITH LLVM-exception", "BSD", "BSD 3-Clause", "BSD License", "BSD-2-Clause"),
    *("BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC License (ISCL)", "MIT", "MIT License"),
    *("MIT-0", "MIT-CMU", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0"),
    *("Python Software Foundation License", "Unlicense", "Zlib"),
    "GNU Library or Lesser General Public License (LGPL)",  # psycopg2: used as a library
}
# BSD, and a line on what "QR Code" is a trade mark of.
READ_ONE_BY_ONE = {"qrcode": "BSD License; Other/Proprietary License"}
SUITING_A_TOOL = {"GPL-3.0-or-later"}  # a formatter that is run, and linked to nothing


@dataclass(frozen=True)
class Licensed:
    name: str
    version: str
    licence: str
    is_tool: bool

    @property
    def suits(self) -> bool:
        if READ_ONE_BY_ONE.get(self.name) == self.licence:
            return True
        suiting = SUITING | SUITING_A_TOOL if self.is_tool else SUITING
        return any(
            all(each.strip() in suiting for each in re.split(r" AND |; ", choice))
            for choice in [self.licence, *self.licence.split(" OR ")]
        )


def locked(lock: str) -> dict[str, str]:
    """Name -> version of what a lock file installs here."""
    found = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line.startswith(("#", " ")) or not line.strip():
            continue
        requirement = Requirement(line.rstrip("\\ "))
        if requirement.marker is None or requirement.marker.evaluate():
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def licensed() -> list[Licensed]:
    """What the lock files install here, by name."""
    product = {name for lock in LOCKS[:2] for name in locked(lock)}
    names = sorted({name for lock in LOCKS for name in locked(lock)}, key=str.lower)
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json"]
    command += ["--with-system", "--packages", *names]
    told = json.loads(subprocess.check_output(command))
    licences = {_normal(each["Name"]): each["License"] for each in told}
    return [
        Licensed(
            name,
            version(name).partition("+")[0],
            licences[_normal(name)],
            is_tool=name not in product,
        )
        for name in names
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def table(packages: list[Licensed]) -> str:
    """The page: first what the product installs, then its tools."""
    lines = ["# Licences of what is installed", ""]
    lines += [
        "Made by `make licences` on Linux, which also checks them; see NOTICE for what is part"
    ]
    lines += ["of this repository.", ""]
    for title, is_tool in (("The product", False), ("Tests and tools, not delivered", True)):
        lines += [f"## {title}", "", "| package | version | licence |", "|---|---|---|"]
        lines += [
            f"| {each.name} | {each.version} | {each.licence} |"
            for each in packages
            if each.is_tool == is_tool
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    packages = licensed()
    LIST.write_text(table(packages))
    unsuited = [each for each in packages if not each.suits]
    for each in unsuited:
        sys.stdout.write(f"{each.name}: is the licence {each.licence!r} one that suits?\n")
    sys.stdout.write(f"{len(packages)} packages, {len(unsuited)} to look at: {LIST}\n")
    return 1 if unsuited else 0


if __name__ == "__main__":
    sys.exit(main())
