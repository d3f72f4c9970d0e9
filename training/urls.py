from django.urls import path

from training import views

app_name = "training"
urlpatterns = [
    path("runs/<int:run_id>/", views.run_detail, name="run-detail"),
    path("runs/<int:run_id>/live/", views.run_live, name="run-live"),
    path("runs/<int:run_id>/curves/", views.run_curves, name="run-curves"),
]
