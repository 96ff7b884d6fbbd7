// The page: controls, pointer and keyboard, the overview strip, themes.
function radios(id, names, chosen, choose) {
  const group = find(id);
  names.forEach((name, n) => {
    const button = make("button", "", name.text);
    button.type = "button";
    button.title = name.title;
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => choose(n));
    group.append(button);
  });
  return () => [...group.children].forEach((b, n) => b.setAttribute("aria-checked", String(n === chosen())));
}

const markMetric = radios("metrics", data.metrics.map((m) => ({ text: m.title, title: m.title + " " + m.explanation + " (M)" })),
  () => state.metric, (n) => { state.metric = n; refresh(); });
const markSite = radios("sites", data.sites.length > 1 ? data.sites.map((s) => ({ text: s, title: "Site (S)" })) : [],
  () => state.site, (n) => { state.site = n; refresh(); });

function refresh() {
  markMetric();
  markSite();
  paint();
  fillPanel();
}

function setWidth(index) {
  state.width = Math.max(0, Math.min(widths.length - 1, index));
  document.documentElement.style.setProperty("--cell", widths[state.width] + "px");
  find("sheet").classList.toggle("tiny", widths[state.width] < 24);
  paintOverview();
}

function setTheme(theme) {
  state.theme = theme;
  document.documentElement.dataset.theme = theme;
  if (columns.length) refresh();
}

function pin(position) {
  if (state.pinned >= 0) columns[state.pinned].element.classList.remove("pinned");
  state.pinned = position === state.pinned ? -1 : position;
  if (state.pinned >= 0) columns[state.pinned].element.classList.add("pinned");
  fillPanel();
  paintOverview();
}

// Moves the cursor; says the cell aloud and keeps it in view when the keyboard did it.
function moveTo(layer, position, byKey) {
  const label = (n) => find("sheet").querySelector(`.axis [data-layer="${n}"]`);
  moved = true;
  columns[state.position].cells[state.layer].classList.remove("current");
  label(state.layer).classList.remove("current");
  state.layer = Math.max(0, Math.min(layerCount - 1, layer));
  state.position = Math.max(0, Math.min(positionCount - 1, position));
  const cell = columns[state.position].cells[state.layer];
  cell.classList.add("current");
  label(state.layer).classList.add("current");
  if (!byKey) return;
  const view = find("scroller"), box = columns[state.position].element;
  if (box.offsetLeft - 60 < view.scrollLeft) view.scrollLeft = box.offsetLeft - 60;
  if (box.offsetLeft + box.offsetWidth > view.scrollLeft + view.clientWidth) view.scrollLeft = box.offsetLeft + box.offsetWidth - view.clientWidth;
  if (cell.offsetTop - 44 < view.scrollTop) view.scrollTop = cell.offsetTop - 44;
  if (cell.offsetTop + 66 > view.scrollTop + view.clientHeight) view.scrollTop = cell.offsetTop + 66 - view.clientHeight;
  showTip(state.layer, state.position, cell.getBoundingClientRect());
  const best = candidate(state.layer, state.position, 0);
  find("spoken").textContent = `layer ${data.layers[state.layer]}, position ${state.position}, ` +
    (best ? `${best.text} ${percent(best.p)}` : "no reading");
}

const keys = {
  ArrowLeft: () => moveTo(state.layer, state.position - 1, true),
  ArrowRight: () => moveTo(state.layer, state.position + 1, true),
  ArrowUp: () => moveTo(state.layer + 1, state.position, true),
  ArrowDown: () => moveTo(state.layer - 1, state.position, true),
  Home: () => moveTo(state.layer, 0, true),
  End: () => moveTo(state.layer, positionCount - 1, true),
  PageUp: () => moveTo(state.layer + 8, state.position, true),
  PageDown: () => moveTo(state.layer - 8, state.position, true),
  Enter: () => pin(state.position),
  " ": () => pin(state.position),
  Escape: () => { find("tip").hidden = true; if (state.pinned >= 0) pin(-1); },
  m: () => { state.metric = (state.metric + 1) % data.metrics.length; refresh(); },
  s: () => { state.site = (state.site + 1) % data.sites.length; refresh(); },
  t: () => setTheme(state.theme === "dark" ? "light" : "dark"),
  "+": () => setWidth(state.width + 1),
  "=": () => setWidth(state.width + 1),
  "-": () => setWidth(state.width - 1),
  "?": () => toggleHelp(),
};

