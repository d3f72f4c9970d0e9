"""Who may do what: the one list that pages, API, published paths and admin ask.

An action is something a person does; it names who may, and every route that does it. A route that
is in no action answers 404 to everybody: forgetting it here closes it. Which rows one may do it to
is the business of `visible_to`: another hospital's row is a 404 too.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from typing import Any

from django.contrib.auth.models import AnonymousUser

from envoys.models import User
from federated.targets import DIAGNOSES

DOCTOR = User.Role.DOCTOR
DATA_SCIENTIST = User.Role.DATA_SCIENTIST
PUBLIC_HEALTH = User.Role.PUBLIC_HEALTH
ADMINISTRATOR = User.Role.ADMINISTRATOR


class Capability(Enum):
    """A row of the table of roles; a doctor's is always their own hospital's part."""

    ANYONE = "anyone"
    SIGNED_IN = "whoever is logged in"
    PATIENTS = "patients, diagnoses and predictions of one's own hospital"
    READINGS = "readings of one's own node"
    APPROVAL = "answer for one's own hospital's part"
    FIGURES = "counts and metrics, cells under 10 suppressed"
    PACKAGES = "read what hospitals are asked to approve"
    SCORING = "have a hospital scored"
    FEDERATION = "envoys, studies, runs, release, distribution, inference at scale"
    PUBLIC_HEALTH = "read the public-health pages"
    THRESHOLDS = "set the thresholds of public-health alerts"
    ACCOUNTS = "users and audit"


ROLES: dict[Capability, frozenset[str]] = {
    Capability.PATIENTS: frozenset({DOCTOR}),
    Capability.READINGS: frozenset({DOCTOR}),
    Capability.APPROVAL: frozenset({DOCTOR}),
    Capability.FIGURES: frozenset({DOCTOR, DATA_SCIENTIST, PUBLIC_HEALTH, ADMINISTRATOR}),
    Capability.PACKAGES: frozenset({DOCTOR, DATA_SCIENTIST, ADMINISTRATOR}),
    Capability.SCORING: frozenset({DOCTOR, DATA_SCIENTIST, ADMINISTRATOR}),
    Capability.FEDERATION: frozenset({DATA_SCIENTIST, ADMINISTRATOR}),
    Capability.PUBLIC_HEALTH: frozenset({DATA_SCIENTIST, PUBLIC_HEALTH, ADMINISTRATOR}),
    Capability.THRESHOLDS: frozenset({PUBLIC_HEALTH, ADMINISTRATOR}),
    Capability.ACCOUNTS: frozenset({ADMINISTRATOR}),
}
OF_A_HOSPITAL = frozenset({Capability.PATIENTS, Capability.READINGS, Capability.APPROVAL})


def may(user: User | AnonymousUser, capability: Capability) -> bool:
    """Whether a person may do this at all; to which rows, `visible_to` says."""
    if capability is Capability.ANYONE:
        return True
    if not isinstance(user, User) or not user.is_active:
        return False
    if capability is Capability.SIGNED_IN:
        return True
    if capability in OF_A_HOSPITAL and user.envoy_id is None:
        return False  # an administrator has not said which hospital yet
    if capability is Capability.PATIENTS and user.envoy and user.envoy.dataset != DIAGNOSES:
        return False  # a node of readings has no patients
    return user.role in ROLES[capability]


@dataclass(frozen=True)
class Action:
    """What a person does, who may, and by which routes: "METHOD namespace:name"."""

    name: str
    capability: Capability
    routes: tuple[str, ...]
    # Why a page has no call: the browser's own business, or a step of another action.
    page_only: str = ""
    call_only: str = ""  # why a call has no page: devices do it, not people

    @property
    def pages(self) -> list[str]:
        return [route for route in self.routes if not is_call(route) and not is_published(route)]

    @property
    def calls(self) -> list[str]:
        return [route for route in self.routes if is_call(route)]


def is_call(route: str) -> bool:
    return route.partition(" ")[2].startswith("api:")


def is_published(route: str) -> bool:
    return route.partition(" ")[2].startswith("published:")


def action(
    name: str, capability: Capability, *routes: str, page_only: str = "", call_only: str = ""
) -> Action:
    return Action(name, capability, routes, page_only, call_only)


C = Capability

ACTIONS: tuple[Action, ...] = (
    # The site itself
    action(
        "ask whether it runs",
        C.ANYONE,
        "GET healthz",
        "GET readyz",
        page_only="for machines as it is",
    ),
    action(
        "log in",
        C.ANYONE,
        "GET login",
        "POST login",
        "GET login-code",
        "POST login-code",
        "GET login-set-up",
        "POST login-set-up",
        "POST api:token",
        "POST api:token-refresh",
        "POST published:login",
    ),
    action("log out", C.ANYONE, "POST logout", "POST api:token-revoke"),
    action(
        "ask for an account",
        C.ANYONE,
        "GET account-register",
        "POST account-register",
        "GET account-registered",
        "POST api:account-register",
        "POST published:register",
    ),
    action(
        "change one's password",
        C.SIGNED_IN,
        "GET password_change",
        "POST password_change",
        "GET password_change_done",
        "POST api:password-change",
    ),
    action(
        "set up two-step login",
        C.SIGNED_IN,
        "GET account-security",
        "GET two-step-set-up",
        "POST two-step-set-up",
        "POST two-step-codes",
        "POST two-step-turn-off",
        page_only="a person's phone reads it from the screen",
    ),
    action(
        "end one's logins",
        C.SIGNED_IN,
        "GET account-security",
        "POST logins-end",
        "POST api:logins-end",
    ),
    action(
        "see access tokens",
        C.SIGNED_IN,
        "GET access-token-list",
        "GET api:access-token-list",
        "GET api:access-token-detail",
    ),
    action(
        "make an access token",
        C.SIGNED_IN,
        "GET access-token-create",
        "POST access-token-create",
        "POST api:access-token-list",
    ),
    action(
        "revoke an access token",
        C.SIGNED_IN,
        "POST access-token-revoke",
        "POST api:access-token-revoke",
    ),
    action("see who one is", C.SIGNED_IN, "GET home", "GET api:me"),
    action(
        "read the API's description",
        C.ANYONE,
        "GET api-schema",
        "GET docs",
        "GET redoc",
        page_only="it describes the calls",
    ),
    action("use the admin", C.FEDERATION, "* admin:*", page_only="rows, not actions"),
    # A hospital's patients
    action(
        "see the hospital at a glance",
        C.PATIENTS,
        "GET inference:hospital-dashboard",
        "GET api:hospital-summary",
    ),
    action(
        "list patients",
        C.PATIENTS,
        "GET inference:patient-list",
        "POST inference:patient-list",
        "GET api:patient-list",
        "POST api:patient-search",
        "GET published:patient-list",
    ),
    action("see a patient", C.PATIENTS, "GET inference:patient-detail", "GET api:patient-detail"),
    action(
        "register a patient",
        C.PATIENTS,
        "GET diagnoses:patient-register",
        "POST diagnoses:patient-register",
        "POST api:patient-list",
        "POST published:patient-register",
    ),
    action(
        "edit a patient",
        C.PATIENTS,
        "GET diagnoses:patient-edit",
        "POST diagnoses:patient-edit",
        "PATCH api:patient-detail",
    ),
    action(
        "hand over everything stored of a patient",
        C.PATIENTS,
        "GET inference:patient-data",
        "GET api:patient-data",
    ),
    action(
        "erase a patient",
        C.PATIENTS,
        "GET inference:patient-erase",
        "POST inference:patient-erase",
        "DELETE api:patient-detail",
    ),
    action(
        "see what remains of erased patients",
        C.PATIENTS,
        "GET inference:patient-erasure-list",
        "GET inference:patient-erasure-detail",
        "GET inference:patient-erasure-live",
        "GET api:patient-erasure-list",
        "GET api:patient-erasure-detail",
    ),
    action(
        "let an erased patient return",
        C.PATIENTS,
        "POST inference:patient-erasure-return",
        "POST api:patient-erasure-return",
    ),
    action(
        "hand over everything stored of one's hospital",
        C.PATIENTS,
        "GET inference:hospital-data",
        "GET api:hospital-data",
    ),
    action(
        "see admissions",
        C.PATIENTS,
        "GET inference:patient-detail",
        "GET api:admission-list",
        "GET api:admission-detail",
    ),
    action(
        "admit a patient",
        C.PATIENTS,
        "GET diagnoses:admission-create",
        "POST diagnoses:admission-create",
        "POST api:admission-list",
    ),
    action(
        "discharge a patient",
        C.PATIENTS,
        "GET diagnoses:admission-discharge",
        "POST diagnoses:admission-discharge",
        "POST api:admission-discharge",
    ),
    action(
        "take a discharge back",
        C.PATIENTS,
        "POST diagnoses:admission-reopen",
        "POST api:admission-reopen",
    ),
    action(
        "give one's own risk level",
        C.PATIENTS,
        "POST diagnoses:admission-risk-level",
        "PATCH api:admission-detail",
    ),
    action(
        "see diagnoses",
        C.PATIENTS,
        "GET inference:patient-detail",
        "GET api:diagnosis-list",
        "GET api:diagnosis-detail",
    ),
    action(
        "record a diagnosis",
        C.PATIENTS,
        "POST diagnoses:diagnosis-create",
        "POST api:diagnosis-list",
        "POST published:diagnosis-create",
    ),
    action(
        "strike out a diagnosis",
        C.PATIENTS,
        "POST diagnoses:diagnosis-strike-out",
        "POST api:diagnosis-strike-out",
    ),
    action(
        "take a strike-out back",
        C.PATIENTS,
        "POST diagnoses:diagnosis-restore",
        "POST api:diagnosis-restore",
    ),
    action(
        "search the ICD",
        C.SIGNED_IN,
        "GET diagnoses:icd-code-search",
        "POST diagnoses:icd-code-search",
        "GET api:icd-code-list",
        "GET api:icd-code-detail",
    ),
    action(
        "see a patient's risk",
        C.PATIENTS,
        "GET inference:patient-detail",
        "GET inference:patient-risk",
        "GET api:prediction-list",
        "GET api:prediction-detail",
        "GET published:inference-global",
        "GET published:inference-envoy-model",
    ),
    action(
        "see exports",
        C.PATIENTS,
        "GET diagnoses:export-list",
        "GET diagnoses:export-live",
        "GET api:export-list",
        "GET api:export-detail",
    ),
    action(
        "export to storage",
        C.PATIENTS,
        "POST diagnoses:export-create",
        "POST api:export-list",
        "POST published:export-create",
    ),
    action(
        "see what is odd about one's own hospital's codes",
        C.PATIENTS,
        "GET diagnoses:code-report",
        "GET api:envoy-codes",
    ),
    action(
        "see imports",
        C.PATIENTS,
        "GET diagnoses:import-list",
        "GET diagnoses:import-detail",
        "GET diagnoses:import-live",
        "GET api:import-list",
        "GET api:import-detail",
    ),
    action(
        "upload files",
        C.PATIENTS,
        "GET diagnoses:import-create",
        "POST diagnoses:import-create",
        "POST api:import-list",
    ),
    action(
        "import what was checked",
        C.PATIENTS,
        "POST diagnoses:import-confirm",
        "POST api:import-confirm",
    ),
    action(
        "discard an upload",
        C.PATIENTS,
        "POST diagnoses:import-discard",
        "POST api:import-discard",
    ),
    # A hospital's answer to a training package
    action(
        "read packages",
        C.PACKAGES,
        "GET training:package-list",
        "GET training:package-detail",
        "GET api:package-list",
        "GET api:package-detail",
        "GET api:approval-list",
        "GET api:approval-detail",
    ),
    action(
        "approve a package",
        C.APPROVAL,
        "POST training:package-approve",
        "POST api:approval-list",
    ),
    action(
        "refuse a package",
        C.APPROVAL,
        "POST training:package-refuse",
        "POST api:approval-refuse",
    ),
    action(
        "revoke an approval",
        C.APPROVAL,
        "POST training:package-revoke",
        "POST api:approval-revoke",
    ),
    # Which model a hospital uses
    action(
        "overrule the choice of a model",
        C.APPROVAL,
        "POST training:model-choice-overrule",
        "POST api:model-choice-overrule",
    ),
    action(
        "take an overruling back",
        C.APPROVAL,
        "POST training:model-choice-take-back",
        "POST api:model-choice-take-back",
    ),
    # Scoring
    action(
        "see inference runs",
        C.SCORING,
        "GET inference:inference-run-list",
        "GET inference:inference-run-live",
        "GET api:inference-run-list",
        "GET api:inference-run-detail",
    ),
    action(
        "have a hospital scored",
        C.SCORING,
        "POST inference:inference-run-create",
        "POST api:inference-run-list",
    ),
    # Counts and metrics
    action(
        "see envoys",
        C.FIGURES,
        "GET training:envoy-list",
        "GET training:envoy-detail",
        "GET api:envoy-list",
        "GET api:envoy-detail",
        "GET published:envoy-list",
    ),
    action(
        "see what is odd about a hospital's codes",
        C.FIGURES,
        "GET training:envoy-codes",
        "GET api:envoy-codes",
    ),
    action(
        "see studies",
        C.FIGURES,
        "GET training:study-list",
        "GET training:study-detail",
        "GET api:study-list",
        "GET api:study-detail",
    ),
    action(
        "see runs",
        C.FIGURES,
        "GET training:run-list",
        "GET training:run-detail",
        "GET training:run-live",
        "GET training:run-curves",
        "GET api:run-list",
        "GET api:run-detail",
        "GET api:round-list",
        "GET api:round-detail",
    ),
    action(
        "see what a run brings",
        C.FIGURES,
        "GET training:run-benefit",
        "GET api:run-benefit",
    ),
    action(
        "see which model suits a hospital",
        C.FIGURES,
        "GET training:model-choice-list",
        "GET training:model-choice-detail",
        "GET api:model-choice-list",
        "GET api:model-choice-detail",
    ),
    action(
        "see model versions",
        C.FIGURES,
        "GET training:model-version-list",
        "GET training:model-version-detail",
        "GET training:model-version-live",
        "GET api:model-version-list",
        "GET api:model-version-detail",
        "GET api:distribution-list",
        "GET api:distribution-detail",
    ),
    action(
        "see the federation at a glance",
        C.FIGURES,
        "GET training:federation-dashboard",
        "GET api:federation-summary",
    ),
    # Running the federation
    action(
        "invite an envoy",
        C.FEDERATION,
        "GET envoys:envoy-create",
        "POST envoys:envoy-create",
        "POST api:envoy-list",
        "POST published:envoy-create",
    ),
    action(
        "edit an envoy",
        C.FEDERATION,
        "GET envoys:envoy-edit",
        "POST envoys:envoy-edit",
        "PATCH api:envoy-detail",
    ),
    action("suspend an envoy", C.FEDERATION, "POST envoys:envoy-suspend", "POST api:envoy-suspend"),
    action(
        "let a suspended envoy return",
        C.FEDERATION,
        "POST envoys:envoy-resume",
        "POST api:envoy-resume",
    ),
    action(
        "delete an envoy",
        C.FEDERATION,
        "GET inference:envoy-delete",
        "POST inference:envoy-delete",
        "DELETE api:envoy-detail",
    ),
    action(
        "see what remains of deleted envoys",
        C.FEDERATION,
        "GET inference:erasure-list",
        "GET inference:erasure-detail",
        "GET inference:erasure-live",
        "GET api:erasure-list",
        "GET api:erasure-detail",
    ),
    action(
        "make a study",
        C.FEDERATION,
        "GET training:study-create",
        "POST training:study-create",
        "POST api:study-list",
    ),
    action(
        "package a training",
        C.FEDERATION,
        "GET training:package-create",
        "POST training:package-create",
        "POST api:package-list",
    ),
    action(
        "start a run",
        C.FEDERATION,
        "GET training:run-create",
        "POST training:run-create",
        "POST api:run-list",
    ),
    action("stop a run", C.FEDERATION, "POST training:run-stop", "POST api:run-stop"),
    action(
        "retry one hospital",
        C.FEDERATION,
        "POST training:assignment-retry",
        "POST api:assignment-retry",
    ),
    action(
        "go on without one hospital",
        C.FEDERATION,
        "POST training:assignment-drop",
        "POST api:assignment-drop",
    ),
    action(
        "see updates and what is in quarantine",
        C.FEDERATION,
        "GET training:quarantine-list",
        "GET api:update-list",
        "GET api:update-detail",
    ),
    action(
        "release an update from quarantine",
        C.FEDERATION,
        "POST training:update-release",
        "POST api:update-release",
    ),
    action(
        "reject an update in quarantine",
        C.FEDERATION,
        "POST training:update-reject",
        "POST api:update-reject",
    ),
    action(
        "train one envoy by hand",
        C.FEDERATION,
        "GET training:manual-round",
        "GET training:manual-round-live",
        "POST training:envoy-launch",
        "GET api:assignment-list",
        "GET api:assignment-detail",
        "POST api:envoy-launch",
        "POST published:envoy-launch",
    ),
    action(
        "aggregate chosen envoys",
        C.FEDERATION,
        "POST training:round-aggregate",
        "POST api:round-aggregate",
        "POST published:aggregate",
    ),
    action(
        "release and distribute a version",
        C.FEDERATION,
        "POST training:model-version-distribute",
        "POST api:distribution-list",
        "POST published:distribute",
    ),
    action(
        "watch the tasks",
        C.FEDERATION,
        "GET envoys:task-list",
        "GET envoys:task-list-live",
        "GET api:task-list",
        "GET api:task-detail",
        "GET api:worker-list",
    ),
    action("retry a task", C.FEDERATION, "POST envoys:task-retry", "POST api:task-retry"),
    # Users and audit
    action(
        "read the audit",
        C.ACCOUNTS,
        "GET envoys:audit-event-list",
        "GET api:audit-event-list",
    ),
    action(
        "export the audit",
        C.ACCOUNTS,
        "GET envoys:audit-event-export",
        "GET api:audit-event-export",
    ),
    # Public health
    action(
        "see risk and air in the cities",
        C.PUBLIC_HEALTH,
        "GET publichealth:dashboard",
        "GET publichealth:dashboard-live",
        "GET api:public-health",
        "GET api:alert-threshold-list",
    ),
    action(
        "set an alert threshold",
        C.THRESHOLDS,
        "POST publichealth:threshold-set",
        "PATCH api:alert-threshold-detail",
    ),
    action(
        "take an alert threshold back to its default",
        C.THRESHOLDS,
        "POST publichealth:threshold-reset",
        "POST api:alert-threshold-reset",
    ),
    action(
        "read a node's readings back",
        C.READINGS,
        "GET api:reading-list",
        call_only="pages show figures of them, not rows",
    ),
    action(
        "see the node at a glance",
        C.READINGS,
        "GET publichealth:node-dashboard",
        "GET api:node-summary",
    ),
    action(
        "erase the readings of a subject",
        C.READINGS,
        "POST api:reading-erase",
        call_only="a subject is known by an ID in the node's own system, which erases it there too",
    ),
    action(
        "record readings",
        C.READINGS,
        "POST api:reading-list",
        call_only="devices send them",
    ),
    action(
        "ask for one's own health risk",
        C.ANYONE,
        "GET publichealth:citizen",
        "POST publichealth:citizen",
        "POST api:health-risk",
        "POST api:health-risk-batch",
        "POST published:predict",
        "POST published:predict-batch",
    ),
    action(
        "see whether readings have drifted",
        C.PUBLIC_HEALTH,
        "GET publichealth:drift",
        "GET publichealth:drift-live",
        "GET publichealth:drift-check-detail",
        "GET api:drift-check-list",
        "GET api:drift-check-detail",
    ),
    action(
        "check for drift now",
        C.PUBLIC_HEALTH,
        "POST publichealth:drift-check-create",
        "POST api:drift-check-list",
    ),
    action(
        "see proposals to train again",
        C.PUBLIC_HEALTH,
        "GET publichealth:drift",
        "GET api:retraining-proposal-list",
        "GET api:retraining-proposal-detail",
    ),
    action(
        "propose to train again",
        C.PUBLIC_HEALTH,
        "POST publichealth:proposal-create",
        "POST api:retraining-proposal-list",
    ),
    action(
        "withdraw a proposal",
        C.PUBLIC_HEALTH,
        "POST publichealth:proposal-withdraw",
        "POST api:retraining-proposal-withdraw",
    ),
    action(
        "accept a proposal",
        C.FEDERATION,
        "POST publichealth:proposal-accept",
        "POST api:retraining-proposal-accept",
    ),
    action(
        "decline a proposal",
        C.FEDERATION,
        "POST publichealth:proposal-decline",
        "POST api:retraining-proposal-decline",
    ),
)


# What the audit keeps no event of: nothing of ours is shown or changed there. Beside these it leaves
# out whatever `ANYONE` may use (logging in and asking for an account record themselves, and who asks
# for a risk is nobody's business), and what no URL of this list serves, as static files.
UNAUDITED = frozenset(
    {
        # empty forms
        "GET diagnoses:patient-register",
        "GET diagnoses:import-create",
        "GET envoys:envoy-create",
        "GET training:study-create",
        "GET password_change",
        "GET password_change_done",
        # keeps what is searched for; the list that is shown then is recorded
        "POST inference:patient-list",
        # the public code list, asked with every letter typed
        "GET diagnoses:icd-code-search",
        "POST diagnoses:icd-code-search",
        "GET api:icd-code-list",
        "GET api:icd-code-detail",
        # words for the admin's own scripts
        "GET admin:jsi18n",
    }
)


@cache
def _actions() -> dict[str, dict[str, list[Action]]]:
    """View name -> method -> what it does: several actions may share a page."""
    table: dict[str, dict[str, list[Action]]] = {}
    for each in ACTIONS:
        for route in each.routes:
            method, _, name = route.partition(" ")
            table.setdefault(name, {}).setdefault(method, []).append(each)
    return table


def actions_of(view_name: str, method: str) -> list[Action]:
    """What a route does; nothing for a route that is in no action.

    A method that a route does not have is judged as the route's others are: who may use the route
    learns that the method is wrong, and nobody else learns that there is a route.
    """
    methods = _actions().get(view_name)
    if methods is None:
        namespace = view_name.rpartition(":")[0]
        methods = _actions().get(f"{namespace}:*", {})
    method = "GET" if method == "HEAD" else method
    if method in methods:
        return methods[method]
    return methods.get("*") or [each for several in methods.values() for each in several]


def capabilities_of(view_name: str, method: str) -> list[Capability]:
    """Of which capabilities one opens a route: either of the actions that share it is enough."""
    return [each.capability for each in actions_of(view_name, method)]


@lru_cache(maxsize=4096)  # a method may be any word that a stranger sends
def is_audited(view_name: str, method: str) -> bool:
    """Whether the audit keeps an event of every request of somebody who is logged in."""
    capabilities = capabilities_of(view_name, method)
    return (
        bool(capabilities)
        and Capability.ANYONE not in capabilities
        and f"{'GET' if method == 'HEAD' else method} {view_name}" not in UNAUDITED
    )


def asks_by_itself(view_name: str) -> bool:
    """Whether a page asks for this part of it again and again, as long as it is open."""
    return view_name.endswith("-live") or view_name == "training:run-curves"


def methods_of(view_name: str) -> frozenset[str]:
    """The methods that a page has; none where that is for its view to say, as in the admin."""
    methods = frozenset(_actions().get(view_name, {}))
    return methods | {"HEAD"} if "GET" in methods else methods


def may_use(user: Any, view_name: str, method: str) -> bool:
    return any(may(user, capability) for capability in capabilities_of(view_name, method))
