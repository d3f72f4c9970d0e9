import pytest

from envoys.audit_chain import seal_events
from envoys.errors import NotNowError
from envoys.models import AuditEvent, Envoy, User
from envoys.services import (
    DIRECTORS_FOLDERS,
    InvalidEnvoyError,
    create_envoy,
    edit_envoy,
    resume_envoy,
    suspend_envoy,
)
from envoys.storage import director_storage, envoy_storage, list_objects, write_object
from publichealth.services.synthetic_nodes import open_node
from tests.factories import make_envoy, make_study, make_user
from tests.federation import make_hospital, start
from training.services import study_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist():
    return make_user(User.Role.DATA_SCIENTIST)


def create(name="Made-up Hospital", **values):
    return create_envoy(name=name, created_by=None, **values)


def test_an_invited_hospital_has_a_slug_a_place_and_an_audit_event(scientist):
    envoy = create_envoy(name="  Høyland   Síde ", created_by=scientist)
    assert (envoy.name, envoy.slug, envoy.status) == ("Høyland Síde", "hyland-side", "ACTIVE")
    assert envoy.storage_prefix == "envoys/hyland-side"
    assert envoy.region == "eu-north-1"
    assert len(envoy.serial_id) == 16
    event = AuditEvent.objects.get()
    assert (event.user, event.action, event.target) == (
        scientist,
        "created envoy",
        f"envoy:{envoy.pk}",
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": " "}, "1 to 200 characters"),
        ({"name": "x" * 201}, "1 to 200 characters"),
        ({"name": "line\x00feed"}, r"the name has a character that is not seen, U\+0000"),
        ({"name": "Alpha\u202e"}, r"the name has a character that is not seen, U\+202E"),
        ({"name": "12"}, "take it for a number"),
        ({"name": "standing hospital"}, "there is a hospital standing hospital already"),
        ({"name": "Standing, hospital"}, "too like that of the hospital Standing Hospital"),
        ({"bucket": "Upper"}, "cannot be a bucket"),
        ({"bucket": "a..b"}, "cannot be a bucket"),
        ({"bucket": "../etc"}, "cannot be a bucket"),
        ({"prefix": "../other"}, "cannot be a prefix"),
        ({"prefix": "a/../b"}, "cannot be a prefix"),
        ({"prefix": "/etc"}, "cannot be a prefix"),
        ({"prefix": "/"}, "cannot be a prefix"),
        ({"prefix": "a//b"}, "cannot be a prefix"),
        ({"prefix": "a\\b"}, "cannot be a prefix"),
        ({"prefix": "updates"}, "the director's own objects"),
        ({"prefix": "studies/x"}, "the director's own objects"),
        ({"prefix": "audit"}, "the director's own objects"),
        ({"prefix": "Audit/000"}, "the director's own objects"),
        ({"prefix": "ENVOYS"}, "the director's own objects"),
        ({"prefix": "envoys"}, "the director's own objects"),
        ({"prefix": "envoys/standing-hospital"}, "overlap in one bucket"),
        ({"prefix": "envoys/standing-hospital/deeper"}, "overlap in one bucket"),
        ({"prefix": "Envoys/Standing-Hospital"}, "overlap in one bucket"),
        ({"region": "eu north"}, "cannot be a region"),
        ({"queue": "a queue"}, "cannot be a queue"),
    ],
)
def test_a_hospital_gets_no_name_or_place_that_is_unsafe_or_anothers(values, words):
    make_envoy(name="Standing Hospital", slug="standing-hospital")
    with pytest.raises(InvalidEnvoyError, match=words):
        create(**values)
    assert Envoy.objects.count() == 1


def test_the_same_prefix_serves_in_another_bucket_and_a_slash_at_its_end_is_dropped():
    create("One", prefix="hospitals/one/")
    other = create("Two", prefix="hospitals/one", bucket="bucket-of-two")
    assert Envoy.objects.get(name="One").prefix == "hospitals/one"
    assert other.storage_prefix == "hospitals/one"
    create("Three", prefix="hospitals/one-more")
    with pytest.raises(InvalidEnvoyError, match="overlap"):
        create("Four", prefix="hospitals")


def test_the_folder_that_stands_for_the_directors_bucket_is_the_directors_bucket():
    create("One", prefix="hospitals/one")
    with pytest.raises(InvalidEnvoyError, match="overlap"):
        create("Two", prefix="hospitals/one", bucket="director")


