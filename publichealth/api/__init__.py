from publichealth.api.drift import DriftCheckViewSet as DriftCheckViewSet
from publichealth.api.drift import RetrainingProposalViewSet as RetrainingProposalViewSet
from publichealth.api.health_risk import HealthRiskBatchView as HealthRiskBatchView
from publichealth.api.health_risk import HealthRiskView as HealthRiskView
from publichealth.api.nodes import NodeSummaryView as NodeSummaryView
from publichealth.api.readings import ReadingViewSet as ReadingViewSet
from publichealth.api.surveillance import AlertThresholdViewSet as AlertThresholdViewSet
from publichealth.api.surveillance import PublicHealthView as PublicHealthView
