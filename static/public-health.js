// The public-health page: draws the charts, again after each poll, and tells of new alerts.
"use strict";

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#5a3fb5", "#56b4e9", "#444444"];
const BAND_COLORS = ["#2e8b57", "#d9b400", "#e8820c", "#d03030", "#8f3f97", "#7e0023"];
const charts = {};

function read(id) {
  const found = document.getElementById(id);
  return found && JSON.parse(found.textContent);
}

function lineChart(id, xTitle, limits = {}) {
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
          title: { display: true, text: xTitle },
          grid: { display: false },
          ticks: { maxRotation: 0, autoSkipPadding: 12 },
        },
        y: { grace: limits.max ? 0 : "5%", ...limits },
      },
    },
  });
}

function barChart(id, xTitle, colors) {
  // On a narrow screen names stand beside the bars: below them some would be left out.
  const isNarrow = window.innerWidth < 576;
  const names = { title: { display: Boolean(xTitle), text: xTitle }, grid: { display: false }, ticks: { autoSkip: false } };
  const shares = { beginAtZero: true, title: { display: true, text: "Share of readings, %" } };
  return new Chart(document.getElementById(id), {
    type: "bar",
    data: { labels: [], datasets: [{ label: "Share of readings, %", data: [], backgroundColor: colors }] },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { display: false } },
      indexAxis: isNarrow ? "y" : "x",
      scales: isNarrow ? { x: shares, y: names } : { x: names, y: shares },
    },
  });
}

// A chart is kept and only its points replaced: it does not flicker, and a hidden line stays hidden.
function showLines(id, make, labels, lines) {
  if (!document.getElementById(id)) return;
  const chart = (charts[id] ??= make(id));
  chart.data.labels = labels;
  lines.forEach(([label, data], index) => {
    chart.data.datasets[index] ??= {
      label,
      borderColor: COLORS[index % COLORS.length],
      backgroundColor: COLORS[index % COLORS.length],
      borderDash: index < COLORS.length ? [] : [6, 3],
      borderWidth: 2,
      pointRadius: 2.5,
      spanGaps: true,
      tension: 0.2,
    };
    chart.data.datasets[index].data = data;
  });
  chart.update("none");
}

function showBars(id, make, pairs) {
  const chart = (charts[id] ??= make(id));
  chart.data.labels = pairs.map(([label]) => label);
  chart.data.datasets[0].data = pairs.map(([, share]) => share);
  chart.update("none");
}

function wrapped(label) {
  return label.length > 10 ? label.split(/ (?=for|groups|and)/) : label;
}

function drawCities() {
  const data = read("public-health-data");
  if (!data) return;
  const byHour = (id) => lineChart(id, "Hour, UTC");
  showLines("risk-chart", (id) => lineChart(id, "Hour, UTC", { min: 0, max: 100 }), data.hours, [
    ["All cities", data.mean_risk],
    ["Highest city", data.highest_risk],
  ]);
  showLines("aqi-chart", byHour, data.hours, [
    ["All cities", data.mean_aqi],
    ["Highest city", data.highest_aqi],
  ]);
  const bands = data.aqi.map(([name, share]) => [wrapped(name), share]);
  showBars("bands-chart", (id) => barChart(id, "", BAND_COLORS), bands);
  showBars("pm25-chart", (id) => barChart(id, "µg/m³", COLORS[0]), data.pm25);
}

function drawTraining() {
  const data = read("training-data");
  if (!data) return;
  showLines(
    "node-loss-chart",
    (id) => lineChart(id, "Round"),
    data.rounds,
    data.nodes.map((node) => [node.name, node.train_loss]),
  );
  const byRound = (id) => lineChart(id, "After round");
  showLines("validation-loss-chart", byRound, data.after_rounds, [["All nodes", data.validation_loss]]);
  showLines(
    "validation-auroc-chart",
    (id) => lineChart(id, "After round", { max: 1 }),
    data.after_rounds,
    data.hospitals.map((node) => [node.name, node.validation_auroc]),
  );
}

let told = document.getElementById("live-alerts")?.dataset.alerts;

function tellNewAlerts() {
  const { alerts } = document.getElementById("live-alerts").dataset;
  if (alerts === told) return;
  told = alerts;
  document.getElementById("announcement").textContent = alerts ? `Alerts: ${alerts}` : "No alert";
}

for (const box of document.querySelectorAll(".needs-script")) box.hidden = false;
// Of the hours the newest are looked at first.
const map = document.getElementById("live-heat-map")?.parentElement;
if (map) map.scrollLeft = map.scrollWidth;
drawCities();
drawTraining();
// After the last part of an answer: all of them are in place then.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.elt.id !== "live-status") return;
  drawCities();
  tellNewAlerts();
});