def test_editing_changes_what_is_given_and_keeps_the_slug(scientist):
    envoy = create("Old Name", queue="own")
    changed = edit_envoy(envoy, name="New Name", region="eu-west-1", edited_by=scientist)
    changed.refresh_from_db()
    assert (changed.name, changed.slug, changed.region, changed.queue) == (
        "New Name",
        "old-name",
        "eu-west-1",
        "own",
    )
    assert AuditEvent.objects.filter(user=scientist, action="edited envoy").count() == 1
    edit_envoy(changed, name="New Name", edited_by=scientist)  # its own name is not another's


def test_a_place_changes_only_while_nothing_lies_there():
    envoy = create("One")
    envoy = edit_envoy(envoy, prefix="elsewhere/one", edited_by=None)
    write_object(envoy_storage(envoy), "diagnoses.csv", b"subject_id\n")
    with pytest.raises(NotNowError, match="lie in director at elsewhere/one"):
        edit_envoy(envoy, prefix="", edited_by=None)
    with pytest.raises(NotNowError, match="out of sight"):
        edit_envoy(envoy, bucket="another-bucket", edited_by=None)
    envoy.refresh_from_db()
    assert (envoy.bucket, envoy.prefix) == ("", "elsewhere/one")
    edit_envoy(envoy, queue="own", prefix="elsewhere/one", edited_by=None)


def test_nobody_gets_a_place_where_something_lies():
    """Deleting the hospital would erase it."""
    write_object(director_storage(), "somebodys/objects/kept.csv", b"kept")
    with pytest.raises(NotNowError, match="something lies in director at somebodys already"):
        create(prefix="somebodys")
    envoy = create(prefix="free")
    with pytest.raises(NotNowError, match="at somebodys/objects already"):
        edit_envoy(envoy, prefix="somebodys/objects", edited_by=None)
    assert Envoy.objects.get().prefix == "free"


def test_a_node_of_the_demonstration_finds_its_place_again_after_the_rows_are_gone():
    envoy = open_node("Made-up wearables", Envoy.Kind.WEARABLES)
    write_object(envoy_storage(envoy), "readings.csv", b"subject_id\n")
    envoy.delete()
    assert open_node("Made-up wearables", Envoy.Kind.WEARABLES).slug == envoy.slug


@pytest.mark.filterwarnings("ignore:No directory at")
def test_whatever_the_director_stores_lies_where_no_hospital_can_be(queue, scientist):
    """A run with its updates, a study of its own and the main one, a release, the audit's seals."""
    hospitals = [make_hospital(name, num_patients=40) for name in ("Alpha", "Beta", "Gamma")]
    main, another = (
        study_for("risk_tier"),
        make_study(name="another", schema_sha256=study_for("risk_tier").schema_sha256),
    )
    assert (main.storage_prefix, another.storage_prefix) == ("", "studies/another/")
    for study in (main, another):
        run = start(hospitals, study=study)
        queue.work_and_sweep()
        run.refresh_from_db()
        assert run.status == "FINISHED", run.reason
    seal_events()
    own = tuple(f"{envoy.storage_prefix}/" for envoy in hospitals)
    keys = [key for key, _ in list_objects(director_storage()) if not key.startswith(own)]
    assert {key.partition("/")[0] for key in keys} == DIRECTORS_FOLDERS


def test_a_hospital_is_suspended_and_returns(scientist):
    envoy = make_envoy()
    with pytest.raises(NotNowError, match=f"{envoy} is active"):
        resume_envoy(envoy, resumed_by=scientist)
    suspend_envoy(envoy, suspended_by=scientist)
    assert not Envoy.objects.active().exists()
    with pytest.raises(NotNowError, match=f"{envoy} is suspended"):
        suspend_envoy(envoy, suspended_by=scientist)
    resume_envoy(envoy, resumed_by=scientist)
    assert Envoy.objects.active().get() == envoy
    assert list(AuditEvent.objects.order_by("pk").values_list("action", flat=True)) == [
        "suspended envoy",
        "resumed envoy",
    ]


def test_a_deleted_hospital_is_neither_edited_nor_resumed():
    envoy = make_envoy(status=Envoy.Status.DELETED)
    with pytest.raises(NotNowError, match="is deleted"):
        edit_envoy(envoy, name="Another", edited_by=None)
    with pytest.raises(NotNowError, match="is deleted"):
        resume_envoy(envoy, resumed_by=None)
