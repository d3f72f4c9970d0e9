// A run's page: draws the curves, and keeps what the reader has opened or scrolled over a poll.
"use strict";

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#5a3fb5", "#56b4e9", "#444444"];
const curves = document.getElementById("curves");
let charts = null;
let drawnUpdates = null;

function line(label, index) {
  return {
    label,
    data: [],
    borderColor: COLORS[index % COLORS.length],
    backgroundColor: COLORS[index % COLORS.length],
    borderDash: index < COLORS.length ? [] : [6, 3],
    borderWidth: 2,
    pointRadius: 2.5,
    spanGaps: true,
    tension: 0.2,
  };
}

function chart(id, title, limits = {}) {
  return new Chart(document.getElementById(id), {
    type: "line",
    data: { labels: [], datasets: [] },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: { legend: { position: "bottom", labels: { boxWidth: 12, boxHeight: 2 } } },
      scales: {
        x: {
          title: { display: true, text: "Global model after round" },
          grid: { display: false },
          ticks: { maxRotation: 0, autoSkipPadding: 12 },
        },
        y: { title: { display: true, text: title }, grace: limits.max ? 0 : "5%", ...limits },
      },
    },
  });
}

// The lines are kept and only their points replaced, so that a hidden line stays hidden.
function show(target, labels, lines) {
  target.data.labels = labels;
  lines.forEach(([label, data], index) => {
    target.data.datasets[index] ??= line(label, index);
    target.data.datasets[index].data = data;
  });
  target.update("none");
}

async function drawCurves() {
  const { numUpdates } = document.getElementById("run-live").dataset;
  if (numUpdates === drawnUpdates || numUpdates === "0") return;
  const response = await fetch(curves.dataset.url, { headers: { Accept: "application/json" } });
  if (!response.ok) return; // the next poll tries again
  const values = await response.json();
  curves.hidden = false;
  charts ??= { loss: chart("loss-chart", "Loss"), auroc: chart("auroc-chart", "AUROC", { max: 1 }) };
  show(charts.loss, values.after_rounds, [
    ["Validation", values.validation_loss],
    ["Training", values.train_loss],
  ]);
  show(
    charts.auroc,
    values.after_rounds,
    values.hospitals.map((hospital) => [hospital.name, hospital.validation_auroc]),
  );
  drawnUpdates = numUpdates;
}

let kept = { open: [], scrolled: {}, state: "" };

function keep() {
  const scrolled = {};
  for (const box of document.querySelectorAll("[data-keep-scroll]")) {
    scrolled[box.dataset.keepScroll] = box.scrollLeft;
  }
  const open = [...document.querySelectorAll("[data-keep-open][open]")];
  kept = {
    open: open.map((details) => details.dataset.keepOpen),
    scrolled,
    state: document.getElementById("run-live").dataset.state,
    focused: document.activeElement?.dataset.keepScroll,
  };
}

function restore() {
  for (const details of document.querySelectorAll("[data-keep-open]")) {
    details.open = kept.open.includes(details.dataset.keepOpen);
  }
  for (const box of document.querySelectorAll("[data-keep-scroll]")) {
    box.scrollLeft = kept.scrolled[box.dataset.keepScroll] ?? 0;
    if (box.dataset.keepScroll === kept.focused) box.focus({ preventScroll: true });
  }
  const { state } = document.getElementById("run-live").dataset;
  if (state !== kept.state) document.getElementById("run-announcement").textContent = state;
}

// Who is training stays in sight, until the reader scrolls elsewhere.
let followedTo = 0;

function followNewestRound() {
  const newest = [...document.querySelectorAll(".matrix th[data-opened]")].at(-1);
  const box = newest?.closest(".wide-table");
  if (!box || Math.abs(box.scrollLeft - followedTo) > 1) return;
  box.scrollLeft = newest.offsetLeft + 2 * newest.offsetWidth - box.clientWidth;
  followedTo = box.scrollLeft;
}

document.addEventListener("htmx:beforeSwap", (event) => {
  // A session that has ended is answered with the login page: go there, with the way back.
  if (!new URL(event.detail.xhr.responseURL).pathname.endsWith("/live/")) {
    event.detail.shouldSwap = false;
    window.location.reload();
    return;
  }
  keep();
});
document.addEventListener("htmx:afterSwap", () => {
  restore();
  followNewestRound();
  drawCurves();
});
followNewestRound();
drawCurves();
