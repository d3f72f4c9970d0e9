from training.api.choices import ModelChoiceViewSet
from training.api.packages import ApprovalViewSet, PackageViewSet, StudyViewSet
from training.api.quarantine import UpdateViewSet
from training.api.runs import (
    AssignmentViewSet,
    FederationSummaryView,
    RoundViewSet,
    RunViewSet,
)
from training.api.versions import DistributionViewSet, ModelVersionViewSet

__all__ = [
    "ApprovalViewSet",
    "AssignmentViewSet",
    "DistributionViewSet",
    "FederationSummaryView",
    "ModelChoiceViewSet",
    "ModelVersionViewSet",
    "PackageViewSet",
    "RoundViewSet",
    "RunViewSet",
    "StudyViewSet",
    "UpdateViewSet",
]
