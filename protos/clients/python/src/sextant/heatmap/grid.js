// The grid: data, colours, one column of cells per position.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const positionCount = data.inputs.length;
const layerCount = data.layers.length;
const widths = [10, 30, 64, 96, 132];
const state = { site: data.site, metric: 0, theme: "light", width: 2, layer: layerCount - 1, position: 0, pinned: -1 };
let moved = false;  // Whether the cursor was ever used.
const columns = [];  // [position] {element, cells: [layer]}

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

// Text of a token with what cannot be seen made visible. Returns [dimmed lead, rest].
function visible(text) {
  if (text === null || text === undefined) return ["", "–"];
  if (text === "") return ["∅", ""];
  const shown = text
    .replace(/\n/g, "⏎").replace(/\r/g, "␍").replace(/\t/g, "⇥")
    // Controls, unassigned and private characters, blanks other than the space, and what draws nothing by itself.
    .replace(/[\p{C}\p{Zl}\p{Zp}\ufe00-\ufe0f\u115f\u1160\u3164\uffa0\u2800]|(?! )\p{Zs}/gu,
      (c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"))
    .replace(/^( *)(?=\p{M})/u, "$1\u25cc");  // A mark that has lost its letter.
  const lead = shown.match(/^ */)[0];
  if (lead === shown) return ["", "␣".repeat(Math.min(lead.length, 8))];
  return ["·".repeat(lead.length), shown.slice(lead.length)];
}

function put(element, text) {
  const [lead, rest] = visible(text);
  element.replaceChildren();
  if (lead) element.append(make("i", "", lead));
  element.append(rest);
  return element;
}

const readings = () => data.readings[state.site];
const at = (layer, position) => layer * positionCount + position;
const present = (layer, position) => readings().entropy[at(layer, position)] !== null;
const candidate = (layer, position, k) => {
  const index = at(layer, position) * data.topK + k;
  const logprob = readings().logprob[index];
  if (logprob === null || logprob === undefined) return null;
  return { text: data.strings[readings().top[index]], id: readings().top[index], p: Math.exp(logprob / 1000) };
};
// Whether a candidate is the token that came next: by its id, for texts may be alike.
const follows = (entry, position) => entry.id === data.nextIndex[position];
const candidates = (layer, position) =>
  Array.from({ length: data.topK }, (_, k) => candidate(layer, position, k)).filter((c) => c !== null);

// What the chosen metric says of a cell, as 0..1 along its ramp; null where there is nothing to say.
function strength(layer, position) {
  const index = at(layer, position), r = readings();
  switch (data.metrics[state.metric].key) {
    case "prob": return r.logprob[index * data.topK] === null ? null : Math.exp(r.logprob[index * data.topK] / 1000);
    case "entropy": return r.entropy[index] === null ? null : r.entropy[index] / scale().high;
    case "kl": return r.kl[index] === null ? null : Math.min(1, r.kl[index] / scale().high);
    default: return r.rank[index] ? 1 - Math.min(1, Math.log10(r.rank[index]) / 4) : null;
  }
}

const scales = new Map();
// The ends of the scale: {high (thousandths), low and top labels}; KL stops at its 98th percentile.
function scale() {
  const name = state.site + data.metrics[state.metric].key;
  if (!scales.has(name)) scales.set(name, measure(data.metrics[state.metric].key));
  return scales.get(name);
}
function measure(key) {
  if (key === "prob") return { high: 1000, low: "0", top: "1" };
  if (key === "rank") return { high: 1, low: "10,000th", top: "1st" };
  const values = readings()[key].filter((v) => v !== null).sort((a, b) => a - b);
  const share = key === "kl" ? .98 : 1;
  const high = Math.max(1, values[Math.floor((values.length - 1) * share)] || 1);
  const top = (high / 1000).toFixed(1) + (key === "kl" && high < values[values.length - 1] ? " or more" : "");
  return { high, low: "0", top: top + " nats" };
}

const colour = (value) => {
  const ramp = data.metrics[state.metric][state.theme];
  return ramp[Math.max(0, Math.min(ramp.length - 1, Math.round(value * (ramp.length - 1))))];
};

function buildAxis(sheet) {
  const axis = make("div", "axis");
  axis.append(make("div", "corner top", "came next"));
  const steered = new Set(Object.values(data.steered).flat());
  for (let layer = layerCount - 1; layer >= 0; layer--) {
    const label = make("div", steered.has(data.layers[layer]) ? "steered" : "", String(data.layers[layer]));
    label.dataset.layer = layer;
    axis.append(label);
  }
  axis.append(make("div", "corner bottom", "token in"));
  sheet.append(axis);
}

function buildColumn(position) {
  const generated = position >= data.promptCount;
  const element = make("div", "column" + (generated ? " generated" : "") + (position === data.promptCount ? " first" : ""));
  element.dataset.position = position;
  const top = make("div", "end top" + (position + 1 >= data.promptCount ? " generated" : ""));
  top.append(make("small"), put(make("b"), data.next[position]));
  const cells = new Array(layerCount);
  element.append(top);
  for (let layer = layerCount - 1; layer >= 0; layer--) {
    cells[layer] = make("div", "cell");
    cells[layer].dataset.layer = layer;
    element.append(cells[layer]);
  }
  const bottom = make("div", "end bottom");
  bottom.append(put(make("b"), data.inputs[position]), make("small", "", String(position)));
  element.append(bottom);
  return { element, cells, top };
}

// Colours and texts of every cell for the present site, metric and theme.
function paint() {
  const r = readings();
  for (let position = 0; position < positionCount; position++) {
    const { cells, top } = columns[position];
    for (let layer = 0; layer < layerCount; layer++) {
      const cell = cells[layer], best = candidate(layer, position, 0), value = strength(layer, position);
      const names = ["cell"];
      if (!best && !present(layer, position)) names.push("missing");
      if (best && follows(best, position)) names.push("hit");
      if (r.depth[position] >= 0 && r.depth[position] === data.layers[layer]) names.push("depth");
      if (moved && layer === state.layer && position === state.position) names.push("current");
      cell.className = names.join(" ");
      const [background, text] = value === null ? ["", ""] : colour(value);
      cell.style.background = background;
      cell.style.color = text;
      if (best) put(cell, best.text); else cell.textContent = "";
    }
    const chance = r.targetLogprob[at(layerCount - 1, position)];
    top.firstChild.textContent = chance === null || chance === undefined ? "" : percent(Math.exp(chance / 1000));
  }
  paintLegend();
  paintOverview();
}

const percent = (p) => p >= .9995 ? "100\u00a0%" : p >= .1 ? (100 * p).toFixed(0) + "\u00a0%" : p >= .001 ? (100 * p).toFixed(1) + "\u00a0%" : p > 0 ? "<\u00a00.1\u00a0%" : "0";

function paintLegend() {
  const canvas = find("legend").querySelector("canvas"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = colour(x / (canvas.width - 1))[0];
    context.fillRect(x, 0, 1, 1);
  }
  find("legend").querySelector(".low").textContent = scale().low;
  find("legend").querySelector(".high").textContent = scale().top;
  find("legend").querySelector("figcaption").textContent = data.metrics[state.metric].explanation;
}
