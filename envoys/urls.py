from django.urls import path

from envoys import audit_views, views

app_name = "envoys"
urlpatterns = [
    path("envoys/new/", views.envoy_create, name="envoy-create"),
    path("envoys/<int:envoy_id>/edit/", views.envoy_edit, name="envoy-edit"),
    path("envoys/<int:envoy_id>/suspend/", views.envoy_suspend, name="envoy-suspend"),
    path("envoys/<int:envoy_id>/resume/", views.envoy_resume, name="envoy-resume"),
    path("audit/", audit_views.audit_event_list, name="audit-event-list"),
    path("audit/export.csv", audit_views.audit_event_export, name="audit-event-export"),
    path("tasks/", views.task_list, name="task-list"),
    path("tasks/live/", views.task_list_live, name="task-list-live"),
    path("tasks/<slug:kind>/<int:row_id>/retry/", views.task_retry, name="task-retry"),
]
