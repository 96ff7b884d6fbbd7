// What one cell or one position holds: the card under the pointer and the pinned panel.
function word(text, className = "word") { return put(make("span", className), text); }

function bar(entry, hit) {
  const line = make("div", "bar" + (hit ? " hit" : ""));
  const track = make("div", "track"), fill = make("div", "fill");
  fill.style.width = Math.max(1, 100 * entry.p) + "%";
  track.append(fill);
  line.append(word(entry.text), track, make("span", "number", percent(entry.p)));
  return line;
}

function cardOf(layer, position) {
  const card = document.createDocumentFragment(), index = at(layer, position), r = readings();
  const where = make("div", "where");
  where.append(make("span", "", `layer ${data.layers[layer]} · position ${position}`), make("span", "", data.sites[state.site]));
  card.append(where);
  if (!present(layer, position)) {
    card.append(make("div", "", "no reading here: not asked for, or missing"));
    return card;
  }
  for (const entry of candidates(layer, position)) card.append(bar(entry, follows(entry, position)));
  const figures = make("div", "figures");
  const add = (name, value) => figures.append(make("span", "", name), make("span", "", value));
  add("entropy", (r.entropy[index] / 1000).toFixed(2) + " nats");
  add("KL from final layer", (r.kl[index] / 1000).toFixed(2) + " nats");
  if (r.rank[index]) {
    const chance = Math.exp(r.targetLogprob[index] / 1000);
    add("came next", visible(data.next[position]).join(""));
    add("its rank and probability", `${r.rank[index].toLocaleString("en")}  ·  ${percent(chance)}`);
  }
  card.append(figures);
  return card;
}

function showTip(layer, position, box) {
  const tip = find("tip");
  tip.replaceChildren(cardOf(layer, position));
  tip.hidden = false;
  const right = box.right + 12 + tip.offsetWidth < innerWidth ? box.right + 12 : box.left - 12 - tip.offsetWidth;
  const top = Math.min(Math.max(8, box.top - 30), innerHeight - tip.offsetHeight - 8);
  tip.style.left = Math.max(8, right) + "px";
  tip.style.top = top + "px";
}

// Lines through the layers for the candidates that matter most at a position: [{text, points: [p or null]}].
function trajectories(position) {
  const lines = new Map(), tracked = readings().tracked[position];
  const line = (id) => {
    if (!lines.has(id)) lines.set(id, { id, text: data.strings[id], points: new Array(layerCount).fill(null), best: 0 });
    return lines.get(id);
  };
  const note = (id, layer, p) => {
    const entry = line(id);
    entry.points[layer] = p;
    entry.best = Math.max(entry.best, layer === layerCount - 1 ? 2 * p : p);
  };
  for (let layer = 0; layer < layerCount; layer++) {
    if (tracked) {
      tracked.ids.forEach((id, n) => {
        const logprob = tracked.logprobs[layer][n];
        if (logprob !== null) note(id, layer, Math.exp(logprob / 1000));
      });
    } else candidates(layer, position).forEach((entry) => note(entry.id, layer, entry.p));
  }
  for (const entry of lines.values()) if (follows(entry, position)) entry.best += 2;
  return [...lines.values()].sort((a, b) => b.best - a.best).slice(0, 5);
}

const strokes = { light: ["#2f5bd8", "#d9480f", "#0b7a5c", "#a61e7d", "#806300"], dark: ["#8fb0ff", "#ff9a6b", "#57d3a9", "#f08cd0", "#e3c55a"] };

function chart(position) {
  const svgMake = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const width = 390, height = 132, left = 30, bottom = 18, top = 6;
  const x = (layer) => left + (width - left - 8) * (layerCount > 1 ? layer / (layerCount - 1) : .5);
  const y = (p) => top + (height - top - bottom) * (1 - p);
  const svg = svgMake("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Probability by layer" });
  for (const p of [0, .5, 1]) {
    svg.append(svgMake("line", { x1: left, x2: width - 8, y1: y(p), y2: y(p), stroke: "var(--line)" }));
    svg.append(svgMake("text", { x: left - 6, y: y(p) + 3.5, "text-anchor": "end" }, p * 100 + "%"));
  }
  const step = Math.max(1, Math.ceil(layerCount / 8));
  for (let layer = 0; layer < layerCount; layer += step)
    svg.append(svgMake("text", { x: x(layer), y: height - 3, "text-anchor": "middle" }, data.layers[layer]));
  const key = make("div", "key");
  trajectories(position).forEach((line, n) => {
    const stroke = strokes[state.theme][n];
    let path = "", open = false;
    line.points.forEach((p, layer) => {
      if (p === null) { open = false; return; }
      path += `${open ? "L" : "M"}${x(layer).toFixed(1)} ${y(p).toFixed(1)}`;
      open = true;
      svg.append(svgMake("circle", { cx: x(layer), cy: y(p), r: 1.7, fill: stroke }));
    });
    svg.append(svgMake("path", { d: path, fill: "none", stroke, "stroke-width": 1.8, "stroke-linejoin": "round" }));
    const label = make("span"), dash = make("s");
    dash.style.background = stroke;
    label.append(dash, word(line.text));
    key.append(label);
  });
  return [svg, key];
}

function fillPanel() {
  const panel = find("panel"), position = state.pinned;
  panel.hidden = position < 0;
  if (position < 0) return;
  const heading = make("h2"), close = make("button", "", "✕");
  close.type = "button";
  close.title = "Unpin (Esc)";
  close.setAttribute("aria-label", "Unpin");
  close.addEventListener("click", () => pin(-1));
  heading.append(word(data.inputs[position]), make("span", "arrow", "→"), word(data.next[position]), close);
  const depth = readings().depth[position];
  const kind = position >= data.promptCount ? `generated token ${position - data.promptCount}` : "prompt";
  const facts = make("p", "", `position ${position}, ${kind}` + (depth >= 0 ? `; the answer stands from layer ${depth} up` : ""));
  const layers = make("div", "layers");
  for (let layer = layerCount - 1; layer >= 0; layer--) {
    layers.append(make("span", layer === state.layer ? "current" : "", String(data.layers[layer])));
    const chips = make("div", "chips");
    for (const entry of candidates(layer, position)) {
      const chip = put(make("span", "chip" + (follows(entry, position) ? " hit" : "")), entry.text);
      const [background, text] = data.metrics[0][state.theme][Math.round(entry.p * (data.metrics[0][state.theme].length - 1))];
      chip.style.background = background;
      chip.style.color = text;
      chip.title = `${entry.text}  ${percent(entry.p)}`;
      chips.append(chip);
    }
    layers.append(chips);
  }
  panel.replaceChildren(heading, facts, make("h3", "", "Probability through the layers"), ...chart(position),
    make("h3", "", "Candidates of every layer"), layers);
}
