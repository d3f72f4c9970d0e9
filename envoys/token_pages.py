"""Pages of access tokens: the list, a new one, and the end of one."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from envoys import service_tokens, two_step
from envoys.errors import AccountRefusedError
from envoys.forms import TablerForm
from envoys.models import ServiceToken, User
from envoys.pages import UserRequest, page_of
from envoys.service_tokens import DEFAULT_DAYS, MAX_DAYS, accounts_for, actions_for

LIFETIMES = ((30, "30 days"), (DEFAULT_DAYS, f"{DEFAULT_DAYS} days"), (180, "180 days"))


class TokenForm(TablerForm, forms.Form):
    name = forms.CharField(
        max_length=80,
        label="What it is for",
        help_text="As nightly export of the registry. By this name you find it again.",
    )
    days = forms.TypedChoiceField(
        coerce=int,
        choices=[*LIFETIMES, (MAX_DAYS, "One year")],
        initial=DEFAULT_DAYS,
        label="It ends after",
    )
    actions = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple,
        label="The program may",
        help_text="Only what is ticked, and only while the account may do it.",
    )

    password = forms.CharField(
        strip=False,
        max_length=128,
        label="Your password",
        help_text="Once more, since a token lasts longer than this session.",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    otp = forms.CharField(
        max_length=32,
        label="Code",
        help_text="The six digits that the app shows now. Each serves once, so wait for the next if"
        " you have just logged in.",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, user: User, made_by: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [each.name for each in actions_for(user, made_by=made_by)]
        field = self.fields["actions"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = [(name, name) for name in names]
        if not two_step.is_on(made_by):
            del self.fields["otp"]


@require_http_methods(["GET"])
def access_token_list(request: UserRequest) -> HttpResponse:
    tokens = ServiceToken.objects.visible_to(request.user).select_related("user", "created_by")
    return render(request, "envoys/access_token_list.html", {"page": page_of(request, tokens)})


@never_cache
@require_http_methods(["GET", "POST"])
def access_token_create(request: UserRequest) -> HttpResponse:
    accounts = accounts_for(request.user)
    username = request.POST.get("account") or request.GET.get("account") or request.user.username
    user = get_object_or_404(accounts, username=username)
    form = TokenForm(request.POST or None, user=user, made_by=request.user)
    if request.method == "POST" and form.is_valid():
        try:
            token, key = service_tokens.ask_for_token(
                request, user=user, made_by=request.user, **form.cleaned_data
            )
        except AccountRefusedError as error:
            for field, texts in error.problems.items():
                form.add_error(field if field in form.fields else None, texts)
        else:
            # The key is in this page only: nothing that could be asked for again holds it.
            return render(request, "envoys/access_token_made.html", {"token": token, "key": key})
    context = {"form": form, "account": user, "accounts": accounts}
    return render(request, "envoys/access_token_create.html", context)


@require_POST
def access_token_revoke(request: UserRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(ServiceToken.objects.visible_to(request.user), pk=token_id)
    service_tokens.revoke_token(token, revoked_by=request.user)
    messages.success(request, f"{token} is revoked: what uses it is refused from now on.")
    return redirect("access-token-list")
