from django.http import Http404

from publichealth.models import AlertThreshold


def figure_named(name: str) -> AlertThreshold.Figure:
    """A figure as URLs name it, in small letters; a 404 where there is none."""
    try:
        return AlertThreshold.Figure(name.upper())
    except ValueError:
        raise Http404 from None
