"""Sealing the audit, and whatever somebody might do to it in the database afterwards."""

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from envoys import audit, audit_chain
from envoys.audit_chain import FIRST_HEAD, seal_events, store_heads
from envoys.errors import StorageError
from envoys.models import AuditEvent, AuditSeal, Envoy, User
from envoys.tasks import seal_audit_task
from tests.factories import make_envoy, make_user

pytestmark = pytest.mark.django_db

PER_SEAL, NUM_SEALS = 3, 4


@pytest.fixture
def person(settings: Any, tmp_path: Path) -> User:
    settings.OBJECT_FOLDER = tmp_path / "objects"
    return make_user(User.Role.DATA_SCIENTIST)


def add_events(person: User, number: int = PER_SEAL) -> list[AuditEvent]:
    envoy = make_envoy()
    return [audit.record(person, f"did {each}", envoy) for each in range(number)]


@pytest.fixture
def batches(person: User) -> list[list[AuditEvent]]:
    """Four seals of three events each."""
    made = []
    for _ in range(NUM_SEALS):
        made.append(add_events(person))
        assert seal_events() == PER_SEAL
    return made


def verified(**options: Any) -> str:
    """What the command says when it finds nothing."""
    out = StringIO()
    call_command("verify_audit", stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def found(**options: Any) -> str:
    """What it finds."""
    with pytest.raises(CommandError) as error:
        verified(**options)
    assert error.value.returncode == 1
    return str(error.value)


def stored(number: int) -> dict[str, Any]:
    from django.conf import settings

    content = Path(settings.OBJECT_FOLDER, f"director/audit/{number:09d}.json").read_text()
    loaded: dict[str, Any] = json.loads(content)
    return loaded


def events_of(number: int) -> Any:
    return AuditEvent.objects.filter(seal__number=number).order_by("pk")


def test_events_are_sealed_in_the_order_of_their_numbers_and_each_head_follows_the_last(batches):
    seals = list(AuditSeal.objects.order_by("number"))
    assert [seal.number for seal in seals] == [1, 2, 3, 4]
    assert [list(events_of(seal.number)) for seal in seals] == batches
    assert all(seal.stored_at is not None for seal in seals)
    heads = [seal.head for seal in seals]
    assert [stored(number)["head"] for number in (1, 2, 3, 4)] == heads
    assert [stored(number)["previous"] for number in (1, 2, 3, 4)] == [FIRST_HEAD, *heads[:3]]
    assert "12 events in 4 seals" in verified()


def test_a_head_can_be_computed_by_hand(person):
    import hashlib

    (event,) = add_events(person, 1)
    seal_events()
    moment = event.happened_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = f'[{event.pk},{person.pk},"did 0","{event.target}","{moment}"]'
    by_hand = hashlib.sha256(f"{'0' * 64}\n{line}".encode()).hexdigest()
    assert AuditSeal.objects.get().head == by_hand


def test_nothing_to_seal_makes_no_seal(person):
    assert seal_events() == 0
    assert not AuditSeal.objects.exists()
    assert "0 events in 0 seals" in verified()


def test_a_batch_is_bounded_and_the_rest_is_sealed_in_the_same_go(person, monkeypatch):
    monkeypatch.setattr(audit_chain, "MAX_EVENTS", 2)
    add_events(person, 5)
    assert seal_events() == 5
    sizes = AuditSeal.objects.order_by("number").values_list("num_events", flat=True)
    assert list(sizes) == [2, 2, 1]
    verified()


def test_an_event_whose_transaction_was_slower_is_sealed_with_the_next(person):
    late, early = add_events(person, 2)
    number = late.pk
    late.delete()
    seal_audit_task()
    AuditEvent.objects.create(pk=number, user=person, action="late", target="envoy:1")
    seal_audit_task()
    assert [event.pk for event in events_of(1)] == [early.pk]
    assert [event.pk for event in events_of(2)] == [number]
    verified()


def test_two_beats_at_once_do_not_fork_the_chain(person, monkeypatch):
    """The second looked for the last seal before the first had made one: it fails as a whole."""
    add_events(person)
    seal_events()
    add_events(person)
    with monkeypatch.context() as patched:
        patched.setattr(AuditSeal.objects, "order_by", lambda field: AuditSeal.objects.none())
        assert seal_events() == 0
    assert AuditSeal.objects.count() == 1
    assert seal_events() == PER_SEAL
    assert "6 events in 2 seals" in verified()


def test_an_event_that_is_sealed_meanwhile_is_not_sealed_twice(person, monkeypatch):
    events = add_events(person)
    create = AuditSeal.objects.create

    def overtaken(**values):
        seal = create(**values)
        other = create(number=99, num_events=1, head="0" * 64)
        AuditEvent.objects.filter(pk=events[0].pk).update(seal=other)
        return seal

    monkeypatch.setattr(AuditSeal.objects, "create", overtaken)
    assert seal_events() == 0
    assert not AuditSeal.objects.exists()


def test_a_seals_number_is_given_once(person):
    AuditSeal.objects.create(number=1, num_events=0, head="")
    with pytest.raises(IntegrityError), transaction.atomic():
        AuditSeal.objects.create(number=1, num_events=0, head="")


def test_a_head_that_could_not_be_stored_is_stored_by_the_next_beat(person, monkeypatch, caplog):
    def out_of_reach(*args):
        raise StorageError("the bucket does not answer")

    add_events(person)
    with monkeypatch.context() as patched:
        patched.setattr(audit_chain, "write_object", out_of_reach)
        assert seal_events() == PER_SEAL  # sealed all the same
    assert "the bucket does not answer" in caplog.text
    assert "1 seals are not in storage yet" in verified()
    assert store_heads() == 1
    assert "0 seals are not in storage yet" in verified()


def test_what_is_not_sealed_yet_is_counted(batches, person):
    add_events(person, 2)
    assert "2 events are not sealed yet" in verified()


@pytest.mark.parametrize("newest_head", [False, True])
@pytest.mark.parametrize("number", [1, 3, NUM_SEALS])
class TestTampering:
    """With an old seal, one in the middle, and the newest."""

    def test_a_changed_event_is_found(self, batches, number, newest_head):
        event = batches[number - 1][1]
        for change in (
            {"action": "did nothing"},
            {"target": "envoy:99"},
            {"user": None},
            {"happened_at": timezone.now() - timedelta(days=1)},
        ):
            with transaction.atomic():
                AuditEvent.objects.filter(pk=event.pk).update(**change)
                text = found(newest_head=newest_head)
                assert f"Seal {number}: " in text, change
                if not newest_head:
                    assert f"event {event.pk} was changed" in text
                transaction.set_rollback(True)
        verified(newest_head=newest_head)

    def test_a_removed_event_is_found(self, batches, number, newest_head):
        event = batches[number - 1][0]
        pk = event.pk
        event.delete()
        text = found(newest_head=newest_head)
        assert f"Seal {number}: " in text
        if newest_head and number < NUM_SEALS:
            assert "it says 3 events and has 2: 1 event was removed" in text
        else:
            assert f"event {pk} was removed" in text

    def test_reordered_events_are_found(self, batches, number, newest_head):
        first, second, _ = batches[number - 1]
        AuditEvent.objects.filter(pk=first.pk).update(action=second.action)
        AuditEvent.objects.filter(pk=second.pk).update(action=first.action)
        text = found(newest_head=newest_head)
        assert f"Seal {number}: " in text
        if not newest_head:
            assert f"events {first.pk}, {second.pk} were changed, or exchanged" in text

    def test_an_event_moved_to_another_seal_is_found(self, batches, number, newest_head):
        event = batches[number - 1][0]
        other = AuditSeal.objects.get(number=2)
        AuditEvent.objects.filter(pk=event.pk).update(seal=other)
        text = found(newest_head=newest_head)
        assert f"Seal {number}: " in text
        assert "Seal 2: " in text

    def test_an_inserted_event_is_found(self, batches, person, number, newest_head):
        seal = AuditSeal.objects.get(number=number)
        event = AuditEvent.objects.create(user=person, action="x", target="envoy:1", seal=seal)
        text = found(newest_head=newest_head)
        assert f"Seal {number}: " in text
        assert "1 event was added" in text or f"event {event.pk} was added" in text

    def test_an_event_taken_out_of_its_seal_is_found(self, batches, person, number, newest_head):
        event = batches[number - 1][2]
        AuditEvent.objects.filter(pk=event.pk).update(seal=None, action="rewritten")
        seal_events()
        assert f"Seal {number}: " in found(newest_head=newest_head)

    def test_a_rewritten_seal_is_found(self, batches, number, newest_head):
        AuditSeal.objects.filter(number=number).update(head="f" * 64)
        assert f"Seal {number}: " in found(newest_head=newest_head)

    def test_a_chain_that_was_computed_anew_is_found(self, batches, number, newest_head):
        """Who may change the whole database makes it agree with itself, not with the storage."""
        event = batches[number - 1][1]
        AuditEvent.objects.filter(pk=event.pk).update(action="did nothing")
        previous = FIRST_HEAD
        for seal in AuditSeal.objects.order_by("number"):
            previous = audit_chain._Batch(previous, audit_chain._events_of(seal)).head
            AuditSeal.objects.filter(pk=seal.pk).update(head=previous, stored_at=None)
        store_heads()  # does not replace a head that lies there
        text = found(newest_head=newest_head)
        assert "its head is not the one in storage" in text
        if not newest_head:
            assert f"Seal {number}: event {event.pk} was changed" in text
            assert f"Seal {number - 1}: " not in text

    def test_a_cut_off_end_is_found(self, batches, person, number, newest_head):
        """The seal and all after it, with their events."""
        AuditEvent.objects.filter(seal__number__gte=number).delete()
        AuditSeal.objects.filter(number__gte=number).delete()
        text = found(newest_head=newest_head)
        for cut in range(number, NUM_SEALS + 1):
            assert f"Seal {cut} was cut off" in text
        for _ in range(NUM_SEALS + 1 - number):  # a new end of the same length hides nothing
            add_events(person)
            seal_events()
        assert f"Seal {number}: " in found()
        assert "its head is not the one in storage" in found(newest_head=newest_head)

    def test_the_time_of_a_seal_is_held_against_storage(self, batches, number, newest_head):
        AuditSeal.objects.filter(number=number).update(sealed_at=timezone.now())
        if newest_head and number < NUM_SEALS:
            return  # of older seals that way does not read the time
        assert f"Seal {number}: the time of the seal was changed" in found(newest_head=newest_head)


def test_a_seal_removed_from_the_middle_is_found(batches):
    AuditEvent.objects.filter(seal__number=2).delete()
    AuditSeal.objects.filter(number=2).delete()
    text = found()
    assert "Seal 2 was removed from the database." in text
    assert "Seal 3" not in text


@pytest.mark.django_db(transaction=True)
def test_events_of_a_seal_that_is_not_there_are_found(person):
    if connection.vendor != "sqlite":
        pytest.skip("the database itself refuses such an event")
    add_events(person)
    seal_events()
    with connection.constraint_checks_disabled():
        AuditEvent.objects.create(user=person, action="x", target="envoy:1", seal_id=999)
        assert "1 events name a seal that is not there" in found()
        AuditEvent.objects.filter(seal_id=999).delete()


def test_a_head_that_is_gone_from_storage_or_rewritten_there_is_found(batches, settings):
    folder = Path(settings.OBJECT_FOLDER, "director/audit")
    (folder / "000000002.json").unlink()
    (folder / "000000003.json").write_text("{}")
    unreadable = stored(4) | {"stored_at": "yesterday"}
    (folder / "000000004.json").write_text(json.dumps(unreadable))
    text = found()
    assert "Seal 4: its head in" in text
    assert "Seal 2: its head was put into" in text
    assert "Seal 3: its head in" in text
    AuditSeal.objects.filter(number=3).update(stored_at=None)
    assert store_heads() == 0  # what lies there is not replaced


def heads_folder(settings: Any) -> Path:
    return Path(settings.OBJECT_FOLDER, "director/audit")


def chain_computed_anew() -> None:
    """By who may change the whole database, and says that no head was ever stored."""
    previous = FIRST_HEAD
    for seal in AuditSeal.objects.order_by("number"):
        previous = audit_chain._Batch(previous, audit_chain._events_of(seal)).head
        AuditSeal.objects.filter(pk=seal.pk).update(head=previous, stored_at=None)


def test_a_head_that_was_removed_is_not_put_back_before_a_later_one(
    batches, person, settings, caplog
):
    for number in (2, 3):
        (heads_folder(settings) / f"{number:09d}.json").unlink()
    AuditSeal.objects.filter(number__in=(2, 3)).update(stored_at=None)
    add_events(person)
    seal_events()
    assert not (heads_folder(settings) / "000000002.json").exists()
    assert stored(5)["head"] == AuditSeal.objects.get(number=5).head  # the new one is stored
    assert "seal 2 is missing in storage, where a later one lies" in caplog.text
    assert "Seals 2 to 3: their heads are missing" in found()


def test_a_chain_computed_anew_is_not_put_in_the_place_of_heads_that_were_removed(
    batches, settings
):
    for number in (1, 2, 3):
        (heads_folder(settings) / f"{number:09d}.json").unlink()
    AuditEvent.objects.filter(pk=batches[0][0].pk).update(action="did nothing")
    chain_computed_anew()
    assert store_heads() == 0
    text = found()
    assert "Seals 1 to 3: their heads are missing" in text
    assert "Seal 4: it was rewritten: its head is not the one in storage" in text


def test_what_is_refused_for_good_does_not_stand_in_the_way_of_new_heads(
    batches, person, settings, monkeypatch
):
    monkeypatch.setattr(audit_chain, "MAX_SEALS", 2)
    AuditSeal.objects.filter(number__lt=4).update(head="0" * 64, stored_at=None)
    add_events(person)
    seal_events()
    assert (heads_folder(settings) / "000000005.json").exists()


def test_heads_that_are_stored_long_after_their_seal_are_told(batches, settings):
    """As after all were removed, and the database says that none was stored."""
    for path in heads_folder(settings).iterdir():
        path.unlink()
    long_ago = timezone.now() - timedelta(days=2)
    AuditSeal.objects.update(sealed_at=long_ago, stored_at=None)
    assert "Seal 1: made at" in found()
    assert "its head is not in" in found()
    assert store_heads() == NUM_SEALS
    text = verified()
    assert "4 heads were put into storage more than a day after their seal" in text


def test_a_storage_out_of_reach_is_not_a_finding(batches, monkeypatch):
    def out_of_reach(*args, **kwargs):
        raise StorageError("the bucket does not answer")

    monkeypatch.setattr(audit_chain, "read_object", out_of_reach)
    with pytest.raises(CommandError, match="could not be verified: the bucket") as error:
        verified()
    assert error.value.returncode == 2


def test_many_findings_are_counted_and_some_told(batches, monkeypatch):
    monkeypatch.setattr(audit_chain, "MAX_PROBLEMS", 2)
    AuditEvent.objects.filter(seal__isnull=False).update(action="x")
    assert found().endswith("And 2 more.")


def test_sealing_does_not_stand_in_the_way_of_an_account_that_is_closed_or_a_hospital_that_goes(
    batches, person
):
    """Events and seals stay; they hold numbers only."""
    envoy = Envoy.objects.first()
    assert envoy is not None
    person.username, person.email, person.is_active = "erased", "", False
    person.save()
    envoy.delete()
    verified()
