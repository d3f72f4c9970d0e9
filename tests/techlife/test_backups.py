"""What a backup holds and refuses; the way there and back is in tests/journeys/test_backups.py."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

from envoys.copying import is_copied
from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import director_storage, envoy_storage, write_object
from envoys.workers import record_sign
from techlife import backups
from techlife.backups import BackupError, lacks_keys, make_backup, read_backup, restore_backup
from tests.factories import make_envoy, make_patient, make_user

# No transaction of the test around it: a copy would wait for its end.
pytestmark = pytest.mark.django_db(transaction=True)

NAME = "Test Patient One"


def say(words: str) -> None:
    pass


@pytest.fixture
def oslo() -> Envoy:
    envoy = make_envoy(name="Oslo", slug="oslo")
    make_patient(envoy, name=NAME, phone="0998877665")
    write_object(envoy_storage(envoy), "diagnoses.csv", b"of oslo")
    write_object(envoy_storage(make_envoy(name="Oslo 2", slug="oslo-2")), "a.csv", b"of oslo 2")
    write_object(director_storage(), "updates/one.bin", b"of the director")
    return envoy


@pytest.fixture
def backup(oslo: Envoy, tmp_path: Path) -> Path:
    make_backup(tmp_path / "backup", say=say)
    return tmp_path / "backup"


def test_each_object_is_its_owners_once(backup, oslo):
    found = {(each.owner, each.key): each for each in read_backup(backup).objects}
    other = Envoy.objects.get(slug="oslo-2")
    assert set(found) == {
        ("director", "updates/one.bin"),
        (oslo.serial_id, "diagnoses.csv"),
        (other.serial_id, "a.csv"),
    }
    stored = found[oslo.serial_id, "diagnoses.csv"]
    assert (backup / stored.path).read_bytes() == b"of oslo"
    assert stored.num_bytes == 7


def test_names_are_in_it_encrypted_and_keys_not_at_all(backup, settings):
    files = [path for path in backup.rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    assert b"oslo" in everything
    for text in (NAME, "0998877665", *settings.FIELD_KEYS, *settings.NAME_INDEX_KEYS):
        assert text.encode() not in everything


def test_a_missing_key_is_noticed_by_its_mark(backup, settings):
    manifest = read_backup(backup)
    assert not lacks_keys(manifest)
    with override_settings(FIELD_KEYS=["a new key", *settings.FIELD_KEYS]):
        assert not lacks_keys(manifest)
    with override_settings(FIELD_KEYS=["another key"]):
        assert lacks_keys(manifest)


def test_what_goes_away_meanwhile_is_left_out(oslo, tmp_path, monkeypatch):
    listed = backups.list_objects

    def list_what_goes(storage: Any) -> Any:
        yield from listed(storage)
        yield "uploads/read-since.csv", 10

    monkeypatch.setattr(backups, "list_objects", list_what_goes)
    manifest = make_backup(tmp_path / "backup", say=say)
    assert len(read_backup(tmp_path / "backup").objects) == len(manifest.objects) == 3


def test_while_it_is_made_a_sign_says_so_and_is_not_part_of_it(oslo, tmp_path, monkeypatch):
    said: list[bool] = []
    for name in ("_copy_sqlite", "_copy_objects"):
        copy = getattr(backups, name)

        def look(*arguments: Any, copy: Any = copy) -> Any:
            said.append(is_copied())
            return copy(*arguments)

        monkeypatch.setattr(backups, name, look)
    manifest = make_backup(tmp_path / "backup", say=say)
    assert said == [True, True]
    assert len(manifest.objects) == 3
    assert not is_copied()


def test_a_backup_that_fails_takes_its_sign_down(oslo, tmp_path, monkeypatch):
    def fail(*arguments: Any) -> Any:
        assert is_copied()
        raise StorageError("out of reach")

    monkeypatch.setattr(backups, "_copy_object", fail)
    with pytest.raises(StorageError):
        make_backup(tmp_path / "backup", say=say)
    assert not is_copied()


def test_a_backup_is_not_made_into_a_folder_that_holds_something(backup):
    with pytest.raises(BackupError, match="is not empty"):
        make_backup(backup, say=say)
    assert read_backup(backup)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"changed"), "is not what was written"),
    ],
)
@pytest.mark.parametrize("pattern", ["objects/*/*", "database.sqlite3"])
def test_a_damaged_backup_is_refused_before_anything_is_written(
    backup, settings, tmp_path, damage, words, pattern
):
    damage(next(iter(backup.glob(pattern))))
    settings.OBJECT_FOLDER = tmp_path / "elsewhere"
    with pytest.raises(BackupError, match=words):
        restore_backup(backup, is_replacing=True, say=say)
    assert not settings.OBJECT_FOLDER.exists()
    assert Envoy.objects.count() == 2


def test_a_backup_that_was_not_finished_is_none(backup):
    (backup / "manifest.json").unlink()
    with pytest.raises(BackupError, match="it is no backup"):
        read_backup(backup)


def change_manifest(backup: Path, **values: Any) -> None:
    path = backup / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 2}, "not of format 1"),
        ({"vendor": "postgresql"}, "is of a postgresql database"),
        (
            {"migrations": [["training", "9999_of_tomorrow"]]},
            "of a newer release.*9999_of_tomorrow",
        ),
    ],
)
def test_a_backup_of_something_else_is_refused(backup, values, words):
    change_manifest(backup, **values)
    with pytest.raises(BackupError, match=words):
        restore_backup(backup, is_replacing=True, say=say)


def test_an_installation_in_use_is_not_written_over(backup, oslo, tmp_path, settings):
    with pytest.raises(BackupError, match=r"accounts or hospitals.*--replace"):
        restore_backup(backup, is_replacing=False, say=say)
    record_sign("pool@host", queues=[], num_processes=1, started_at=timezone.now())
    with pytest.raises(BackupError, match="stop web, workers and beat"):
        restore_backup(backup, is_replacing=True, say=say)


def test_objects_alone_are_not_written_over_either(backup, settings):
    Envoy.objects.all().update(status=Envoy.Status.DELETED)
    from diagnoses.models import Patient

    Patient.objects.all().delete()
    Envoy.objects.all().delete()
    with pytest.raises(BackupError, match="storage is not empty"):
        restore_backup(backup, is_replacing=False, say=say)
    shutil.rmtree(settings.OBJECT_FOLDER)


def test_the_commands_say_what_to_do(oslo, tmp_path, settings):
    make_user()
    output = StringIO()
    call_command("backup", str(tmp_path / "one"), stdout=output)
    assert "The keys are not in it" in output.getvalue().replace("\n", " ")
    with pytest.raises(CommandError, match="is not empty") as refusal:
        call_command("backup", str(tmp_path / "one"))
    assert "remove it" not in str(refusal.value)  # it is a backup
    with pytest.raises(CommandError, match="--replace"):
        call_command("restore", str(tmp_path / "one"))
