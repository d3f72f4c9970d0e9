"""Keys are replaced while the site runs: no patient is out of reach for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse

from diagnoses.models import Patient
from envoys.encryption import decrypt, encrypt, name_index
from envoys.models import IdempotentCall
from techlife import key_rotation
from techlife.processes import lock_data_folder
from tests.api import Program
from tests.factories import PASSWORD, make_admission, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

NAME = "Test Patient One"


@contextmanager
def keys(*names: str) -> Iterator[None]:
    """A process whose keys of each kind are these, the one in use first."""
    first, *others = (f"signing key {name}, long enough to sign" for name in names)
    with override_settings(
        SECRET_KEY=first,
        SECRET_KEY_FALLBACKS=others,
        FIELD_KEYS=[f"field key {name}" for name in names],
        NAME_INDEX_KEYS=[f"index key {name}" for name in names],
    ):
        yield


def tokens(model: Any, field: str) -> list[str]:
    """As they stand in the database."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {field} FROM {model._meta.db_table} ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


def rotate(*options: str) -> str:
    output = StringIO()
    call_command("rotate_keys", *options, stdout=output)
    return output.getvalue()


def test_the_steps_of_the_manual_keep_every_patient_in_sight_and_everybody_logged_in():
    """docs/keys.md, with two processes that are restarted one after the other at each step."""
    client = Client()
    with keys("old"):
        doctor = make_user()
        patient = make_patient(doctor.envoy, name=NAME, phone="000 1")
        make_admission(patient)
        client.force_login(doctor)

        program = Program(doctor)
        credentials = {"username": doctor.username, "password": PASSWORD}
        refresh = program.post(reverse("api:token"), credentials, code=200)["refresh"]

    def look(*names: str) -> None:
        with keys(*names):
            program.get(reverse("api:patient-detail", args=[patient.pk]))
            page = client.get(reverse("inference:patient-detail", args=[patient.pk]))
            assert page.status_code == 200, f"logged out, or not read, by a process with {names}"
            assert NAME in page.content.decode()
            client.post(reverse("inference:patient-list"), {"text": NAME.upper()})
            found = client.get(reverse("inference:patient-list")).content.decode()
            assert reverse("inference:patient-detail", args=[patient.pk]) in found
            assert NAME.upper() in found, "the words searched for are not read"
            assert "Test Patient Two" not in found

    def edit(phone: str, *names: str) -> None:
        with keys(*names):
            client.post(
                reverse("diagnoses:patient-edit", args=[patient.pk]),
                {"name": NAME, "sex": "", "phone": phone, "birth_year": ""},
            )
            assert Patient.objects.get().phone == phone

    look("old")
    # 1. Every process can read with the new key; while one is restarted the other is as it was.
    for process in (["old"], ["old", "new"]):
        edit("000 2", *process)
        look("old")
        look("old", "new")
    # 2. Every process writes with the new key.
    for process in (["old", "new"], ["new", "old"]):
        edit("000 3", *process)
        look("old", "new")
        look("new", "old")
    # 3. What is under the old key goes under the new one.
    with keys("new", "old"):
        other = make_patient(doctor.envoy, name="Test Patient Two")
        Patient.objects.filter(pk=other.pk).update(name_index="")
    with keys("old", "new"):
        Patient.objects.filter(pk=other.pk).update(name="Test Patient Two")
    with keys("new", "old"):
        with pytest.raises(CommandError, match=r"1 of 3 values need an older key"):
            rotate("--check")
        assert "1 taken to the newest keys" in rotate()
        assert "All 3 values are under the newest keys" in rotate("--check")
    look("new", "old")
    # 4. Without the old key, once what it has signed has run out or was made anew.
    with keys("new", "old"):
        fresh = program.post(reverse("api:token-refresh"), {"refresh": refresh}, code=200)
        program.client.credentials(HTTP_AUTHORIZATION=f"Bearer {fresh['access']}")
    for process in (["new", "old"], ["new"]):
        look(*process)
    with keys("new"):
        assert Patient.objects.named("test patient two").get() == other


def test_a_process_that_does_not_know_a_key_cannot_read_what_it_has_written():
    """Why the new key is first put last."""
    with keys("new", "old"):
        token = encrypt(NAME)
    with keys("old"), pytest.raises(InvalidToken):
        decrypt(token)


def test_a_token_of_a_key_that_was_dropped_is_refused():
    with keys("old"):
        doctor = make_user()
        program = Program(doctor)
    with keys("new"):
        program.get(reverse("api:me"), code=401)
        Program(doctor).get(reverse("api:me"))


