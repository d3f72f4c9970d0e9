from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from envoys import accounts
from techlife import api_docs, api_urls, published_urls, views

urlpatterns = [
    # First: `/predict` is asked more often than all else, and each pattern before it takes time.
    path("", include((published_urls, "published"))),
    path("", views.home, name="home"),
    path("", include("envoys.urls")),
    path("", include("diagnoses.urls")),
    path("", include("training.urls")),
    path("", include("inference.urls")),
    path("", include("publichealth.urls")),
    path("api/v1/", include((api_urls, "api"))),
    path("api/v1/schema", api_docs.SchemaView.as_view(), name="api-schema"),
    path("docs", api_docs.swagger, name="docs"),
    path("redoc", api_docs.redoc, name="redoc"),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
    path("login/", accounts.LoginView.as_view(), name="login"),
    path("logout/", accounts.LogoutView.as_view(), name="logout"),
    path("register/", accounts.account_register, name="account-register"),
    path("register/done/", accounts.account_registered, name="account-registered"),
    path("password/", accounts.PasswordChangeView.as_view(), name="password_change"),
    path(
        "password/done/", auth_views.PasswordChangeDoneView.as_view(), name="password_change_done"
    ),
]
handler404 = "techlife.views.page_not_found"
handler500 = "techlife.views.server_error"
