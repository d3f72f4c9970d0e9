// A button that copies a field; where the browser does not let it, the text is selected to copy by hand.
"use strict";

for (const button of document.querySelectorAll("[data-copies]")) {
  const field = document.getElementById(button.dataset.copies);
  const told = document.getElementById("copied");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value); // only over HTTPS, or on this machine
      told.textContent = "Copied.";
    } catch {
      field.focus();
      field.select();
      told.textContent = "It is selected: copy it with Ctrl+C, or from the menu.";
    }
  });
}
