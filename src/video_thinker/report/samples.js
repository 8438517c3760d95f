// The samples: a filtered list of which only the visible rows exist, and one sample in detail.

const $ = (id) => document.getElementById(id);
const ROW = 60;  // px, --row of the style sheet
const TICK_WIDTH = 56;  // px that the label of a tick needs
const MARKS = { correct: "✓", partial: "◐", wrong: "✗", unanswered: "?", unscorable: "–", failed: "!", missing: "·" };
const EXPLAIN = {
  correct: "correct", partial: "partly correct", wrong: "wrong", unanswered: "no readable answer",
  unscorable: "gold cannot be graded", failed: "failed, no completion", missing: "no prediction",
};
const NONE = { status: "missing", moments: [], violations: [], completion: "", reasoning: "", answer: null };
const UNREAD = { none: "no answer", "no option": "not among the options", unreadable: "no readable answer" };
const explain = (prediction) => (prediction.status === "unanswered" && UNREAD[prediction.unread]) || EXPLAIN[prediction.status];
const statusOf = (sample, entry) => (sample.predictions[entry] || NONE).status;
const FILTERS = [
  { name: "all", label: "All", test: () => true },
  { name: "correct", label: "Correct", test: (p) => p.status === "correct", optional: true },
  { name: "wrong", label: "Wrong", test: (p) => p.status === "wrong" },
  { name: "partial", label: "Partly correct", test: (p) => p.status === "partial", optional: true },
  { name: "unanswered", label: "Unanswered", test: (p) => p.status === "unanswered" },
  { name: "no-option", label: "Not an option", test: (p) => p.unread === "no option", optional: true, title: "names an answer that is none of the options" },
  { name: "unscorable", label: "Unscorable", test: (p) => p.status === "unscorable", optional: true },
  { name: "failed", label: "Failed", test: (p) => p.status === "failed" },
  { name: "lost", label: "Lost grounding", test: (p) => p.lost, title: `has gold segments, and a mean best IoU with them below ${data.lost_iou}` },
  { name: "truncated", label: "Cut off", test: (p) => p.finished === false, optional: true, title: "reached the token limit" },
  { name: "missing", label: "No prediction", test: (p) => p.status === "missing", optional: true },
  { name: "differ", label: "A ≠ B", test: (p, sample) => state.b !== null && p.status !== statusOf(sample, state.b), optional: true, title: "A and B fare differently" },
];
const last = (value) => (value === null || value === undefined ? Infinity : value);
const SORTS = [
  { name: "file", label: "as in the file" },
  { name: "short", label: "shortest clip first", key: (sample) => last(sample.duration) },
  { name: "long", label: "longest clip first", key: (sample) => last(sample.duration && -sample.duration) },
  { name: "low", label: "lowest mIoU of A first", key: (sample, p) => last(p.miou) },
  { name: "high", label: "highest mIoU of A first", key: (sample, p) => last(p.miou === null || p.miou === undefined ? null : -p.miou) },
  { name: "wordy", label: "longest completion of A first", key: (sample, p) => -(p.num_tokens || p.completion.length) },
];
const state = { split: data.splits[0], a: data.main.at(-1) ?? 0, b: data.main.length > 1 ? data.main.at(-2) : null, filter: "all", sort: "file", category: "", query: "", view: [], at: 0 };
const wide = matchMedia("(min-width: 821px)");
const isOpen = () => wide.matches || document.body.classList.contains("open");

function clock(seconds) {
  const hundredths = Math.round(seconds * 100);
  const [hours, minutes, rest] = [Math.floor(hundredths / 360000), Math.floor(hundredths / 6000) % 60, hundredths % 6000];
  const second = String(Math.floor(rest / 100)).padStart(2, "0");
  const decimals = rest % 100 ? `.${String(rest % 100).padStart(2, "0").replace(/0$/, "")}` : "";
  return `${hours ? `${hours}:` : ""}${String(minutes).padStart(2, "0")}:${second}${decimals}`;
}
const span = (segment) => `${clock(segment.start)}–${clock(segment.end)}`;
const glyph = (status, title) => h("span", { class: `glyph ${status}`, title: title || EXPLAIN[status], role: "img", "aria-label": EXPLAIN[status] }, h("span", {}, MARKS[status]));

