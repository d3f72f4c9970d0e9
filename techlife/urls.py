from django.contrib.auth import views as auth_views
from django.urls import include, path

from techlife import views
from training.views import run_list

urlpatterns = [
    path("", run_list, name="home"),
    path("", include("training.urls")),
    path("healthz", views.healthz, name="healthz"),
    path("login/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
]
