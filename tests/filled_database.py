"""Migrates a filled database of the first tables to today's: `python -m tests.filled_database`.

A process of its own, on the database that DATABASE_URL names: a migration works on the default one.
"""

import os
from datetime import timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "techlife.settings")
NUM_PATIENTS = 200
FIRST = [
    ("envoys", "0001_users_and_envoys"),
    ("diagnoses", "0001_patients_and_diagnoses"),
    ("training", "0001_runs_and_versions"),
    ("inference", "0001_predictions"),
    ("token_blacklist", "0013_alter_blacklistedtoken_options_and_more"),
]
# What a migration is there to change in rows that stand: column -> by table.
CHANGED = {("token_blacklist_outstandingtoken", "token")}


def main() -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    assert not connection.introspection.table_names(), "this needs an empty database"
    executor = MigrationExecutor(connection)
    executor.migrate(FIRST)
    fill(executor.loader.project_state(FIRST).apps)
    before = contents()
    assert sum(len(rows) for _, rows in before.values()) > 4 * NUM_PATIENTS
    call_command("migrate", verbosity=0, interactive=False)
    compare(before, contents())
    check_what_was_filled_in()
    connection.check_constraints()
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def fill(apps: Any) -> None:
    """Rows of each kind, as the first release has written them."""
    from django.utils import timezone

    from envoys.encryption import name_index

    def make(label: str, **values: Any) -> Any:
        return apps.get_model(label).objects.create(**values)

    now = timezone.now()
    envoys = [
        make("envoys.Envoy", name=name, slug=name.lower(), serial_id=f"serial-{name}")
        for name in ("Alpha", "Beta", "Gamma")
    ]
    users = [
        make("envoys.User", username=f"doctor-{n}", password="!", role="doctor", envoy=envoy)
        for n, envoy in enumerate(envoys)
    ]
    scientist = make("envoys.User", username="scientist", password="!", role="data_scientist")
    make(
        "token_blacklist.OutstandingToken",
        user_id=scientist.pk,
        jti="jti",
        token="a token that would let its reader in",
        created_at=now,
        expires_at=now + timedelta(days=7),
    )
    make("diagnoses.IcdCode", code="I10", version=10, title="Hypertension", category="I10")
    study = make(
        "training.Study", name="diagnosis-risk", target="risk_tier", schema_sha256="0" * 64
    )
    run = make(
        "training.TrainingRun", study=study, plan={"rounds": 1}, plan_sha256="1" * 64, num_rounds=1
    )
    opened = make("training.TrainingRound", run=run, number=1, status="AGGREGATED")
    everybodys = make_version(make, study, opened, None, 1)
    for envoy, user in zip(envoys, users, strict=True):
        snapshot = make(
            "diagnoses.Snapshot", envoy=envoy, status="COMPLETE", sha256="2" * 64, requested_by=user
        )
        make(
            "training.StudyMembership",
            study=study,
            envoy=envoy,
            plan={"rounds": 1},
            plan_sha256="1" * 64,
            packaged_at=now,
            approved_at=now,
            approved_by=user,
        )
        make("training.RunParticipant", run=run, envoy=envoy, snapshot=snapshot)
        assignment = make(
            "training.RoundAssignment",
            training_round=opened,
            envoy=envoy,
            snapshot=snapshot,
            status="SUBMITTED",
        )
        make(
            "training.ReceivedUpdate",
            assignment=assignment,
            sha256=str(envoy.pk) * 64,
            num_examples=50,
            verdict="ACCEPTED",
        )
        own = make_version(make, study, opened, envoy, 1)
        make("training.Distribution", version=everybodys, envoy=envoy, status="COMPLETE")
        scored = make("inference.InferenceRun", envoy=envoy, model_version=own, status="COMPLETE")
        for number in range(NUM_PATIENTS // len(envoys)):
            patient = make(
                "diagnoses.Patient",
                envoy=envoy,
                subject_id=f"{envoy.slug}-{number}",
                name=f"Test Patient {envoy.slug} {number}",
                phone="000",
                name_index=name_index(f"Test Patient {envoy.slug} {number}"),
                sex="F",
                birth_year=1950,
            )
            admission = make(
                "diagnoses.Admission",
                envoy=envoy,
                patient=patient,
                hadm_id=f"H{number}",
                age=70.0,
                discharged_at=now,
                risk_tier=number % 3,
            )
            make(
                "diagnoses.Diagnosis",
                admission=admission,
                seq_num=1,
                icd_code="I10",
                icd_version=10,
                recorded_by=user,
            )
            for version in (own, everybodys):
                make(
                    "inference.Prediction",
                    admission=admission,
                    model_version=version,
                    inference_run=scored if version is own else None,
                    predicted_class=1,
                    probabilities=[0.2, 0.5, 0.3],
                    requested_by=user,
                )
            make("envoys.AuditEvent", user=user, action="saw", target=f"patient:{patient.pk}")


def make_version(make: Any, study: Any, opened: Any, envoy: Any, number: int) -> Any:
    return make(
        "training.ModelVersion",
        study=study,
        envoy=envoy,
        number=number,
        run=opened.run,
        training_round=opened,
        storage_key="model.safetensors",
        params_sha256="3" * 64,
        object_sha256="4" * 64,
        manifest={"classes": ["Low", "Medium", "High"]},
    )


Contents = dict[str, tuple[list[str], dict[Any, tuple[Any, ...]]]]


def contents() -> Contents:
    """Of every table that has an id: its columns, and its rows as they stand in the database."""
    from django.db import connection

    found: Contents = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            description = connection.introspection.get_table_description(cursor, table)
            columns = [column.name for column in description]
            if "id" not in columns or table == "django_migrations":
                continue
            names = ", ".join(connection.ops.quote_name(column) for column in columns)
            cursor.execute(f"SELECT {names} FROM {connection.ops.quote_name(table)}")
            at = columns.index("id")
            found[table] = (columns, {row[at]: row for row in cursor.fetchall()})
    return found


def compare(before: Contents, after: Contents) -> None:
    """No row has gone, and none has changed but where a migration says so."""
    for table, (columns, rows) in before.items():
        columns_now, rows_now = after[table]
        for pk, row in rows.items():
            now = dict(zip(columns_now, rows_now[pk], strict=True))
            for column, value in zip(columns, row, strict=True):
                if (table, column) not in CHANGED:
                    assert now[column] == value, f"{table}.{column} of row {pk} has changed"


def check_what_was_filled_in() -> None:
    from django.db.models import F
    from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

    from diagnoses.models import Patient, Snapshot
    from envoys.encryption import name_indexes
    from envoys.models import Envoy, User
    from federated.targets import DIAGNOSES
    from inference.models import Prediction
    from training.models import ModelVersion

    assert set(Envoy.objects.values_list("kind", flat=True)) == {Envoy.Kind.HOSPITAL}
    assert set(Snapshot.objects.values_list("dataset", flat=True)) == {DIAGNOSES}
    assert ModelVersion.objects.get(envoy=None).kind == ModelVersion.Kind.GLOBAL
    own = ModelVersion.objects.exclude(envoy=None)
    assert set(own.values_list("kind", flat=True)) == {ModelVersion.Kind.FINE_TUNED}
    predictions = Prediction.objects.all()
    assert predictions.count() == 2 * Patient.objects.count() > NUM_PATIENTS
    assert not predictions.exclude(envoy=F("admission__envoy")).exists()
    assert OutstandingToken.objects.get().token == ""
    assert User.objects.get(username="scientist").login_epoch == 0
    patient = Patient.objects.get(name_index__in=name_indexes("Test Patient beta 5"))
    assert (patient.name, patient.phone) == ("Test Patient beta 5", "000")


if __name__ == "__main__":
    main()
