"""Apart from the site itself, which can be imported only once apps are loaded."""

from django.contrib.admin.apps import AdminConfig


class TechLifeAdminConfig(AdminConfig):
    default_site = "techlife.admin_site.TechLifeAdminSite"
