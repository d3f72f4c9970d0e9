// What a run brings: each model's AUROC with its interval, and the reliability curve.
"use strict";

const COLORS = ["#8a94a0", "#d55e00", "#0072b2", "#009e73", "#cc79a7"];
const SHAPES = ["rect", "triangle", "circle", "rectRot", "star"];
const ROW_HEIGHT = 64;
const data = JSON.parse(document.getElementById("benefit-data").textContent);

// The lines from low to high behind the points; Chart.js has no such thing.
const intervals = {
  id: "intervals",
  beforeDatasetsDraw(chart) {
    const { ctx, scales } = chart;
    chart.data.datasets.forEach((dataset, index) => {
      if (!chart.isDatasetVisible(index)) return;
      ctx.save();
      ctx.strokeStyle = dataset.borderColor;
      ctx.lineWidth = 2;
      for (const point of dataset.data) {
        if (!point.interval) continue;
        const y = scales.y.getPixelForValue(point.y);
        ctx.beginPath();
        ctx.moveTo(scales.x.getPixelForValue(point.interval.low), y);
        ctx.lineTo(scales.x.getPixelForValue(point.interval.high), y);
        ctx.stroke();
      }
      ctx.restore();
    });
  },
};

function drawGains() {
  const numModels = data.models.length;
  const rows = data.rows.filter((row) => row.figures.some(({ auroc }) => auroc !== null));
  const bounds = rows.flatMap((row) =>
    row.figures.flatMap(({ auroc, interval }) => [auroc, interval?.low, interval?.high]),
  );
  const known = bounds.filter((value) => typeof value === "number");
  if (!known.length) return null;
  const datasets = data.models.map((model, index) => ({
    label: model,
    borderColor: COLORS[index],
    backgroundColor: COLORS[index],
    pointStyle: SHAPES[index],
    pointRadius: 5,
    data: rows.flatMap((row, position) => {
      const { auroc, interval } = row.figures[index];
      // The models of a hospital lie below one another, around its line.
      const y = position + (index - (numModels - 1) / 2) * (0.7 / numModels);
      return auroc === null ? [] : [{ x: auroc, y, interval }];
    }),
  }));
  const section = document.getElementById("gains");
  section.hidden = false;
  section.querySelector(".chart").style.height = `${rows.length * ROW_HEIGHT + 90}px`;
  return new Chart(document.getElementById("gains-chart"), {
    type: "scatter",
    data: { datasets },
    plugins: [intervals],
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: {
        legend: { position: "bottom", labels: { usePointStyle: true } },
        tooltip: { callbacks: { label: inWords } },
      },
      scales: {
        x: {
          title: { display: true, text: "AUROC, with 95 % intervals" },
          min: Math.floor(20 * Math.min(...known)) / 20,
          max: Math.ceil(20 * Math.max(...known)) / 20,
        },
        y: {
          reverse: true,
          min: -0.5,
          max: rows.length - 0.5,
          afterBuildTicks: (axis) => {
            axis.ticks = rows.map((_, position) => ({ value: position }));
          },
          ticks: { autoSkip: false, callback: (value) => shortened(rows[value]?.name ?? "") },
          grid: { display: false },
        },
      },
    },
  });
}

function shortened(name) {
  const most = window.innerWidth < 576 ? 14 : 32;
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

function inWords({ dataset, raw }) {
  const bounds = raw.interval
    ? ` (${raw.interval.low.toFixed(3)} to ${raw.interval.high.toFixed(3)})`
    : "";
  return `${dataset.label}: ${raw.x.toFixed(3)}${bounds}`;
}

function drawReliability() {
  const curves = data.curves.filter((curve) => curve.points.length);
  if (!curves.length) return null;
  document.getElementById("reliability").hidden = false;
  const diagonal = {
    label: "Equal",
    data: [{ x: 0, y: 0 }, { x: 1, y: 1 }],
    borderColor: "#6b7785",
    backgroundColor: "#6b7785",
    borderDash: [6, 4],
    pointRadius: 0,
    borderWidth: 1,
  };
  const largest = Math.max(...curves.flatMap((curve) => curve.points.flatMap(({ x, y }) => [x, y])));
  const max = Math.min(1, Math.ceil(largest * 10) / 10);
  const colors = COLORS.slice(1);
  return new Chart(document.getElementById("reliability-chart"), {
    type: "scatter",
    data: {
      datasets: [
        ...curves.map((curve, index) => ({
          label: curve.name,
          data: curve.points,
          borderColor: colors[index % colors.length],
          backgroundColor: colors[index % colors.length],
          pointStyle: SHAPES[index % SHAPES.length],
          pointRadius: 4,
          borderWidth: 2,
          showLine: true,
        })),
        { ...diagonal, showLine: true },
      ],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { position: "bottom", labels: { usePointStyle: true } } },
      scales: {
        x: { min: 0, max, title: { display: true, text: "Predicted" } },
        y: { min: 0, max, title: { display: true, text: "Observed" } },
      },
    },
  });
}

const charts = [drawGains(), drawReliability()].filter(Boolean);
// A chart is a picture of the window's width: paper has another.
window.addEventListener("beforeprint", () => charts.forEach((chart) => chart.resize(640, chart.height)));
window.addEventListener("afterprint", () => charts.forEach((chart) => chart.resize()));
