"""What remains of whom was erased, and why, in words for a doctor or a data-protection officer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from django.db.models import Q, QuerySet

from envoys.models import Envoy
from training.models import ModelVersion, RunParticipant


@dataclass(frozen=True)
class Remains:
    what: str
    why: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


OUTSIDE = (
    Remains(
        "Backups of the database and of storage, and old versions in a bucket that keeps them",
        "They are kept apart, so that an accident does not reach them. Whoever runs this"
        " installation lets them run out, and erases again after restoring one.",
    ),
    Remains(
        "The hospital's own systems, and files that were downloaded from here",
        "They are out of reach from here. Erase there, too, what is to be gone.",
    ),
)
FIGURES = Remains(
    "Sums and means over many patients: counts of admissions in past runs and inferences, metrics",
    "They were found over many patients, and nobody is told apart in them.",
)


def versions_trained_with(
    envoy: Envoy, participants: "QuerySet[RunParticipant]"
) -> "QuerySet[ModelVersion]":
    """Of the runs of these participants, the models that a hospital's rows can have changed.

    They are the federation's, what any hospital made of them, and the hospital's own: what another
    hospital trained alone has seen its rows only.
    """
    versions: QuerySet[ModelVersion] = ModelVersion.objects.filter(
        ~Q(kind=ModelVersion.Kind.LOCAL) | Q(envoy=envoy), run__in=participants.values("run")
    )
    return versions


def of_patients_rows(*, num_events: int) -> list[Remains]:
    """What remains when a patient's rows are gone."""
    return [
        Remains(
            f"Events of the audit: {num_events:,}",
            "They say who saw or changed a patient with this number, and when. There is no name and"
            " no diagnosis in them. The audit is never changed, so that nobody can hide what they"
            " did.",
        ),
        Remains(
            "A hash of the subject ID, encrypted, until you let the patient return",
            "By it an import sees that a file would bring the patient back, and refuses it.",
        ),
        FIGURES,
        *OUTSIDE,
    ]


def of_patients_exports(*, versions: Sequence[ModelVersion], num_exports: int) -> list[Remains]:
    """What remains when the exports with a patient are gone, of which models were trained."""
    return [*_models(versions), *_hashes(num_exports)]


def of_hospitals_runs(
    envoy: Envoy, *, name: str, num_runs: int, num_versions: int
) -> list[Remains]:
    """What remains of a deleted hospital or node where runs name it."""
    words = envoy.words
    remains = []
    if num_versions:
        remains.append(
            Remains(
                f"What {_many(num_versions, 'model')} learned with it, and copies at other"
                f" {words.places}",
                f"What a {words.place}'s {words.people} have changed cannot be taken out of a"
                f" model's parameters. No row of a {words.person} is in them, and they go on to"
                " work.",
            )
        )
    if num_runs:
        remains += [
            Remains(
                f"The {words.place}'s name, {name}, in {_many(num_runs, 'run')}",
                "The models made there name it as one of their sources: what it did in each round,"
                f" and the checksums of its data and its updates. No {words.person} is in them.",
            ),
            Remains(
                "The updates it sent, in the director's storage",
                "The lineage of a model is checked with them. They are parameters, not rows.",
            ),
            *_said_of(envoy, [FIGURES]),
        ]
    return remains


def of_hospitals_people(envoy: Envoy, *, num_accounts: int, num_tokens: int) -> list[Remains]:
    """What remains of a deleted hospital or node whoever named it."""
    remains = []
    if num_accounts:
        remains.append(
            Remains(
                f"{_many(num_accounts, 'account')} of its doctors, closed",
                "The audit says who did what. They can no longer log in.",
            )
        )
    if num_tokens:
        remains.append(
            Remains(
                f"{_many(num_tokens, 'access token')} of its doctors, revoked",
                "The audit says what was done with them. They open nothing.",
            )
        )
    remains += [
        Remains(
            "The events of the audit",
            "They name rows by number, no patient. The audit is never changed, so that nobody can"
            " hide what they did.",
        ),
        *OUTSIDE,
    ]
    return _said_of(envoy, remains)


def _said_of(envoy: Envoy, remains: Sequence[Remains]) -> list[Remains]:
    words = envoy.words
    return [Remains(words.instead(each.what), words.instead(each.why)) for each in remains]


def _models(versions: Sequence[ModelVersion]) -> list[Remains]:
    if not versions:
        return []
    names = ", ".join(str(version) for version in versions[:5])
    more = f" and {len(versions) - 5} more" if len(versions) > 5 else ""
    return [
        Remains(
            f"What {_many(len(versions), 'model')} learned, perhaps also from this patient:"
            f" {names}{more}",
            "They were trained on exports with this patient. Not every patient is trained on: some"
            " have no outcome, and of the others some only test a model. What one patient has"
            " changed cannot be taken out of a model's parameters. No row is in them. A model that"
            " is trained from now on does not know the patient.",
        ),
        Remains(
            "Copies of these models that were delivered to other hospitals",
            "They are the same parameters, and no row is in them.",
        ),
    ]


def _hashes(num_exports: int) -> list[Remains]:
    if not num_exports:
        return []
    return [
        Remains(
            f"Checksums of {_many(num_exports, 'removed export')}, and of the updates trained there",
            "By them the lineage of a model can be checked. No row can be found from a checksum.",
        )
    ]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
