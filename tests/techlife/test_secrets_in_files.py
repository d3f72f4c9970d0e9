"""A secret may be a file, as containers are given them; settings are read in a process of their own."""

import json
import secrets
from pathlib import Path
from typing import Any

from tests.envoys.test_production import run


def settings_with(expressions: dict[str, str], **changed: str | None) -> dict[str, Any]:
    shown = ", ".join(f"{name!r}: {expression}" for name, expression in expressions.items())
    done = run(
        "-c",
        f"import json; from techlife import settings as s; print(json.dumps({{{shown}}}))",
        **changed,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_secrets_come_from_files_without_the_end_of_the_line(tmp_path: Path) -> None:
    values = {
        name: secrets.token_urlsafe(48)
        for name in (
            *("SECRET_KEY", "TECHLIFE_FIELD_KEY", "TECHLIFE_NAME_INDEX_KEY"),
            *("TECHLIFE_METRICS_TOKEN", "DATABASE_PASSWORD", "AWS_SECRET_ACCESS_KEY"),
        )
    }
    values["REDIS_PASSWORD"] = "with/slash@and:colon"
    environment: dict[str, str | None] = dict.fromkeys(values)
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
        environment[f"{name}_FILE"] = str(tmp_path / name)
    found = settings_with(
        {
            "SECRET_KEY": "s.SECRET_KEY",
            "TECHLIFE_FIELD_KEY": "s.FIELD_KEYS[0]",
            "TECHLIFE_NAME_INDEX_KEY": "s.NAME_INDEX_KEYS[0]",
            "TECHLIFE_METRICS_TOKEN": "s.METRICS_TOKEN",
            "DATABASE_PASSWORD": "s.DATABASES['default']['PASSWORD']",
            "AWS_SECRET_ACCESS_KEY": "s.AWS_SECRET_ACCESS_KEY",
            "REDIS_PASSWORD": "__import__('redis').Redis.from_url(s.REDIS_URL)"
            ".connection_pool.connection_kwargs['password']",
            "inherited": "[name for name in __import__('os').environ if name in s.SECRETS]",
        },
        **environment,
    )
    inherited = found.pop("inherited")
    assert found == values
    assert not set(inherited) & set(values)  # children of the process see the names of files


def test_a_file_that_cannot_be_read_stops_the_start_in_words(tmp_path: Path) -> None:
    done = run("-c", "import techlife.settings", SECRET_KEY_FILE=str(tmp_path / "nothing"))
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert "SECRET_KEY_FILE names" in last
    assert "No such file" in last


def test_what_a_file_holds_is_held_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("change-me-" + "3f9a1c7e" * 6)
    done = run(
        "-c", "import techlife.settings", SECRET_KEY=None, SECRET_KEY_FILE=str(tmp_path / "key")
    )
    assert "SECRET_KEY is a default or an example" in done.stderr.splitlines()[-1]


def test_production_writes_json_unless_it_is_told_otherwise() -> None:
    assert settings_with({"format": "s.LOG_FORMAT"}) == {"format": "json"}
    assert settings_with({"format": "s.LOG_FORMAT"}, TECHLIFE_LOG_FORMAT="line") == {
        "format": "line"
    }
    done = run("-c", "import techlife.settings", TECHLIFE_LOG_FORMAT="xml")
    assert "it takes line or json" in done.stderr.splitlines()[-1]
