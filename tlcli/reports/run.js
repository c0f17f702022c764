"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const { classes, order, sheet, splits, curves, decisions, depths, learning } = content;
const images = content.images.map(([split, truth, predicted, x, y, path, top, novelty], number) => ({ split, truth, predicted, x, y, path, top, novelty, number, right: truth === predicted, confidence: top.find(([label]) => label === predicted)?.[1] ?? 0 }));
const LISTED = 16, GALLERY = 300; // images at most
const dark = matchMedia("(prefers-color-scheme: dark)");
const PALETTE = [[211, 37, 51], [30, 88, 56], [358, 70, 61], [176, 31, 52], [114, 31, 45], [47, 84, 58], [315, 26, 58], [353, 100, 76], [21, 25, 49], [255, 45, 62]];
/** Return a class's color: from the palette for up to ten classes, otherwise hues spaced by the golden angle. */
function color(label, alpha = 1) {
  const [hue, saturation, lightness] = classes.length <= PALETTE.length ? PALETTE[label] : [(label * 137.508 + 215) % 360, label % 2 ? 45 : 70, (dark.matches ? 62 : 45) + (label % 3) * 6];
  return `hsl(${hue} ${saturation}% ${lightness}% / ${alpha})`;
}
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const shades = () => { const style = getComputedStyle(document.documentElement); return Object.fromEntries(["ink", "soft", "line", "good", "bad", "card"].map((name) => [name, resolved(style.getPropertyValue(`--${name}`))])); };
let split = 0, highlighted = null; // index of the split shown, and of the highlighted class

/** Resolve a color such as light-dark(#fff, #000), which a canvas cannot do. */
function resolved(value) {
  const probe = document.body.appendChild(Object.assign(document.createElement("i"), { style: `color: ${value}` }));
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Create an element with text, attributes and children; text is never parsed as HTML. */
function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Show an image's thumbnail in an element with the class "thumb", of any size. */
function setThumbnail(thumb, image) {
  const rows = Math.max(1, Math.ceil(images.length / sheet.columns));
  const at = (index, of) => (of > 1 ? (100 * index) / (of - 1) : 0);
  thumb.style.backgroundSize = `${100 * sheet.columns}% ${100 * rows}%`;
  thumb.style.backgroundPosition = `${at(image.number % sheet.columns, sheet.columns)}% ${at(Math.floor(image.number / sheet.columns), rows)}%`;
  return thumb;
}

const describe = (image) => (image.right ? `${classes[image.truth]}, ${percent(image.confidence)}` : `${classes[image.truth]} predicted as ${classes[image.predicted]}, ${percent(image.confidence)}`);

function figure(image, note = percent(image.confidence)) {
  const button = element("button", { type: "button", "aria-label": `${describe(image)}: ${image.path}` }, setThumbnail(element("span", { class: "thumb" }), image));
  if (image.right) button.append(element("span", { text: classes[image.truth] }));
  else button.append(element("span", { class: "bad", text: classes[image.predicted] }), element("small", { text: ` is ${classes[image.truth]}` }));
  button.append(element("br"), element("small", { text: note }));
  button.addEventListener("click", () => show(image));
  return button;
}

function fill(list, chosen, none) {
  list.replaceChildren(...chosen.map((image) => figure(image)));
  if (!chosen.length) list.append(element("p", { class: "soft", text: none }));
}

/** Return the URL of an image file, which works on the machine that wrote the page. */
function address(path) {
  if (path.startsWith("file://")) return path;
  const whole = path.startsWith("/") ? path : `${content.root}/${path}`;
  return `file://${whole.split("/").map(encodeURIComponent).join("/")}`;
}

function show(image) {
  const dialog = document.getElementById("image");
  dialog.querySelector("h2").textContent = classes[image.truth];
  setThumbnail(dialog.querySelector(".thumb"), image);
  const rows = image.top.map(([label, share]) => {
    const bar = element("span", { class: "bar" }, element("i", { style: `width: ${100 * share}%` }));
    return ["predicted", [`${classes[label]} ${percent(share)}`, bar]];
  });
  rows.push(["true class", [classes[image.truth]]], ["split", [splits[image.split].name]], ["file", [element("a", { href: address(image.path), target: "_blank", text: image.path })]]);
  dialog.querySelector("dl").replaceChildren(...rows.flatMap(([name, value], index) => [element("dt", { text: index && name === "predicted" ? "or" : name }), element("dd", {}, ...value)]));
  dialog.showModal();
}

function gallery(truth, predicted) {
  const dialog = document.getElementById("gallery"), count = splits[split].confusion[truth][predicted];
  const found = images.filter((image) => image.split === split && image.truth === truth && image.predicted === predicted).sort((a, b) => b.confidence - a.confidence);
  dialog.querySelector("h2").textContent = truth === predicted ? `${classes[truth]}, predicted correctly` : `${classes[truth]}, predicted as ${classes[predicted]}`;
  const shown = Math.min(found.length, GALLERY);
  dialog.querySelector("p").textContent = `${count.toLocaleString("en")} ${count === 1 ? "image" : "images"}, most confident first${shown < count ? `; ${shown.toLocaleString("en")} are shown, predictions.parquet has all` : ""}.`;
  fill(dialog.querySelector(".thumbs"), found.slice(0, GALLERY), "This page has no thumbnails of these images.");
  dialog.showModal();
  dialog.scrollTop = 0;
}

/** Show the results of one split in all sections. */
function selectSplit(number) {
  split = number;
  for (const block of document.querySelectorAll("[data-split]")) block.hidden = Number(block.dataset.split) !== split;
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", Number(button.dataset.show) === split);
  const mine = images.filter((image) => image.split === split);
  const wrong = mine.filter((image) => !image.right).sort((a, b) => b.confidence - a.confidence);
  const right = mine.filter((image) => image.right).sort((a, b) => a.confidence - b.confidence);
  fill(document.querySelector("[data-list=errors]"), wrong.slice(0, LISTED), "None.");
  fill(document.querySelector("[data-list=correct]"), right.slice(0, LISTED), "None.");
  draw();
}

function sort(button) {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "descending" || (column === 0 && head.getAttribute("aria-sort") !== "ascending");
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => (column ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true }));
  body.append(...[...body.rows].sort((a, b) => (down ? order(a, b) : order(b, a))));
}

