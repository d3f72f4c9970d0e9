from django.urls import URLPattern

app_name = "publichealth"
urlpatterns: list[URLPattern] = []
