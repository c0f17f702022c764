"use strict";
/* Charts of the training: loss and accuracy, depths, and the learning curve. They use the names of run.js. */

function drawCurves() {
  const { good, bad, soft } = shades();
  const line = (label, key, shade, more = {}) => ({ label, data: curves.points.map((point) => ({ x: point.x, y: point[key], point })), borderColor: shade, backgroundColor: shade, borderWidth: 2, pointRadius: curves.points.length > 60 ? 0 : 3, segment: { borderColor: ({ p0, p1 }) => (p0.raw.point.depth === p1.raw.point.depth ? undefined : "transparent") }, ...more });
  const sweep = curves.kind === "sweep";
  const datasets = [line("validation loss", "loss", good), line("validation accuracy", "accuracy", bad, { yAxisID: "right", borderDash: [5, 4] })];
  if (!sweep) datasets.splice(1, 0, line("training loss", "train", soft));
  chart("curves", {
    type: "line",
    data: { datasets },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: { x: axis(sweep ? "L2 strength" : "epoch", sweep ? { type: "logarithmic" } : { type: "linear", ticks: { precision: 0 } }), y: axis("loss (nats)", { beginAtZero: true }), right: axis("accuracy", { ...share, min: undefined, position: "right", grid: { drawOnChartArea: false }, ticks: { callback: share.ticks.callback } }) },
      plugins: { tooltip: { callbacks: { title: ([item]) => item.raw.point.title, label: ({ dataset, raw }) => `${dataset.label} ${dataset.yAxisID === "right" ? percent(raw.y) : raw.y.toPrecision(3)}` } } },
    },
  });
}

/** Draws a bar from `low` to `high` through each point that has these. */
const errorBars = {
  id: "errorBars",
  beforeDatasetsDraw(drawn) {
    const { ctx, data, scales } = drawn, wing = 5;
    ctx.save();
    ctx.lineWidth = 1.5;
    data.datasets.forEach((dataset, number) => drawn.getDatasetMeta(number).data.forEach(({ x }, index) => {
      const { low, high } = dataset.data[index];
      if (low === undefined) return;
      const [bottom, top] = [low, high].map((value) => scales.y.getPixelForValue(value));
      ctx.strokeStyle = dataset.borderColor;
      ctx.beginPath();
      for (const [fromX, fromY, toX, toY] of [[x, bottom, x, top], [x - wing, bottom, x + wing, bottom], [x - wing, top, x + wing, top]]) { ctx.moveTo(fromX, fromY); ctx.lineTo(toX, toY); }
      ctx.stroke();
    }));
    ctx.restore();
  },
};

/** Return the options of a chart of accuracies with error bars, scaled to them. */
function accuracyChart(x, points) {
  const named = { labels: { filter: ({ text }) => text } };
  const lowest = Math.floor(20 * Math.min(...points.map(({ low }) => low)) - 0.1) / 20, highest = Math.ceil(20 * Math.max(...points.map(({ high }) => high)) + 0.1) / 20;
  return { scales: { x, y: axis("accuracy", { min: Math.max(0, lowest), max: Math.min(1, highest), ticks: { callback: share.ticks.callback } }) }, plugins: { legend: named, tooltip: { filter: ({ raw }) => raw.text, callbacks: { title: () => "", label: ({ raw }) => raw.text } } } };
}

const spread = ({ accuracy, error }) => ({ y: accuracy, low: Math.max(0, accuracy - error), high: Math.min(1, accuracy + error) });

/** Validation accuracy of each depth that was tried. */
function drawDepths() {
  if (!depths.length) return;
  const { good, bad, soft } = shades();
  const label = (depth) => [...depth.name.split(/(?<=^\d+) /), percent(depth.share)];
  const points = depths.map((depth, x) => ({ x, ...spread(depth), text: `${depth.name}: ${percent(depth.accuracy)} ± ${percent(depth.error)}${depth.kept ? ", kept" : ""}` }));
  const series = (name, shade, wanted, more) => ({ label: name, data: points.filter((_, number) => depths[number].kept === wanted), borderColor: shade, backgroundColor: shade, pointRadius: 5, pointHoverRadius: 7, ...more });
  const x = axis("frozen up to, and share of compute", { type: "linear", min: -0.5, max: depths.length - 0.5, grid: { display: false }, afterBuildTicks: (scale) => { scale.ticks = points.map(({ x: value }) => ({ value })); }, ticks: { autoSkip: false, maxRotation: 0, callback: (value) => label(depths[value]) } });
  chart("depths", { type: "scatter", data: { datasets: [series("kept", bad, true, { pointStyle: "rectRot", pointRadius: 8, pointHoverRadius: 9 }), series("not kept", good, false), { label: "", data: points.map(({ x, y }) => ({ x, y })), showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: soft, borderWidth: 1, borderDash: [3, 4] }] }, options: accuracyChart(x, points), plugins: [errorBars] });
}

/** Accuracy by the number of training images, and the forecast for more. */
function drawLearning() {
  if (!learning.points.length) return;
  const { good, bad } = shades(), { forecast } = learning, images = (count) => `${count.toLocaleString("en")} images`;
  const points = learning.points.map((point) => ({ x: point.images, ...spread(point), text: `${images(point.images)}: ${percent(point.accuracy)} ± ${percent(point.error)}` }));
  const datasets = [{ label: "measured", data: points, showLine: true, borderColor: good, backgroundColor: good, borderWidth: 2, pointRadius: 4 }];
  if (forecast) {
    const { low, high, accuracy } = forecast, last = points.at(-1);
    points.push({ x: forecast.images, y: accuracy, low, high, text: `${images(forecast.images)}: about ${percent(accuracy)} (${percent(low)} to ${percent(high)})` });
    datasets[0].data = points.slice(0, -1);
    datasets.push({ label: "forecast", data: [{ x: last.x, y: last.y, text: last.text }, points.at(-1)], showLine: true, borderColor: bad, backgroundColor: bad, borderWidth: 2, borderDash: [5, 4], pointRadius: [0, 5], pointStyle: "rectRot" });
  }
  const x = axis("training images", { type: "logarithmic", min: points[0].x / 1.2, max: points.at(-1).x * 1.2, afterBuildTicks: (scale) => { scale.ticks = points.map(({ x: value }) => ({ value })); }, ticks: { maxRotation: 0, callback: (value) => value.toLocaleString("en") } });
  chart("learning", { type: "scatter", data: { datasets }, options: accuracyChart(x, points), plugins: [errorBars] });
}