/* Charts. They are redrawn when the split, the highlighted class or the color scheme changes. */

const charts = {};

function chart(name, settings) {
  charts[name]?.destroy();
  charts[name] = new Chart(document.getElementById(name), settings);
}

const share = { min: 0, max: 1, ticks: { callback: (value) => `${Number((100 * value).toFixed(1))} %`, stepSize: 0.2 } };

function axis(title, more = {}) {
  return { title: { display: true, text: title }, ...more };
}

function drawReliability() {
  const { good, soft, line } = shades();
  const points = (rows) => rows.map((row) => ({ x: row.confidence, y: row.accuracy, images: row.images }));
  const total = splits[split].images;
  const series = (label, rows, shade, dashed) => ({ label, data: points(rows), borderColor: shade, backgroundColor: shade, borderDash: dashed ? [5, 4] : [], borderWidth: 2, showLine: true, clip: false, pointStyle: "circle", pointRadius: (point) => 2.5 + 9 * Math.sqrt((point.raw?.images ?? 0) / total) });
  chart("reliability", {
    type: "scatter",
    data: { datasets: [series("after temperature scaling", splits[split].reliability, good), series("before", splits[split].uncalibrated, soft, true), { label: "perfectly calibrated", data: [{ x: 0, y: 0 }, { x: 1, y: 1 }], showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: line, backgroundColor: line, borderWidth: 2 }] },
    options: { scales: { x: axis("confidence", share), y: axis("accuracy", share) }, plugins: { tooltip: { callbacks: { label: ({ raw, dataset }) => `${raw.images} images: confidence ${percent(raw.x)}, accuracy ${percent(raw.y)} (${dataset.label})` } } } },
  });
}

/** Precision of the most confident images by
/** Precision of the most confident images by their share, and the points that are promised. */
function drawAutomation() {
  if (!decisions.precision) return;
  const { good, bad } = shades(), { curve, targets, images: total } = decisions.precision;
  const promised = targets.filter((row) => row.precision !== null);
  const lowest = Math.floor(20 * Math.min(...curve.map(([, y]) => y), ...promised.map((row) => row.precision))) / 20;
  chart("automation", {
    type: "scatter",
    data: { datasets: [
      { label: "promised", data: promised.map((row) => ({ x: row.automatic, y: row.precision, text: `target ${percent(row.target)}: ${percent(row.automatic)} automatic, ${percent(row.precision)} right` })), backgroundColor: bad, borderColor: bad, pointRadius: 5, clip: false },
      { label: "most confident images first", data: curve.map(([x, y]) => ({ x, y, text: `${percent(x)} of ${total.toLocaleString("en")} images, ${percent(y)} right` })), showLine: true, pointRadius: curve.length > 1 ? 0 : 3, pointHitRadius: 8, borderWidth: 2, borderColor: good, backgroundColor: good, clip: false },
    ] },
    options: { scales: { x: axis("images without review", share), y: axis("precision", { ...share, min: lowest, ticks: { callback: share.ticks.callback } }) }, plugins: { tooltip: { callbacks: { label: ({ raw }) => raw.text } } } },
  });
}

