"use strict";
/* How far the labeling is and what it brings: counts, accuracy with its interval, the learning curve, and advice. */

const WIDTH = 280, HEIGHT = 150, LEFT = 42, RIGHT = 10, TOP = 10, BOTTOM = 24; // of the curve, in units of its drawing
const SHOWN_POINTS = 24; // points of a curve that get a dot
const NOTICEABLE = 0.0005; // gain in accuracy below which it is called nothing

/** Return the number of images that need no more attention: labeled ones, and those that cannot be read. */
const finished = (state) => state.labelled + state.failed;
const computing = (state) => state.featurized + state.failed < state.images;

function showProgress(state) {
  const noun = reviewing() ? "reviewed" : "labeled";
  document.title = `${state.source} – tlcli label`;
  setText(byId("source"), state.source);
  setText(byId("count"), `${thousands(state.labelled)} of ${thousands(state.images)} ${noun}`);
  byId("done").max = Math.max(1, state.images);
  byId("done").value = state.labelled;
  showEstimate(state);
  byId("curve").replaceChildren(...(state.curve.length ? [drawCurve(state.curve)] : []));
  setText(byId("gain"), gainText(state.gain));
  showAdvice(state);
  showCounts(state);
}

function showEstimate({ estimate, review, labelled }) {
  const box = byId("estimate");
  setText(document.querySelector("#progress h2"), review ? "Review" : "Accuracy");
  if (review) return setText(box, labelled ? `${thousands(review.changed)} of ${plural(labelled, "reviewed label")} changed; ${review.latest_changed} of the latest ${review.latest}.` : "The labels that are least likely to be right come first.");
  if (!estimate) return setText(box, "Estimated once enough randomly chosen images have a label.");
  const [low, high] = estimate.interval.map((share) => Math.round(100 * share));
  const text = ` of new images right (${low} to ${high} %, from ${plural(estimate.judged, "randomly chosen image")})`;
  if (box.textContent !== percent(estimate.accuracy) + text) box.replaceChildren(element("b", { text: percent(estimate.accuracy) }), text);
}

function gainText(gain) {
  if (!gain) return "";
  if (gain.accuracy < NOTICEABLE) return `Another ${plural(gain.labels, "label")} would bring almost nothing.`;
  return `Another ${plural(gain.labels, "label")} would bring about ${Number((100 * gain.accuracy).toFixed(1))} percentage points.`;
}

function showAdvice({ advice, out, data }) {
  const box = byId("advice");
  box.hidden = !advice;
  byId("show-overview").classList.toggle("news", Boolean(advice));
  if (advice && box.dataset.advice !== advice) box.replaceChildren(element("p", { text: advice }), nextCommand({ out, data }));
  box.dataset.advice = advice;
}

/** Return a command to type; a word that a shell would split is quoted. */
function command(name, ...words) {
  const quoted = words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`));
  return element("code", { text: ["tlcli", name, ...quoted].join(" ") });
}

const nextCommand = ({ out, data }) => (reviewing() ? command("finetune", data, "--corrections", out) : command("finetune", out));

function showCounts(state) {
  const left = Math.max(0, state.images - finished(state));
  const parts = [`${plural(left, "image")} left`];
  if (state.none) parts.push(`${thousands(state.none)} none of the classes`);
  if (state.failed) parts.push(`${thousands(state.failed)} cannot be read`);
  setText(byId("counts"), `${parts.join(", ")}.`);
  byId("features").hidden = !computing(state);
  setText(byId("features").querySelector("label"), featureText(state));
  byId("features-done").max = Math.max(1, state.images);
  byId("features-done").value = state.featurized + state.failed;
}

const featureText = (state) => `Features computed for ${thousands(state.featurized)} of ${thousands(state.images)} images`;

/* The learning curve. */

function drawCurve(curve) {
  const most = Math.max(...curve.map((point) => point.labelled)), last = curve.at(-1);
  const x = (labeled) => LEFT + ((WIDTH - LEFT - RIGHT) * labeled) / Math.max(1, most);
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share);
  const at = (point, share) => `${x(point.labelled).toFixed(1)},${y(share).toFixed(1)}`;
  const band = [...curve.map((point) => at(point, point.interval[1])), ...curve.toReversed().map((point) => at(point, point.interval[0]))];
  const chart = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": curveText(curve[0], last) }, ...drawAxes(x, y, most));
  if (curve.length > 1) chart.append(drawn("polygon", { class: "band", points: band.join(" ") }), drawn("polyline", { class: "line", points: curve.map((point) => at(point, point.accuracy)).join(" ") }));
  else chart.append(drawn("line", { class: "band-line", x1: x(last.labelled), x2: x(last.labelled), y1: y(last.interval[0]), y2: y(last.interval[1]) }));
  for (const point of curve.length <= SHOWN_POINTS ? curve : [last]) chart.append(drawn("circle", { cx: x(point.labelled), cy: y(point.accuracy), r: 2.6 }, drawn("title", { text: pointText(point) })));
  return chart;
}

function drawAxes(x, y, most) {
  const lines = [0, 0.5, 1].flatMap((share) => [
    drawn("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share) }),
    drawn("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end", text: percent(share) }),
  ]);
  return [...lines, drawn("text", { x: LEFT, y: HEIGHT - 6, text: "0" }), drawn("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end", text: plural(most, "label") })];
}

const pointText = (point) => `${percent(point.accuracy)} (${percent(point.interval[0])} to ${percent(point.interval[1])}) after ${plural(point.labelled, "label")}`;
const curveText = (first, last) => `Learning curve, accuracy by number of labels: ${first === last ? "" : `${pointText(first)}, `}${pointText(last)}`;

/* The view without images. */

/** Explain why the batch is empty, if it is. */
function showEmpty() {
  const box = byId("empty"), state = store.state;
  box.hidden = Boolean(batch.items.length) || !state || batch.kind !== "mix";
  if (box.hidden) return;
  const content = emptyContent(state), text = content.map((node) => node.textContent).join("\n");
  if (box.dataset.text !== text) box.replaceChildren(...content);
  box.dataset.text = text;
}

function emptyContent(state) {
  const heading = (text) => element("h2", { text });
  if (!state.images) return [heading("There are no images"), element("p", { text: `“${state.source}” holds no images.` })];
  if (state.failed >= state.images) return [heading("No image can be read"), element("p", { text: `All ${plural(state.images, "image")} failed to decode. See what is wrong:` }), command("check", state.source)];
  if (computing(state)) return [heading("Preparing images"), element("p", { text: `${featureText(state)}. The next images appear here as soon as they are ready.` })];
  if (state.notice) return [heading("Comparing labels"), element("p", { text: state.notice })];
  const rest = state.images - finished(state);
  const text = rest > 0 ? `${plural(rest, "image")} skipped or in another tab; skipped ones are offered again the next time.` : "Every image has a label.";
  return [heading("Nothing left to label"), element("p", { text }), element("p", { text: "Next:" }), nextCommand(state)];
}

onState(showProgress);
onState(showEmpty);
