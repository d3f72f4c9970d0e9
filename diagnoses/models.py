import uuid
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q

from envoys.encryption import EncryptedTextField, name_index, name_indexes
from envoys.models import Envoy, User
from envoys.work import LeasedWork, WorkQuerySet
from federated.code_report import seen_from_outside
from federated.targets import DIAGNOSES


class Sex(models.TextChoices):
    FEMALE = "F", "Female"
    MALE = "M", "Male"
    UNKNOWN = "", "Not recorded"


class RiskLevel(models.IntegerChoices):
    LOW = 0, "Low"
    MEDIUM = 1, "Medium"
    HIGH = 2, "High"


def is_of_hospital(user: User) -> bool:
    return user.is_doctor and user.envoy_id is not None


class HospitalQuerySet(models.QuerySet[Any]):
    """What hangs on a hospital: its imports, exports, uploads."""

    def visible_to(self, user: User) -> Self:
        """A doctor's own hospital's, and nobody else's."""
        return self.filter(envoy_id=user.envoy_id) if is_of_hospital(user) else self.none()


class HospitalWorkQuerySet(WorkQuerySet):
    def visible_to(self, user: User) -> Self:
        return self.filter(envoy_id=user.envoy_id) if is_of_hospital(user) else self.none()


class Import(models.Model):
    """A cohort read into one hospital. Its rows stay invisible until it is COMPLETE."""

    class Status(models.TextChoices):
        CHECKING = "CHECKING", "Checking the files"
        INSERTING = "INSERTING", "Inserting"
        COMPLETE = "COMPLETE", "Complete"
        FAILED = "FAILED", "Failed"

    envoy = models.ForeignKey(Envoy, on_delete=models.CASCADE, related_name="imports")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.CHECKING)
    reason = models.TextField(blank=True)
    source_sha256 = models.CharField(max_length=64)  # of the files' contents
    source_name = models.CharField(max_length=200)
    num_done = models.PositiveIntegerField(default=0)
    num_total = models.PositiveIntegerField(default=0)
    num_admissions = models.PositiveIntegerField(default=0)
    num_diagnoses = models.PositiveIntegerField(default=0)
    # [{"kind", "count", "example"}]: what was taken all the same, for a person to look at.
    warnings = models.JSONField(default=list)
    started_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    started_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    objects = HospitalQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["envoy"],
                condition=Q(status__in=["CHECKING", "INSERTING"]),
                name="one_import_of_an_envoy_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.source_name} into {self.envoy_id}: {self.status}"


class ImportedQuerySet(models.QuerySet[Any]):
    """Rows of a hospital, without those of an import that is not complete."""

    envoy_path = "envoy"

    def complete(self) -> Self:
        return self.filter(
            Q(source_import__isnull=True) | Q(source_import__status=Import.Status.COMPLETE)
        )

    def visible_to(self, user: User) -> Self:
        """A doctor's own hospital; nobody else sees a patient."""
        if not (user.is_doctor and user.envoy_id):
            return self.none()
        return self.complete().filter(envoy_id=user.envoy_id)


class PatientQuerySet(ImportedQuerySet):
    def named(self, name: str) -> Self:
        """Patients of exactly this name, whatever its case and spacing."""
        return self.filter(name_index__in=name_indexes(name))


def new_subject_id() -> str:
    return uuid.uuid4().hex


class Patient(models.Model):
    # No index of its own: others begin with it, and each costs an import.
    envoy = models.ForeignKey(
        Envoy, on_delete=models.PROTECT, related_name="patients", db_index=False
    )
    subject_id = models.CharField(max_length=64, default=new_subject_id)
    name = EncryptedTextField(blank=True)
    phone = EncryptedTextField(blank=True)
    name_index = models.CharField(max_length=64, blank=True)
    sex = models.CharField(max_length=1, choices=Sex.choices, blank=True)
    birth_year = models.PositiveSmallIntegerField(null=True, blank=True)
    source_import = models.ForeignKey(
        Import, null=True, on_delete=models.CASCADE, related_name="patients"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PatientQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["envoy", "subject_id"], name="one_patient_per_subject")
        ]
        # The list of patients, newest first, is read a page at a time.
        indexes = [
            models.Index(fields=["envoy", "-created_at", "-id"], name="patients_newest_first"),
            models.Index(fields=["envoy", "name_index"], name="patients_by_name"),
        ]

    def __str__(self) -> str:
        return self.subject_id  # never the name: this ends up in logs

    def set_name(self, name: str) -> None:
        self.name = name
        self.name_index = name_index(name) if name else ""


# Begun, and nothing tells of an end: neither a discharge here nor what a source says of one.
IS_OPEN = Q(
    admitted_at__isnull=False,
    discharged_at__isnull=True,
    los_days__isnull=True,
    discharged_home__isnull=True,
    risk_tier__isnull=True,
    readmit_30d__isnull=True,
) & (Q(died_in_hospital__isnull=True) | Q(died_in_hospital=False))


