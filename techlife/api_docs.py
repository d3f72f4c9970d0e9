"""The API's description to read: from our own static files, under as little as it needs of CSP."""

from typing import Any

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.request import Request

_described: dict[str, str | bytes] = {}  # by format


class SchemaView(SpectacularAPIView):
    """The description, made once a process: nothing but the code decides it, and it takes long."""

    @extend_schema(exclude=True)  # the description does not describe itself
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer = request.accepted_renderer
        if renderer.format not in _described:
            response = super().get(request, *args, **kwargs)
            context = self.get_renderer_context()
            _described[renderer.format] = renderer.render(
                response.data, renderer.media_type, context
            )
        return HttpResponse(_described[renderer.format], content_type=renderer.media_type)


swagger = SpectacularSwaggerSplitView.as_view(
    url_name="api-schema", template_name="api/swagger.html"
)

# ReDoc writes its style sheet from a script, and searches in a worker that it makes from a string.
# The picture of its makers that it asks for stays blocked: nothing is fetched from outside.
redoc = csp_update({"style-src": [UNSAFE_INLINE], "worker-src": ["blob:"]})(
    SpectacularRedocView.as_view(url_name="api-schema", template_name="api/redoc.html")
)