// ---- which samples ----

function haystack(sample) {
  const texts = [sample.id, sample.problem, sample.category, sample.answer, ...sample.options, ...sample.segments.map((s) => s.caption)];
  for (const prediction of Object.values(sample.predictions)) texts.push(prediction.completion, prediction.error || "");
  return (sample.text ??= texts.join("\n").toLowerCase());
}

function refresh(keep) {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const pool = data.samples.filter((sample) => sample.split === state.split
    && (!state.category || sample.category === state.category)
    && words.every((word) => haystack(sample).includes(word)));
  const passing = (filter) => pool.filter((sample) => filter.test(sample.predictions[state.a] || NONE, sample));
  const found = Object.fromEntries(FILTERS.map((filter) => [filter.name, passing(filter)]));
  $("filters").replaceChildren(...FILTERS.filter((f) => !f.optional || found[f.name].length || f.name === state.filter).map((filter) =>
    h("button", { type: "button", "data-filter": filter.name, "aria-pressed": String(filter.name === state.filter), title: filter.title, onclick: () => choose({ filter: filter.name }) },
      filter.label, h("span", { class: "n" }, found[filter.name].length))));
  state.view = sorted(found[state.filter]);
  state.at = Math.max(0, state.view.indexOf(keep));
  $("rows").style.height = `${state.view.length * ROW}px`;
  select(state.at, false);
}

function sorted(samples) {
  const key = SORTS.find((sort) => sort.name === state.sort).key;
  if (!key) return samples;
  const keyed = samples.map((sample) => [key(sample, sample.predictions[state.a] || NONE), sample]);
  return keyed.sort(([one], [other]) => (one === other ? 0 : one - other)).map(([, sample]) => sample);
}