function toggleHelp() {
  const help = find("legendhelp");
  help.hidden = !help.hidden;
  find("help").setAttribute("aria-expanded", String(!help.hidden));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target instanceof HTMLButtonElement;
  if (onButton && (event.key === "Enter" || event.key === " ")) return;
  const act = keys[event.key] || keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

const cellOf = (event) => event.target.closest ? event.target.closest(".column") : null;
find("sheet").addEventListener("mouseover", (event) => {
  const column = cellOf(event), cell = event.target.closest(".cell");
  if (!column || !cell) { find("tip").hidden = true; return; }
  moveTo(Number(cell.dataset.layer), Number(column.dataset.position), false);
  showTip(state.layer, state.position, cell.getBoundingClientRect());
});
find("sheet").addEventListener("mouseleave", () => { find("tip").hidden = true; });
find("sheet").addEventListener("click", (event) => {
  const column = cellOf(event);
  if (column) pin(Number(column.dataset.position));
});
find("scroller").addEventListener("scroll", () => paintOverview(), { passive: true });

// The strip above the grid: every position at once, with the part in view framed.
let overviewQueued = false;
function paintOverview() {
  if (overviewQueued) return;
  overviewQueued = true;
  requestAnimationFrame(() => { overviewQueued = false; drawOverview(); });
}
function drawOverview() {
  const canvas = find("overview"), view = find("scroller");
  canvas.hidden = view.scrollWidth <= view.clientWidth + 24;
  if (canvas.hidden) return;
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const w = width / positionCount, h = height / layerCount;
  for (let position = 0; position < positionCount; position++)
    for (let layer = 0; layer < layerCount; layer++) {
      const value = strength(layer, position);
      if (value === null) continue;
      context.fillStyle = colour(value)[0];
      context.fillRect(position * w, height - (layer + 1) * h, w + .5, h + .5);
    }
  const style = getComputedStyle(document.documentElement);
  const column = widths[state.width], left = view.scrollLeft / column * w;
  const shown = Math.min(width - left, (view.clientWidth - 46) / column * w);
  context.fillStyle = style.getPropertyValue("--page");
  context.globalAlpha = .55;
  context.fillRect(0, 0, left, height);
  context.fillRect(left + shown, 0, width, height);
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.strokeStyle = style.getPropertyValue("--accent");
  context.strokeRect(left + 1, 1, Math.max(3, shown - 2), height - 2);
  context.fillStyle = style.getPropertyValue("--generated");
  context.fillRect(data.promptCount * w - 1, 0, 2, height);
  if (state.pinned >= 0) { context.fillStyle = style.getPropertyValue("--depth"); context.fillRect((state.pinned + .5) * w - 1, 0, 2, height); }
}
function dragOverview(event) {
  if (event.type === "pointermove" && !(event.buttons & 1)) return;
  const box = find("overview").getBoundingClientRect(), view = find("scroller");
  const middle = (event.clientX - box.left) / box.width * positionCount * widths[state.width];
  view.scrollLeft = middle - (view.clientWidth - 46) / 2;
}
find("overview").addEventListener("pointerdown", (event) => { find("overview").setPointerCapture(event.pointerId); dragOverview(event); });
find("overview").addEventListener("pointermove", dragOverview);
addEventListener("resize", paintOverview);

find("theme").addEventListener("click", keys.t);
find("wider").addEventListener("click", keys["+"]);
find("narrower").addEventListener("click", keys["-"]);
find("help").addEventListener("click", toggleHelp);
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));

// The legend names the marks that this page has.
function showMarks() {
  const has = {
    space: data.strings.some((text) => /^ +[^ ]/.test(text)),
    byte: data.strings.some((text) => /<0x[0-9A-F]{2}>/.test(text)),
    missing: data.readings.some((r) => r.entropy.includes(null)),
    steered: Object.values(data.steered).flat().length > 0,
    generated: positionCount > data.promptCount,
  };
  for (const [name, shown] of Object.entries(has)) find("marks").querySelector(`[data-mark="${name}"]`).hidden = !shown;
}

function notes() {
  find("title").textContent = data.title || data.model;
  const generated = Math.max(0, positionCount - data.promptCount);
  find("facts").textContent = [data.title ? data.model : "", data.sites.length === 1 ? data.sites[0] : "",
    `${layerCount} layers`, `${positionCount} positions: ${Math.min(positionCount, data.promptCount)} prompt, ${generated} generated`]
    .filter((s) => s).join("  ·  ");
  for (const text of data.steering) find("notes").append(make("span", "note steer", text));
  if (data.partial) find("notes").append(make("span", "note warn", "partial: " + data.partial));
  if (data.missing && !data.partial) find("notes").append(make("span", "note warn", data.missing === 1 ? "1 position has no readings" : `${data.missing} positions have no readings`));
}

notes();
showMarks();
setTheme(prefersDark.matches ? "dark" : "light");
buildAxis(find("sheet"));
for (let position = 0; position < positionCount; position++) {
  columns.push(buildColumn(position));
  find("sheet").append(columns[position].element);
}
setWidth(positionCount <= 14 ? 3 : 2);
if (positionCount && layerCount) refresh();
