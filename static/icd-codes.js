// A suggested ICD code fills code and version; the arrow keys walk through the suggestions.
"use strict";

const suggestions = document.getElementById("icd-suggestions");
const code = document.getElementById("id_icd_code");

suggestions?.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-icd-code]");
  if (!chosen) return;
  code.value = chosen.dataset.icdCode;
  document.getElementById("id_icd_version").value = chosen.dataset.icdVersion;
  suggestions.replaceChildren();
  code.form.querySelector("[type=submit]").focus();
});

code?.form.addEventListener("keydown", (event) => {
  const buttons = [...suggestions.querySelectorAll("button")];
  if (event.key === "Escape") {
    suggestions.replaceChildren();
    code.focus();
  } else if (buttons.length && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const step = event.key === "ArrowDown" ? 1 : -1;
    const next = buttons.indexOf(document.activeElement) + step;
    if (document.activeElement !== code && !buttons.includes(document.activeElement)) return;
    event.preventDefault();
    (buttons[next] ?? code).focus();
  }
});
