"""The call about one's own node."""

from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from envoys.lookup import hospital_of
from envoys.rest import Call, UserRequest
from publichealth.node_serializers import NodeSummarySerializer
from publichealth.services.nodes import node_summary


class NodeSummaryView(Call):
    @extend_schema(responses=NodeSummarySerializer)
    def get(self, request: UserRequest) -> Response:
        """One's own node of readings at a glance."""
        return Response(NodeSummarySerializer(node_summary(hospital_of(request.user))).data)
