from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from envoys import accounts, token_pages, two_step_pages
from techlife import api_docs, api_urls, published_urls, views
from techlife.readiness import readyz

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
    path("readyz", readyz, name="readyz"),
    path("login/", accounts.LoginView.as_view(), name="login"),
    path("login/code/", two_step_pages.login_code, name="login-code"),
    path("login/set-up/", two_step_pages.login_set_up, name="login-set-up"),
    path("logout/", accounts.LogoutView.as_view(), name="logout"),
    path("account/", two_step_pages.account_security, name="account-security"),
    path("account/two-step/", two_step_pages.two_step_set_up, name="two-step-set-up"),
    path("account/two-step/codes/", two_step_pages.two_step_codes, name="two-step-codes"),
    path("account/two-step/off/", two_step_pages.two_step_turn_off, name="two-step-turn-off"),
    path("account/logins/end/", two_step_pages.logins_end, name="logins-end"),
    path("account/tokens/", token_pages.access_token_list, name="access-token-list"),
    path("account/tokens/new/", token_pages.access_token_create, name="access-token-create"),
    path(
        "account/tokens/<int:token_id>/revoke/",
        token_pages.access_token_revoke,
        name="access-token-revoke",
    ),
    path("register/", accounts.account_register, name="account-register"),
    path("register/done/", accounts.account_registered, name="account-registered"),
    path("password/", accounts.PasswordChangeView.as_view(), name="password_change"),
    path(
        "password/done/", auth_views.PasswordChangeDoneView.as_view(), name="password_change_done"
    ),
]
handler404 = "techlife.views.page_not_found"
handler500 = "techlife.views.server_error"