class AdmissionQuerySet(ImportedQuerySet):
    def open(self) -> Self:
        return self.filter(IS_OPEN)

    def reopenable(self) -> Self:
        """Discharged here: what a source says of a stay's end is not taken back."""
        return self.filter(
            discharged_at__isnull=False,
            los_days__isnull=True,
            risk_tier__isnull=True,
            readmit_30d__isnull=True,
            died_30d_after_discharge__isnull=True,
        )


class Admission(models.Model):
    """A stay: the unit that is predicted. An empty value is not known, never zero."""

    # No index of its own: `one_admission_per_hadm_id` begins with it.
    envoy = models.ForeignKey(
        Envoy, on_delete=models.PROTECT, related_name="admissions", db_index=False
    )
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="admissions")
    hadm_id = models.CharField(max_length=64)
    age = models.FloatField(null=True, blank=True)  # years; the middle of a band
    admitted_at = models.DateTimeField(null=True, blank=True)
    discharged_at = models.DateTimeField(null=True, blank=True)
    los_days = models.FloatField(null=True, blank=True)
    discharged_home = models.BooleanField(null=True, blank=True)
    died_in_hospital = models.BooleanField(null=True, blank=True)
    died_30d_after_discharge = models.BooleanField(null=True, blank=True)
    readmit_30d = models.BooleanField(null=True, blank=True)  # as given by the source
    risk_tier = models.PositiveSmallIntegerField(null=True, blank=True, choices=RiskLevel.choices)
    clinician_risk_level = models.PositiveSmallIntegerField(
        null=True, blank=True, choices=RiskLevel.choices
    )
    number_diagnoses = models.PositiveIntegerField(null=True, blank=True)
    number_inpatient = models.PositiveIntegerField(null=True, blank=True)
    number_emergency = models.PositiveIntegerField(null=True, blank=True)
    number_outpatient = models.PositiveIntegerField(null=True, blank=True)
    source_import = models.ForeignKey(
        Import, null=True, on_delete=models.CASCADE, related_name="admissions"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdmissionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["envoy", "hadm_id"], name="one_admission_per_hadm_id")
        ]
        # Few of many stays are open at a time: who is in the hospital is read from these alone.
        indexes = [
            models.Index(fields=["envoy", "patient"], condition=IS_OPEN, name="open_admissions")
        ]

    def __str__(self) -> str:
        return self.hadm_id

    @property
    def is_open(self) -> bool:
        ends = (self.discharged_at, self.los_days, self.discharged_home, self.risk_tier)
        return (
            self.admitted_at is not None
            and all(end is None for end in (*ends, self.readmit_30d))
            and not self.died_in_hospital
        )

    @property
    def is_reopenable(self) -> bool:
        given = (self.los_days, self.risk_tier, self.readmit_30d, self.died_30d_after_discharge)
        return self.discharged_at is not None and all(value is None for value in given)


class DiagnosisQuerySet(models.QuerySet["Diagnosis"]):
    def standing(self) -> Self:
        return self.filter(struck_out_at__isnull=True)


class Diagnosis(models.Model):
    admission = models.ForeignKey(Admission, on_delete=models.CASCADE, related_name="diagnoses")
    seq_num = models.PositiveIntegerField()
    icd_code = models.CharField(max_length=8)  # without the dot
    icd_version = models.PositiveSmallIntegerField(choices=[(9, "ICD-9"), (10, "ICD-10")])
    recorded_by = models.ForeignKey(
        User, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    recorded_at = models.DateTimeField(auto_now_add=True)
    struck_out_by = models.ForeignKey(
        User, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    struck_out_at = models.DateTimeField(null=True)

    objects = DiagnosisQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "diagnoses"
        constraints = [
            models.UniqueConstraint(
                fields=["admission", "seq_num"],
                condition=Q(struck_out_at__isnull=True),
                name="one_standing_diagnosis_per_place",
            )
        ]
        # Of an imported diagnosis there is neither, and most are imported.
        indexes = [
            models.Index(
                fields=["recorded_by"],
                condition=Q(recorded_by__isnull=False),
                name="diagnoses_recorded_by",
            ),
            models.Index(
                fields=["struck_out_by"],
                condition=Q(struck_out_by__isnull=False),
                name="diagnoses_struck_out_by",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.icd_code} (ICD-{self.icd_version})"


class IcdCode(models.Model):
    """The public code list, for search and titles; filled once from `federated.icd`."""

    code = models.CharField(max_length=8)
    version = models.PositiveSmallIntegerField()
    title = models.CharField(max_length=400)
    category = models.CharField(max_length=3, blank=True, db_index=True)  # 3-character ICD-10
    chapter = models.CharField(max_length=200, blank=True)
    is_leaf = models.BooleanField(default=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["code", "version"], name="one_row_per_code")]

    def __str__(self) -> str:
        return f"{self.code} (ICD-{self.version})"


class Snapshot(LeasedWork):
    """A hospital's export, frozen: what a run trains on, identified by its sha256."""

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="snapshots")
    dataset = models.CharField(max_length=40, default=DIAGNOSES)  # see federated.datasets
    sha256 = models.CharField(max_length=64, blank=True)
    diagnoses_sha256 = models.CharField(max_length=64, blank=True)
    outcomes_sha256 = models.CharField(max_length=64, blank=True)
    num_admissions = models.PositiveIntegerField(default=0)
    num_diagnoses = models.PositiveIntegerField(default=0)
    num_readings = models.PositiveIntegerField(default=0)
    num_bytes = models.PositiveBigIntegerField(default=0)
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)
    # A patient in it was erased, so its files are gone; the hashes stay, runs name them.
    removed_at = models.DateTimeField(null=True)

    objects: ClassVar = HospitalWorkQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"snapshot {self.pk} of envoy {self.envoy_id}"