def test_every_encrypted_field_there_is_is_rotated():
    found = {
        (model.__name__, name) for model, names in key_rotation.encrypted_fields() for name in names
    }
    assert found >= {("Patient", "name"), ("Patient", "phone"), ("IdempotentCall", "answer")}
    with keys("old"):
        user = make_user()
        make_patient(user.envoy, name=NAME, phone="000 1")
        make_patient(user.envoy)  # imported: nothing to rotate
        IdempotentCall.objects.create(user=user, key="1", fingerprint="0", answer='{"id": 1}')
    with keys("new", "old"):
        assert "3 taken to the newest keys" in rotate()
    with keys("new"):
        for model, field in ((Patient, "name"), (Patient, "phone"), (IdempotentCall, "answer")):
            assert [decrypt(token) for token in tokens(model, field) if token]
        assert Patient.objects.named(NAME).count() == 1
        assert IdempotentCall.objects.get().answer == '{"id": 1}'


def test_what_has_been_rotated_is_left_alone_so_that_a_killed_command_goes_on(monkeypatch):
    monkeypatch.setattr(key_rotation, "BATCH_ROWS", 2)
    with keys("old"):
        envoy = make_user().envoy
        for number in range(5):
            make_patient(envoy, name=f"Test Patient {number}")

    class Killed(Exception):
        pass

    def kill(num_rows: int) -> None:
        raise Killed

    with keys("new", "old"):
        with pytest.raises(Killed):
            key_rotation.look_through(is_changing=True, on_batch=kill)
        assert key_rotation.look_through(is_changing=False).num_older == 3
        before = tokens(Patient, "name")
        found = key_rotation.look_through(is_changing=True)
        assert (found.num_values, found.num_older, found.num_changed) == (5, 3, 3)
        assert tokens(Patient, "name")[:2] == before[:2]


def test_what_somebody_saves_meanwhile_is_not_overwritten(monkeypatch):
    with keys("old"):
        patient = make_patient(make_user().envoy, name=NAME, phone="000 1")
    original = key_rotation._change_of

    def edited_in_between(*args: Any) -> Any:
        change = original(*args)
        edited = Patient.objects.get(pk=patient.pk)
        edited.set_name("Test Patient Married")
        edited.save(update_fields=["name", "name_index"])
        return change

    with keys("new", "old"):
        monkeypatch.setattr(key_rotation, "_change_of", edited_in_between)
        key_rotation.look_through(is_changing=True)
        monkeypatch.undo()
        patient.refresh_from_db()
        assert patient.name == "Test Patient Married"
        assert patient.name_index == name_index("Test Patient Married")
        rotate()
        rotate("--check")


def test_a_value_that_no_key_opens_is_counted_and_kept():
    with keys("lost"):
        patient = make_patient(make_user().envoy, name=NAME)
    before = tokens(Patient, "name")
    with (
        keys("new", "old"),
        pytest.raises(CommandError, match="1 of 1 values can be read with none"),
    ):
        rotate()
    assert tokens(Patient, "name") == before
    with keys("new", "lost"):
        rotate()
        patient.refresh_from_db()
        assert patient.name == NAME


def test_embedded_keys_are_replaced_in_their_files(settings, tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()

    def start() -> None:
        """As settings read them."""
        lines = {path.name: path.read_text().splitlines() for path in folder.iterdir()}
        settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS = lines["secret_key"]
        settings.FIELD_KEYS, settings.NAME_INDEX_KEYS = lines["field_key"], lines["name_index_key"]

    for name in ("secret_key", "field_key", "name_index_key"):
        (folder / name).write_text(f"first {name}")
    start()
    patient = make_patient(make_user().envoy, name=NAME)

    with lock_data_folder(tmp_path), pytest.raises(CommandError, match="would not know the new"):
        rotate("--new-keys")
    rotate("--new-keys")
    start()
    assert settings.FIELD_KEYS[1] == "first field_key"
    assert settings.SECRET_KEY_FALLBACKS == ["first secret_key"]
    assert (folder / "field_key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="1 of 1 values need an older key"):
        rotate("--drop-old-keys")
    rotate()
    assert "gone with the next start" in rotate("--drop-old-keys")
    start()
    assert len(settings.FIELD_KEYS) == len(settings.NAME_INDEX_KEYS) == 1
    assert settings.SECRET_KEY_FALLBACKS == []
    patient.refresh_from_db()
    assert patient.name == NAME


def test_keys_of_the_environment_are_not_changed_in_files(settings):
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(CommandError, match="comes from the environment: change it there"):
        rotate("--new-keys")
