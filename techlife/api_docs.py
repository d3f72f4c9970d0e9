"""The API's description to read: from our own static files, under as little as it needs of CSP."""

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

swagger = SpectacularSwaggerSplitView.as_view(
    url_name="api-schema", template_name="api/swagger.html"
)

# ReDoc writes its style sheet from a script, and searches in a worker that it makes from a string.
# The picture of its makers that it asks for stays blocked: nothing is fetched from outside.
redoc = csp_update({"style-src": [UNSAFE_INLINE], "worker-src": ["blob:"]})(
    SpectacularRedocView.as_view(url_name="api-schema", template_name="api/redoc.html")
)
