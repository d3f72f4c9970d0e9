"""A PostgreSQL of this run's own, which never runs as root."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

USERS = ("postgres", "nobody")  # in whose name it runs where this process is root's
BECOME = (
    "import os, sys; user, group, *argv = sys.argv[1:];"
    " os.setgroups([]); os.setgid(int(group)); os.setuid(int(user)); os.execv(argv[0], argv)"
)


class NoPostgresError(RuntimeError):
    """There are no programs to start PostgreSQL with, or they refuse."""


def postgres_program(name: str) -> str:
    """The path of one of PostgreSQL's programs. Raises NoPostgresError."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.insert(0, Path(told.stdout.strip()))
    packaged = Path("/usr/lib/postgresql").glob("*/bin")  # Debian's, the newest last
    folders += sorted(packaged, key=lambda path: int(path.parent.name), reverse=True)
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    raise NoPostgresError(
        f"PostgreSQL's {name} is neither in PATH nor in /usr/lib/postgresql: install the server,"
        " for instance the package postgresql-15"
    )


def _owner() -> pwd.struct_passwd | None:
    """Who it runs as; None for who runs this, which it refuses where that is root."""
    if os.geteuid() != 0:
        return None
    known = {each.pw_name: each for each in pwd.getpwall()}
    for name in USERS:
        if name in known:
            return known[name]
    raise NoPostgresError(f"PostgreSQL refuses to run as root, and there is no user {USERS}")


def as_owner(argv: list[str]) -> list[str]:
    """A command that becomes that user first; its process id stays the same."""
    owner = _owner()
    if owner is None:
        return argv
    return [sys.executable, "-I", "-S", "-c", BECOME, str(owner.pw_uid), str(owner.pw_gid), *argv]


def make_cluster(folder: Path) -> None:
    """An empty cluster in a new folder, for whoever reaches its port. Raises NoPostgresError."""
    folder.mkdir(mode=0o700)
    if owner := _owner():
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    initdb = [
        *(postgres_program("initdb"), "-D", str(folder), "-U", "techlife", "-A", "trust"),
        *("--no-locale", "-E", "UTF8", "--no-sync"),
    ]
    done = subprocess.run(
        as_owner(initdb), capture_output=True, text=True, check=False, cwd=folder.parent
    )
    if done.returncode:
        raise NoPostgresError(f"initdb has failed: {done.stdout}{done.stderr}")


def server_argv(folder: Path, port: int) -> list[str]:
    """The server on the loopback address, without a socket in a folder."""
    return as_owner(
        [
            *(postgres_program("postgres"), "-D", str(folder), "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        ]
    )