/** How untypical known images are; bars beyond the limit are those that predict calls unknown. */
function drawNovelty() {
  if (!decisions.novelty) return;
  const { good, bad } = shades(), { edges, counts, unknown } = decisions.novelty;
  const middles = counts.map((_, bin) => (edges[bin] + edges[bin + 1]) / 2);
  const flagged = (bin) => unknown !== null && edges[bin + 1] > unknown;
  const bars = (label, shade, wanted) => ({ label, data: counts.map((count, bin) => (flagged(bin) === wanted ? count || null : null)), backgroundColor: shade, borderColor: shade, barPercentage: 1, categoryPercentage: 0.96, grouped: false, minBarLength: 2 });
  const datasets = [bars("known images", good, false)];
  if (unknown !== null) datasets.push(bars("unknown at the default rate of 1 %", bad, true));
  chart("novelty", {
    type: "bar",
    data: { labels: middles.map((middle) => middle.toFixed(1)), datasets },
    options: { scales: { x: axis("score, from the median", { ticks: { maxTicksLimit: 9, maxRotation: 0 } }), y: axis("images", { beginAtZero: true, ticks: { precision: 0 } }) }, plugins: { tooltip: { callbacks: { title: ([item]) => `${edges[item.dataIndex]} to ${edges[item.dataIndex + 1]}` } } } },
  });
  const atypical = images.filter((image) => image.novelty !== null).sort((a, b) => b.novelty - a.novelty).slice(0, LISTED);
  document.querySelector("[data-list=atypical]").replaceChildren(...atypical.map((image) => figure(image, image.novelty.toFixed(4))));
}

const hover = document.getElementById("hover");

/** Show the image of the hovered point next to it. */
function tooltip({ tooltip, chart: { canvas } }) {
  const image = tooltip.opacity ? tooltip.dataPoints?.[0]?.raw.image : null;
  hover.hidden = !image;
  if (!image) return;
  setThumbnail(hover.firstElementChild, image);
  hover.lastElementChild.textContent = describe(image);
  const box = canvas.getBoundingClientRect(), x = box.left + tooltip.caretX, y = box.top + tooltip.caretY;
  hover.style.left = `${x + 168 > innerWidth ? Math.max(4, x - 168) : x + 16}px`;
  hover.style.top = `${Math.max(4, Math.min(y - 40, innerHeight - hover.offsetHeight - 4))}px`;
}

function drawMap() {
  const radius = images.length > 1500 ? 2.5 : 4;
  const of = (label) => images.filter((image) => image.truth === label);
  const datasets = classes.map((name, label) => {
    const mine = of(label), faded = highlighted !== null && highlighted !== label, alpha = faded ? 0.12 : 0.85;
    return {
      label: name,
      data: mine.map((image) => ({ x: image.x, y: image.y, image })),
      backgroundColor: color(label, alpha),
      borderColor: color(label, alpha),
      borderWidth: mine.map((image) => (image.right ? 0 : 2.5)),
      pointStyle: mine.map((image) => (image.right ? "circle" : "crossRot")),
      pointRadius: mine.map((image) => (image.right ? radius : radius + 2)),
      pointHoverRadius: radius + 4,
      order: faded ? 1 : 0,
    };
  });
  const bare = { display: false, min: -0.03, max: 1.03 };
  chart("scatter", {
    type: "scatter",
    data: { datasets },
    options: {
      scales: { x: bare, y: bare },
      interaction: { mode: "nearest", intersect: true },
      plugins: { legend: { display: false }, tooltip: { enabled: false, external: tooltip } },
      onClick: (event, items, made) => items.length && show(made.data.datasets[items[0].datasetIndex].data[items[0].index].image),
    },
  });
}

function drawChips() {
  const chip = (label) => {
    const button = element("button", { type: "button", "aria-pressed": highlighted === label, "data-class": label }, element("i", { style: `background: ${color(label)}` }), classes[label]);
    button.addEventListener("click", () => { highlighted = highlighted === label ? null : label; drawChips(); drawMap(); });
    return button;
  };
  document.querySelector("[data-list=classes]").replaceChildren(...order.map(chip));
}

function draw() {
  const { ink, line } = shades();
  Object.assign(Chart.defaults, { color: ink, borderColor: line, animation: false, maintainAspectRatio: false });
  Chart.defaults.font.family = "system-ui, sans-serif";
  Object.assign(Chart.defaults.plugins.legend.labels, { usePointStyle: true, boxHeight: 6, pointStyleWidth: 22 });
  drawReliability();
  drawAutomation();
  drawNovelty();
  drawCurves();
  drawDepths();
  drawLearning();
  drawChips();
  drawMap();
}

document.addEventListener("click", ({ target }) => {
  if (target.tagName === "DIALOG") return target.close();
  const button = target.closest("button");
  if (button?.dataset.truth) gallery(Number(button.dataset.truth), Number(button.dataset.predicted));
  else if (button?.dataset.show) selectSplit(Number(button.dataset.show));
  else if (button?.closest(".sortable")) sort(button);
});
document.addEventListener("scroll", () => { hover.hidden = true; }, { passive: true });
dark.addEventListener("change", draw);
addEventListener("beforeprint", () => Object.values(charts).forEach((made) => made.resize()));
selectSplit(0);
