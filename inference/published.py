"""The published paths about inference: a contract with existing clients."""

from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from envoys.lookup import visible_envoy
from envoys.rest import Call, UserRequest
from inference import serializers, services


class InferenceView(Call):
    """A page of a hospital's admissions, scored now; the whole hospital is a task."""

    model = ""

    @extend_schema(
        parameters=[serializers.PageQuerySerializer], responses=serializers.PredictedPageSerializer
    )
    def get(self, request: UserRequest, envoy: str) -> Response:
        chosen = visible_envoy(request.user, envoy)
        query = serializers.PageQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        version = services.MODELS[self.model](services.study_to_predict(chosen), chosen)
        page = services.predict_page(
            chosen, version, requested_by=request.user, **query.validated_data
        )
        return Response(serializers.PredictedPageSerializer(page).data)


class GlobalInferenceView(InferenceView):
    """A page of a hospital's admissions, scored with the global model delivered there."""

    model = "global"


class OwnInferenceView(InferenceView):
    """A page of a hospital's admissions, scored with the model of its own training."""

    model = "own"