class CodeReport(models.Model):
    """What `federated.code_report` found in a hospital's newest export."""

    envoy = models.OneToOneField(Envoy, on_delete=models.CASCADE, related_name="code_report")
    num_codes = models.PositiveIntegerField()
    kinds = models.JSONField(default=list)  # OddCodes as JSON
    made_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"report of codes of envoy {self.envoy_id}"

    def kinds_shown_to(self, user: User) -> list[dict[str, Any]]:
        """All of it to whoever reads the hospital's patients, to others what `seen_from_outside`."""
        is_own = is_of_hospital(user) and user.envoy_id == self.envoy_id
        return list(self.kinds) if is_own else seen_from_outside(self.kinds)


class Upload(LeasedWork):
    """Files that a doctor sent: checked by a worker, shown, and imported once confirmed."""

    class Stage(models.TextChoices):
        CHECK = "CHECK", "Checking"
        IMPORT = "IMPORT", "Importing"
        DISCARDED = "DISCARDED", "Discarded"

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="uploads")
    stage = models.CharField(max_length=16, choices=Stage.choices, default=Stage.CHECK)
    # In the hospital's storage, by what they hold ("diagnoses", "outcomes"): key, sha256 and
    # num_bytes of the file, and head_key and head_sha256 of its first rows.
    files = models.JSONField(default=dict)
    num_problems = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list)  # the first of them, in words
    num_admissions = models.PositiveIntegerField(default=0)
    num_diagnoses = models.PositiveIntegerField(default=0)
    warnings = models.JSONField(default=list)  # as those of an Import
    source_import = models.ForeignKey(
        Import, null=True, on_delete=models.SET_NULL, related_name="uploads"
    )
    uploaded_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)

    objects: ClassVar = HospitalWorkQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"upload {self.pk} to envoy {self.envoy_id}"

    @property
    def is_refused(self) -> bool:
        return self.stage == self.Stage.CHECK and self.num_problems > 0

    @property
    def is_checked(self) -> bool:
        """Nothing is wrong with it, and it waits for a person's word."""
        is_done = self.stage == self.Stage.CHECK and self.status == self.Status.COMPLETE
        return is_done and not self.num_problems

    @property
    def is_importable(self) -> bool:
        return self.is_checked or (
            self.stage == self.Stage.IMPORT and self.status == self.Status.FAILED
        )

    @property
    def is_discardable(self) -> bool:
        return self.stage == self.Stage.CHECK or (
            self.stage == self.Stage.IMPORT and self.status == self.Status.FAILED
        )

    @property
    def is_imported(self) -> bool:
        return self.stage == self.Stage.IMPORT and self.status == self.Status.COMPLETE


class PatientErasure(LeasedWork):
    """A patient who was erased: the rows at once, then what storage holds."""

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="patient_erasures")
    patient_number = models.PositiveBigIntegerField()  # by which the audit names who is gone
    # By it an import sees that a file would bring the patient back; see `diagnoses.services.erased`.
    subject_sha256 = EncryptedTextField(blank=True)
    counts = models.JSONField(default=list)  # [{"what", "count"}]: what went
    remains = models.JSONField(default=list)  # [{"what", "why"}], in words
    seen = models.JSONField(default=list)  # sha256 of exports found to be without the patient
    # Of those that held the patient, or did as far as can be known: some were gone before.
    held = models.JSONField(default=list)
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    objects: ClassVar = HospitalWorkQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"erasure {self.pk} of a patient of envoy {self.envoy_id}"

    @property
    def may_return(self) -> bool:
        return not self.subject_sha256
