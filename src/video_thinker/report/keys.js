// Controls and keys of the samples, and the start of the page.

function fill(id, options) {
  $(id).replaceChildren(...options.map(([value, label]) => h("option", { value }, label)));
}

function fillCategories() {
  const counts = new Map();
  for (const sample of data.samples) if (sample.split === state.split && sample.category) counts.set(sample.category, (counts.get(sample.category) || 0) + 1);
  const names = [...counts.keys()].sort();
  fill("category", [["", "all"], ...names.map((name) => [name, `${name} (${counts.get(name)})`])]);
  $("category").parentElement.hidden = names.length < 2;
}

function moveSegment(step) {
  if (!isOpen() || !shown.segments.length) return;
  const at = shown.segments.findIndex((one) => one.node === document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : shown.segments.length - 1) : at + step;
  shown.segments[Math.min(Math.max(0, next), shown.segments.length - 1)].node.focus();
}

function goBack() {
  if (document.activeElement.classList.contains("seg")) { document.activeElement.blur(); $("detail").focus(); }
  else closeDetail();
}

function nextFilter() {
  const names = [...$("filters").querySelectorAll("button")].map((button) => button.dataset.filter);
  choose({ filter: names[(names.indexOf(state.filter) + 1) % names.length] });
}

function toSamples() {
  if (!isOpen() || wide.matches) $("samples").scrollIntoView({ block: "start" });
}

function step(by) {
  toSamples();
  if (wide.matches && document.activeElement !== $("list")) $("list").focus({ preventScroll: true });
  select(state.at + by, true);
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  f: () => nextFilter(),
  ArrowRight: () => moveSegment(1),
  ArrowLeft: () => moveSegment(-1),
  "/": () => { toSamples(); $("search").focus(); $("search").select(); },
  "?": () => $("help").click(),
  Escape: () => goBack(),
};
const LIST_KEYS = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  PageDown: () => step(10),
  PageUp: () => step(-10),
  Home: () => select(0, true),
  End: () => select(state.view.length - 1, true),
  Enter: () => { if (wide.matches) $("detail").focus(); else openDetail(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target === $("search")) {
    if (event.key === "Escape") target.value ? (target.value = "", choose({ query: "" })) : $("list").focus();
    else if (event.key === "Enter" || event.key === "ArrowDown") $("list").focus();
    else return;
    event.preventDefault();
    return;
  }
  if (target.matches("select, .scroll")) return;
  const action = (target === $("list") && LIST_KEYS[event.key]) || KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function openHash() {
  const [split, id] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const sample = id && data.samples.find((candidate) => candidate.split === split && candidate.id === id);
  if (!sample) return;
  choose({ split, filter: "all", category: "", query: "" });
  select(state.view.indexOf(sample), false);
  $("samples").scrollIntoView({ block: "start" });
  openDetail();
}

function drawLegend() {
  const there = new Set(data.samples.flatMap((sample) => Object.values(sample.predictions).map((p) => p.status)));
  if (data.samples.some((sample) => data.main.some((entry) => !sample.predictions[entry]))) there.add("missing");
  const box = (content, props) => h("span", { class: "num", ...props }, content);
  const entries = [
    ...Object.keys(MARKS).filter((status) => there.has(status)).map((status) => [glyph(status), status === "unanswered" ? "no answer, or none that can be read" : EXPLAIN[status]]),
    [[h("span", { class: "badge a" }, "A"), h("span", { class: "badge b" }, "B")], "model A and model B; on an option: its answer"],
    [[0, 1, 2].map((index) => box(index + 1, colorOf(index))), "segments that a model names, in the order of its text; the color goes with the number"],
    [box("gold", { class: "num gold-num" }), "gold segment, or the right option"],
    [h("span", { class: "seg cut sample", ...colorOf(0) }), "goes on beyond the end of the video"],
  ];
  $("legend").replaceChildren(...entries.map(([mark, text]) => h("span", { class: "item" }, mark, " ", text)));
}

function startSamples() {
  const entries = data.entries.map((name, index) => [index, name]);
  fill("split", data.splits.map((name) => [name, name]));
  fill("entry-a", entries);
  fill("entry-b", [["", "none"], ...entries]);
  fill("sort", SORTS.map((sort) => [sort.name, sort.label]));
  drawLegend();
  $("sort").addEventListener("change", (event) => choose({ sort: event.target.value }));
  $("export").addEventListener("click", exportView);
  $("split").parentElement.hidden = data.splits.length < 2;
  $("label-b").hidden = entries.length < 2;
  $("split").addEventListener("change", (event) => choose({ split: event.target.value }));
  $("entry-a").addEventListener("change", (event) => choose({ a: Number(event.target.value) }));
  $("entry-b").addEventListener("change", (event) => choose({ b: event.target.value === "" ? null : Number(event.target.value) }));
  $("category").addEventListener("change", (event) => choose({ category: event.target.value }));
  $("search").addEventListener("input", (event) => choose({ query: event.target.value }));
  $("help").addEventListener("click", () => {
    $("legend").hidden = $("keys").hidden = !$("keys").hidden;
    $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
  });
  $("list").addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(drawRows).observe($("list"));
  wide.addEventListener("change", () => { document.body.classList.remove("open"); drawDetail(state.view[state.at]); });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", openHash);
  choose({ split: data.splits[0] });
  openHash();
}

if (data.samples.length) startSamples();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
