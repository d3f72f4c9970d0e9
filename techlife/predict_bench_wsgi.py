"""The site with the URLs of `predict_bench_urls`."""

from django.conf import settings

from techlife.wsgi import application as application

settings.ROOT_URLCONF = "techlife.predict_bench_urls"