// One row for each sample of the list, in its order: the question, its gold, and what each model gave.
function exportView() {
  const rows = state.view.map((sample) => JSON.stringify({
    split: sample.split, problem_id: sample.id, problem: sample.problem, options: sample.options, answer: sample.answer,
    category: sample.category, duration_s: sample.duration, path: sample.media.map((number) => data.media[number].path),
    predictions: Object.fromEntries(Object.entries(sample.predictions).map(([entry, p]) => [data.entries[entry],
      { status: p.status, reason: explain(p), score: p.score, answer: p.answer, miou: p.miou, completion: p.completion, error: p.error }])),
  }) + "\n");
  const url = URL.createObjectURL(new Blob(rows, { type: "application/jsonl" }));
  h("a", { href: url, download: `${state.split}.${state.filter}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function choose(change) {
  const keep = state.view[state.at];
  Object.assign(state, change);
  if ("split" in change) { state.category = ""; fillCategories(); }
  for (const [id, value] of [["split", state.split], ["entry-a", state.a], ["entry-b", state.b ?? ""], ["category", state.category], ["sort", state.sort]]) $(id).value = value;
  refresh(keep);
}

// ---- the list ----

function drawRows() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(state.view.length, Math.ceil((list.scrollTop + (list.clientHeight || 800)) / ROW) + 4);
  $("rows").replaceChildren(...state.view.slice(first, last).map((sample, i) => drawRow(sample, first + i)));
  list.setAttribute("aria-activedescendant", state.view.length ? `row-${state.at}` : "");
}

function drawRow(sample, index) {
  const marks = [state.a, state.b].filter((entry) => entry !== null).map((entry) => glyph(statusOf(sample, entry), `${data.entries[entry]}: ${explain(sample.predictions[entry] || NONE)}`));
  return h("div", {
    class: "row", id: `row-${index}`, role: "option", style: `top:${index * ROW}px`, "data-id": sample.id,
    "aria-selected": String(index === state.at), "aria-setsize": state.view.length, "aria-posinset": index + 1,
    onclick: () => { select(index, true); openDetail(); },
  }, h("span", { class: "marks" }, marks), h("span", { class: "q" }, sample.problem),
  h("span", { class: "meta" }, [sample.category, sample.id].filter(Boolean).join(" · ")));
}

function select(index, remember) {
  const list = $("list");
  state.at = Math.min(Math.max(0, index), Math.max(0, state.view.length - 1));
  const top = state.at * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  $("count").textContent = state.view.length ? `${state.at + 1} of ${state.view.length}` : "none";
  const sample = state.view[state.at];
  if (isOpen()) drawDetail(sample);
  if (remember && sample) history.replaceState(null, "", `#${encodeURIComponent(sample.split)}/${encodeURIComponent(sample.id)}`);
}

function openDetail() {
  if (wide.matches) return;
  document.body.classList.add("open");
  drawDetail(state.view[state.at]);
  $("detail").focus();
}

function closeDetail() {
  document.body.classList.remove("open");
  $("list").focus({ preventScroll: wide.matches });
}

// ---- one sample ----

let shown = { segments: [], on: () => {}, off: () => {} };

function drawDetail(sample) {
  const detail = $("detail");
  detail.scrollTop = 0;
  if (!sample) {
    detail.replaceChildren(h("p", { class: "nothing" }, "No sample passes these filters."));
    return;
  }
  const models = [["A", state.a], ["B", state.b]].filter(([, entry]) => entry !== null)
    .map(([letter, entry]) => ({ letter, entry, prediction: sample.predictions[entry] || NONE }));
  shown = { segments: [], on: () => {}, off: () => {} };
  detail.replaceChildren(
    h("div", { class: "crumbs" }, h("button", { type: "button", class: "back", onclick: closeDetail }, "← List"),
      h("span", { class: "id" }, sample.id), sample.category && h("span", {}, sample.category), h("span", {}, sample.split),
      sample.duration && h("span", {}, `${Number(sample.duration.toFixed(1))} s`)),
    h("p", { class: "problem" }, sample.problem), drawOptions(sample, models), drawMedia(sample, models), ...drawClips(sample),
    h("div", { class: "models" }, models.map((model) => drawModel(sample, model))));
  link(detail);
}

function drawOptions(sample, models) {
  if (!sample.options.length) return h("p", { class: "options" }, h("span", { class: "goldtext" }, "gold"), ` ${sample.answer}`);
  return h("ul", { class: "options" }, sample.options.map((option, index) => h("li", { class: index === sample.gold && "gold" }, option,
    models.filter((model) => model.prediction.choice === index).map((model) => h("span", { class: `badge ${model.letter.toLowerCase()}`, title: `answer of ${data.entries[model.entry]}` }, model.letter)),
    index === sample.gold && h("span", { class: "goldtext" }, "gold"))));
}

function drawMedia(sample, models) {
  const strips = sample.media.map((number) => data.media[number]);
  const errors = strips.filter((strip) => strip.error).map((strip) => h("p", { class: "unread" }, `No frames: ${strip.error}`));
  if (sample.duration) return h("div", {}, errors, drawTime(sample, models, strips[0]));
  return h("div", {}, errors, strips.filter((strip) => strip.image).map((strip) => h("div", { class: `time ${strip.num_frames === 1 ? "still" : ""}` },
    strip.num_frames > 1 && h("span"), drawStrip(strip))));
}

// A clip is read from its file when a reader opens it. The page holds no clip: it plays where both still lie as they did.
function drawClips(sample) {
  return sample.media.map((number) => data.media[number]).filter((media) => media.url).map((media) => {
    const link = h("a", { href: media.url, target: "_blank", rel: "noopener" }, media.path);
    if (media.kind !== "video") return h("p", { class: "clip" }, "File: ", link);
    const box = h("details", { class: "clip" }, h("summary", {}, "Play the clip"));
    box.addEventListener("toggle", () => {
      if (!box.open || box.querySelector("video")) return;
      const said = h("p", { class: "unread", hidden: true }, "This browser cannot play the clip, or it is no longer at its place. Open the file: ", link.cloneNode(true));
      const video = h("video", { controls: true, preload: "metadata", src: media.url, "aria-label": media.path, onerror: () => { video.hidden = true; said.hidden = false; } });
      box.append(video, said);
    });
    box.append(h("p", { class: "soft" }, link, " · a click on a segment goes to its start"));
    return box;
  });
}

function drawStrip(strip) {
  const cells = Array.from({ length: strip.num_frames }, (_, i) => h("div", { class: "cell" }, h("div", {
    class: "frame", style: `background-image:url("${strip.image}");background-position:${strip.num_frames > 1 ? i / (strip.num_frames - 1) * 100 : 0}% 0`,
  })));
  return h("div", { class: "strip", "--n": strip.num_frames || 1, "--aspect": strip.aspect, role: "img", "aria-label": `${strip.num_frames} frames of ${strip.path}` }, cells, h("div", { class: "veil" }));
}

function drawTime(sample, models, strip) {
  const ticks = [];
  const room = Math.max(2, Math.floor(($("detail").clientWidth - 60) / TICK_WIDTH));
  const every = Math.ceil(sample.duration / sample.tick / room);
  for (let time = 0; time <= sample.duration * 1.0001; time += sample.tick * every) {
    ticks.push(h("span", { class: time > sample.duration * 0.96 && "end", style: `left:${time / sample.duration * 100}%` }, clock(time)));
  }
  const lanes = models.map(({ letter, prediction }) => [
    h("span", { class: "gutter" }, h("span", { class: `badge ${letter.toLowerCase()}` }, letter)),
    drawLanes(sample, prediction.moments, letter, prediction.error ? "failed" : "no segment"),
  ]);
  const gold = sample.segments.length > 0 && [h("span", { class: "gutter" }, "gold"), drawLanes(sample, sample.segments, "gold", "")];
  return h("div", { class: "time" }, h("span", { class: "gutter" }), strip.image ? drawStrip(strip) : h("div", { class: "strip none" }, h("div", { class: "veil" })),
    h("span", { class: "gutter" }), h("div", { class: "ticks" }, ticks), lanes, gold, h("div", { class: "card", hidden: true }));
}

function drawLanes(sample, segments, owner, empty) {
  const rows = 1 + Math.max(0, ...segments.map((segment) => segment.row ?? 0));
  const inside = segments.map((segment, index) => ({ segment, index })).filter(({ segment }) => segment.row !== null)
    .sort((one, other) => one.segment.start - other.segment.start);
  const outside = segments.length - inside.length;
  const note = outside ? `${outside} outside of the video` : segments.length ? "" : empty;
  return h("div", { class: "lanes", style: `height:${rows * 30 + 4}px`, "--step": sample.tick / sample.duration },
    inside.map(({ segment, index }) => drawSegment(sample, segment, index, owner)), !inside.length && h("span", { class: "empty" }, note));
}

function colorOf(index) {
  const color = data.colors[index % data.colors.length];
  return { "--fill": color.fill, "--on": color.ink };
}

function drawSegment(sample, segment, index, owner) {
  const left = segment.start / sample.duration * 100;
  const right = Math.min(100, segment.end / sample.duration * 100);
  const isGold = owner === "gold";
  const cut = segment.end > sample.duration + 1;
  const label = `${isGold ? "Gold segment" : `Segment ${index + 1} of ${owner}`}, ${span(segment)}: ${segment.caption || "no caption"}${segment.think ? `. Thought: ${segment.think}` : ""}`;
  const node = h("button", {
    type: "button", class: `seg ${isGold ? "gold-seg" : ""} ${cut ? "cut" : ""}`, "aria-label": label, "data-owner": owner, "data-index": index,
    onclick: () => { const video = document.querySelector(".clip video"); if (video) video.currentTime = segment.start; },
    style: `left:${left}%;width:${right - left}%;top:${3 + segment.row * 30}px`, ...(isGold ? {} : colorOf(index)),
  }, !isGold && h("b", {}, index + 1), h("span", { class: "text" }, segment.caption));
  shown.segments.push({ node, segment, index, owner, left, right, cut });
  return node;
}

function drawAnswer(sample, prediction) {
  if (prediction.error) return h("p", { class: "unread" }, prediction.error);
  if (prediction.status === "missing") return h("p", { class: "nothing" }, "No prediction for this sample.");
  const option = sample.options[prediction.choice];
  return h("p", { class: "answer" }, option ?? prediction.answer ?? "no answer",
    prediction.unread === "no option" && h("small", {}, "is none of the options"),
    option && !option.startsWith(prediction.answer) && h("small", {}, `written as “${prediction.answer}”`),
    prediction.status === "partial" && h("small", {}, `score ${prediction.score.toFixed(2)}, gold “${sample.answer}”`));
}

function drawModel(sample, { letter, entry, prediction }) {
  const body = prediction.error || prediction.status === "missing" ? null : [
    prediction.moments.length > 0 && [h("h4", {}, "Moments"), h("ol", { class: "moments" }, prediction.moments.map((moment, index) => drawMoment(sample, moment, index, letter)))],
    prediction.reasoning && [h("h4", {}, "Reasoning"), h("p", { class: "reasoning" }, prediction.reasoning)],
    h("p", { class: "facts" }, [
      prediction.miou !== null && h("span", { class: prediction.lost && "bad" }, `mIoU ${prediction.miou.toFixed(2)}${prediction.lost ? ", lost grounding" : ""}`),
      h("span", { class: prediction.violations.length > 0 && "bad" }, prediction.violations.length ? `format: ${prediction.violations.join("; ")}` : "valid format"),
      prediction.num_tokens > 0 && h("span", {}, `${prediction.num_tokens} tokens`), prediction.finished === false && h("span", { class: "bad" }, "cut off at the token limit")]),
    h("details", {}, h("summary", {}, "Completion as written"), h("pre", {}, prediction.completion)),
  ];
  return h("section", { class: "model", "data-model": letter },
    h("header", {}, h("span", { class: `badge ${letter.toLowerCase()}` }, letter), h("span", { class: "name", title: data.entries[entry] }, data.entries[entry]),
      h("span", { class: `verdict ${prediction.status}` }, glyph(prediction.status, explain(prediction)), explain(prediction))),
    drawAnswer(sample, prediction), body);
}

function drawMoment(sample, moment, index, letter) {
  return h("li", { "data-owner": letter, "data-index": index }, h("span", { class: "num", ...colorOf(index) }, index + 1), h("div", {},
    h("div", { class: "when" }, h("span", {}, span(moment), sample.duration && moment.row === null && " · outside of the video"), moment.iou !== null && h("span", {}, `IoU ${moment.iou.toFixed(2)}`)),
    h("div", {}, moment.caption), moment.think && h("div", { class: "think" }, moment.think)));
}

// Hovering or focusing a segment, or the moment beside it, lights both up, dims the other frames and shows the card.
function link(detail) {
  const card = detail.querySelector(".card"), veil = detail.querySelector(".veil"), time = detail.querySelector(".time");
  const partners = (one) => detail.querySelectorAll(`[data-owner="${one.owner}"][data-index="${one.index}"]`);
  shown.off = () => {
    detail.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    if (card) card.hidden = true;
  };
  shown.on = (one, withCard) => {
    shown.off();
    partners(one).forEach((node) => node.classList.add("on"));
    veil.classList.add("on");
    veil.style.setProperty("--from", `${one.left}%`);
    veil.style.setProperty("--to", `${one.right}%`);
    if (withCard) placeCard(card, time, one);
  };
  for (const one of shown.segments) {
    one.node.addEventListener("pointerenter", () => shown.on(one, true));
    one.node.addEventListener("pointerleave", () => { if (document.activeElement !== one.node) shown.off(); });
    one.node.addEventListener("focus", () => shown.on(one, true));
    one.node.addEventListener("blur", () => shown.off());
    detail.querySelectorAll(`li[data-owner="${one.owner}"][data-index="${one.index}"]`).forEach((node) => {
      node.addEventListener("pointerenter", () => shown.on(one, false));
      node.addEventListener("pointerleave", () => shown.off());
    });
  }
}

function placeCard(card, time, { node, segment, index, owner, cut }) {
  const badge = owner === "gold" ? h("span", { class: "num gold-num" }, "gold") : h("span", { class: "num", ...colorOf(index) }, index + 1);
  card.replaceChildren(h("div", { class: "when" }, badge, span(segment), cut && h("span", { class: "soft" }, "beyond the end"),
    segment.iou !== null && segment.iou !== undefined && h("span", { class: "iou" }, `IoU ${segment.iou.toFixed(2)}`)),
  h("div", { class: "caption" }, segment.caption || "no caption"), segment.think && h("div", { class: "think" }, segment.think));
  card.hidden = false;
  const area = time.getBoundingClientRect(), place = node.getBoundingClientRect();
  card.style.left = `${Math.max(4, Math.min(place.left - area.left, area.width - card.offsetWidth - 4))}px`;
  card.style.top = `${area.height + 4}px`;  // under the lanes, so that the other model and the gold stay in sight
}
