"""Where a cohort's files stand. Three layouts are read, each file gzipped or not:

DIR/envoys/<name>/diagnoses_icd.csv or diagnoses.csv, and optionally outcomes.csv
DIR/diagnoses_icd.csv or diagnoses.csv, and optionally outcomes.csv     one envoy: an export
DIR/hosp/diagnoses_icd.csv, patients.csv, admissions.csv                MIMIC-IV; a column `envoy`
                                                    of DIR/derived_outcomes.csv splits it
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from federated.cohorts.csv_files import read_rows
from federated.errors import CohortError


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """Where an envoy's rows stand; with `patients` and `admissions` in the layout of MIMIC-IV."""

    name: str
    diagnoses: Path
    outcomes: Path | None = None
    patients: Path | None = None
    admissions: Path | None = None
    is_split: bool = False  # the files hold other envoys' rows too: `outcomes` says whose

    @property
    def client_id(self) -> str:
        """What the envoy is called in a round, whoever runs it: seeds and order follow from it."""
        return client_id_of(self.name)


def client_id_of(name: str) -> str:
    """Lower-case ASCII letters, digits, hyphens and underscores; a hash where none remain."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    client_id = re.sub(r"[^a-z0-9_]+", "-", ascii_name).strip("-_")[:80]
    return client_id or f"hospital-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def find_envoys(data_dir: Path) -> list[EnvoyFiles]:
    """The envoys of a cohort folder, sorted by name.

    Raises:
        CohortError: there is none, it is not plain which file to read, or two names are too alike
            to tell the envoys apart by.
    """
    envoys = _find_envoys(data_dir)
    by_client_id: dict[str, str] = {}
    for files in envoys:
        other = by_client_id.setdefault(files.client_id, files.name)
        if other != files.name:
            raise CohortError(
                [
                    f"{data_dir}: {other!r} and {files.name!r} both become {files.client_id!r}:"
                    " rename one"
                ]
            )
    return envoys


def _find_envoys(data_dir: Path) -> list[EnvoyFiles]:
    folders = sorted(
        path
        for path in data_dir.glob("envoys/*")
        if path.is_dir() and not path.name.startswith(".")
    )
    if folders:
        return [_envoy_folder(folder) for folder in folders]
    if (data_dir / "hosp").is_dir():
        return _mimic_envoys(data_dir)
    if _file(data_dir, "diagnoses_icd", "diagnoses"):
        return [_envoy_folder(data_dir)]
    wanted = "neither envoys/<name>/diagnoses_icd.csv nor hosp/diagnoses_icd.csv"
    raise CohortError([f"{data_dir}: no cohort: {wanted}"])


def envoys_of_admissions(files: EnvoyFiles) -> dict[str, str] | None:
    """The envoy of each hadm_id in files that envoys share; None where this one has its own."""
    if not files.is_split or files.outcomes is None:
        return None
    rows = read_rows(files.outcomes, ("hadm_id", "envoy"))
    return {hadm_id: envoy for _, (hadm_id, envoy) in rows if envoy}


def _file(folder: Path, *names: str) -> Path | None:
    found = [
        path
        for name in names
        for end in (".csv", ".csv.gz")
        if (path := folder / (name + end)).is_file()
    ]
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise CohortError([f"{folder.name}: {listed}: remove all but one"])
    return found[0] if found else None


def _required_file(folder: Path, *names: str) -> Path:
    path = _file(folder, *names)
    if path is None:
        raise CohortError([f"{folder.name}: {' or '.join(names)}.csv or .csv.gz is missing"])
    return path


def _envoy_folder(folder: Path) -> EnvoyFiles:
    diagnoses = _required_file(folder, "diagnoses_icd", "diagnoses")
    return EnvoyFiles(folder.resolve().name, diagnoses, _file(folder, "outcomes"))


def _mimic_envoys(data_dir: Path) -> list[EnvoyFiles]:
    hosp = data_dir / "hosp"
    whole = EnvoyFiles(
        name=data_dir.resolve().name,
        diagnoses=_required_file(hosp, "diagnoses_icd"),
        outcomes=_file(data_dir, "derived_outcomes"),
        patients=_required_file(hosp, "patients"),
        admissions=_required_file(hosp, "admissions"),
    )
    if whole.outcomes is None:
        return [whole]
    names = {envoy for _, (envoy,) in read_rows(whole.outcomes, (), ("envoy",))} - {""}
    if not names:
        return [whole]
    return [replace(whole, name=name, is_split=True) for name in sorted(names)]
