// The explorer's image stack: a stage and linked panels, drawn from bytes that the kernel sends.
//
// Kernel → view, custom messages: "hello" {panels, tables} · "update" {maps, jpegs, …} · "busy" · "error" {text} · "pong".
// View → kernel: ready, ping, point, paint, upload, load, undo, redo, reset; each with an id that the answer repeats.
// Blending, zoom, the reading under the pointer, the mask's threshold and before/after need no kernel at all.

const BRUSHES = { nearer: "push nearer", farther: "push away", smear: "smear" };
const SILENCE_MS = 6000; // a kernel that says nothing for so long is gone, or at work on another cell
const BUSY_MS = 30000; // one that said "busy" may take its time
const LARGEST_UPLOAD = 8e6; // beyond this a server's message limit may cut the connection, so the browser reduces it
const REDUCED_PX = 2048;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

class Stack {
  constructor(model, el) {
    Object.assign(this, { model, el, tables: {}, now: {}, before: {}, frame: null, pointer: null, cursor: null });
    Object.assign(this, { tool: "point", holding: false, waiting: new Map(), count: 0, strokes: [], update: {} });
    this.zoom = [...model.get("zoom")];
    this.build();
    this.listen();
    this.ask({ kind: "ready" });
  }

  // --- the page ---------------------------------------------------------------------------------------

  build() {
    const button = (label, text, action, key) =>
      make("button", { type: "button", title: key ? `${label} (${key})` : label, "aria-label": label, onclick: action }, text);
    const pick = (tool, label) => {
      const b = button(label, label, () => this.choose(tool));
      b.dataset.tool = tool;
      b.setAttribute("aria-pressed", String(tool === this.tool));
      return b;
    };
    this.status = make("span", { class: "lk-status", role: "status", "aria-live": "polite" }, "waiting for the first picture…");
    this.file = make("input", { type: "file", class: "lk-hidden", "aria-label": "Image or saved state", tabindex: "-1",
      accept: "image/*,.json", onchange: () => this.take(this.file.files) });
    this.undo = button("Undo", "↶ undo", () => this.ask({ kind: "undo" }), "Ctrl+Z");
    this.redo = button("Redo", "↷ redo", () => this.ask({ kind: "redo" }), "Ctrl+Y");
    this.hold = button("Hold to see before", "hold: before", () => {}, "B");
    this.hold.onpointerdown = () => this.show(true);
    this.hold.onpointerup = this.hold.onpointerleave = this.hold.onblur = () => this.show(false);
    this.hold.onkeydown = (event) => { if (event.key === " " || event.key === "Enter") this.show(true); };
    this.hold.onkeyup = () => this.show(false);
    const bar = make("div", { class: "lk-bar", role: "toolbar", "aria-label": "Tools of the image stack" },
      make("span", { class: "lk-group", role: "group", "aria-label": "What the mouse does on the stage" },
        pick("point", "point"), ...Object.entries(BRUSHES).map(([tool, label]) => pick(tool, label))),
      make("span", { class: "lk-group" }, this.undo, this.redo, button("Reset the what-if", "reset", () => this.ask({ kind: "reset" }))),
      make("span", { class: "lk-group" }, this.hold),
      make("span", { class: "lk-group" }, button("Zoom out", "−", () => this.magnify(1 / 1.4), "-"),
        button("Whole image", "1:1", () => this.look([1, 0.5, 0.5]), "0"), button("Zoom in", "+", () => this.magnify(1.4), "+")),
      make("span", { class: "lk-group" }, button("Open an image or a saved state", "open…", () => this.file.click()),
        button("Save the view as a picture", "save picture", () => this.savePicture()),
        button("Save the state as JSON", "save state", () => this.saveState()),
        button("Copy the line of Python that shows this view", "copy Python", () => this.copyLine())), this.file, this.status);
    this.error = make("p", { class: "lk-error", role: "alert", hidden: "" });
    this.silence = make("p", { class: "lk-error lk-silence", role: "alert", hidden: "" });
    this.note = make("p", { class: "lk-note" });
    this.stage = make("canvas", { class: "lk-stage", tabindex: "0", role: "application" });
    this.under = this.selector("under", "Under");
    this.over = this.selector("over", "Over");
    this.opacity = make("input", { type: "range", min: "0", max: "1", step: "0.01", "aria-label": "Opacity", class: "lk-opacity",
      oninput: () => this.put("opacity", Number(this.opacity.value)) });
    const mix = make("div", { class: "lk-mix", role: "group", "aria-label": "Blend on the stage" }, this.under, this.opacity, this.over);
    this.caption = make("p", { class: "lk-caption" });
    this.help = make("p", { class: "lk-help" }, "Click: measure · drag: move · Ctrl+wheel or + −: zoom · arrows and Enter: " +
      "measure by keyboard · hold B: before");
    this.panels = make("div", { class: "lk-panels", role: "group", "aria-label": "Linked panels" });
    this.table = make("div", { class: "lk-numbers" });
    this.plots = make("div", { class: "lk-plots" });
    this.line = make("textarea", { class: "lk-line", readonly: "", rows: "2", "aria-label": "Line of Python that shows this view", spellcheck: "false" });
    this.root = make("div", { class: "lk-stack" }, bar, this.error, this.silence, this.note,
      make("div", { class: "lk-main" },
        make("div", { class: "lk-left" }, make("div", { class: "lk-mid" }, this.stage, mix, this.caption, this.help),
          make("div", { class: "lk-side" }, this.table)),
        make("div", { class: "lk-right" }, this.panels, this.plots)),
      make("label", { class: "lk-linelabel" }, "Python", this.line));
    this.el.append(this.root);
  }

  selector(trait, label) {
    return make("select", { "aria-label": label, onchange: (event) => this.put(trait, event.target.value) });
  }

  put(trait, value) { // shown at once; the kernel, if it lives, remembers it for the saved state
    this.model.set(trait, value);
    this.model.save_changes();
  }

  buildPanels(names) {
    for (const select of [this.under, this.over])
      select.replaceChildren(...Object.entries(names).map(([name, title]) => make("option", { value: name }, title)));
    this.cells = {};
    this.panels.replaceChildren();
    for (const [name, title] of Object.entries(names)) {
      const canvas = make("canvas", { role: "img", "aria-label": title });
      const value = make("span", { class: "lk-value" });
      const cell = make("figure", { class: "lk-cell", "data-panel": name }, canvas,
        make("figcaption", {}, make("span", {}, title), value));
      this.cells[name] = { canvas, value, title };
      this.panels.append(cell);
      this.follow(canvas);
    }
  }

  listen() {
    const { model, root, stage } = this;
    this.onMessage = (message, buffers) => this.receive(message, buffers);
    this.onTrait = () => this.draw();
    this.onZoom = () => { this.zoom = [...model.get("zoom")]; this.draw(); };
    model.on("msg:custom", this.onMessage);
    this.traits = ["under", "over", "opacity", "threshold", "brush_px"].map((t) => `change:${t}`);
    for (const trait of this.traits) model.on(trait, this.onTrait);
    model.on("change:zoom", this.onZoom);
    this.onDead = () => this.silent();
    model.on("comm_live_update", this.onDead);
    this.follow(stage);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(root);
    // The controls stand beside this element, in the same box: their keys and their kernel are watched too.
    requestAnimationFrame(() => this.adopt(root.closest(".lesionkit-explorer") ?? root));
  }

  adopt(whole) {
    this.whole = whole;
    this.onKey = (event) => this.key(event);
    this.onUse = () => this.watch();
    whole.tabIndex = -1; // a click between the controls keeps the keys here
    for (const kind of ["keydown", "keyup"]) whole.addEventListener(kind, this.onKey);
    this.onRelease = (event) => { if (event.key.toLowerCase() === "b") this.show(false); };
    this.onAnyKey = (event) => { // JupyterLab looks for this attribute; first of all, its Ctrl+S should still save
      if (this.isOurs(event)) whole.setAttribute("data-lm-suppress-shortcuts", "true");
      else whole.removeAttribute("data-lm-suppress-shortcuts");
    };
    window.addEventListener("keyup", this.onRelease, true); // it may be released elsewhere
    window.addEventListener("keydown", this.onAnyKey, true);
    for (const kind of ["pointerdown", "pointermove", "keydown"]) whole.addEventListener(kind, this.onUse);
    whole.addEventListener("dragover", (event) => event.preventDefault());
    whole.addEventListener("drop", (event) => { event.preventDefault(); this.take(event.dataTransfer.files); });
    this.blur = () => this.show(false);
    window.addEventListener("blur", this.blur); // the key's release would be missed
    this.nameSliders();
    this.observer = new MutationObserver(() => this.nameSliders());
    this.observer.observe(whole, { childList: true, subtree: true });
  }

  nameSliders() { // ipywidgets gives its sliders' handles no name of their own
    for (const slider of this.whole.querySelectorAll(".widget-slider, .widget-inline-hbox")) {
      const name = slider.querySelector(".widget-label")?.textContent;
      for (const handle of slider.querySelectorAll(".noUi-handle, [contenteditable], select, input"))
        if (name && !handle.getAttribute("aria-label")) handle.setAttribute("aria-label", name);
    }
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
    for (const trait of this.traits) this.model.off(trait, this.onTrait);
    this.model.off("change:zoom", this.onZoom);
    this.model.off("comm_live_update", this.onDead);
    this.resize.disconnect();
    this.observer?.disconnect();
    window.removeEventListener("blur", this.blur);
    window.removeEventListener("keyup", this.onRelease, true);
    window.removeEventListener("keydown", this.onAnyKey, true);
    for (const kind of ["keydown", "keyup"]) this.whole?.removeEventListener(kind, this.onKey);
    for (const kind of ["pointerdown", "pointermove", "keydown"]) this.whole?.removeEventListener(kind, this.onUse);
    for (const timer of this.waiting.values()) clearTimeout(timer);
  }

  // --- talking to the kernel --------------------------------------------------------------------------

  ask(message, buffers = []) {
    const id = `${++this.count}`;
    this.waiting.set(id, setTimeout(() => this.silent(), SILENCE_MS));
    this.model.send({ ...message, id }, undefined, buffers);
    return id;
  }

  watch() { // while somebody uses the explorer, ask now and then whether the kernel is still there
    if (this.waiting.size || Date.now() - (this.asked ?? 0) < 4000) return;
    this.asked = Date.now();
    this.ask({ kind: "ping" });
  }

  silent() {
    this.silence.textContent = this.frame
      ? "The kernel does not answer: it is busy with something else, or it has stopped. Blending, zoom, values, threshold " +
        "and before/after still work here; for the rest restart the kernel and run the cell again."
      : "The first picture comes when the kernel has run the other cells. If it has stopped, restart it and run this cell again.";
    this.silence.hidden = false;
    this.setBusy(false);
  }

  receive(message, buffers) {
    this.silence.hidden = true;
    for (const timer of this.waiting.values()) clearTimeout(timer);
    const answered = message.reply && this.waiting.has(message.reply);
    const patience = message.kind === "busy" ? BUSY_MS : SILENCE_MS; // it has said that it works
    for (const id of this.waiting.keys()) this.waiting.set(id, setTimeout(() => this.silent(), patience));
    if (answered && message.kind !== "busy") { clearTimeout(this.waiting.get(message.reply)); this.waiting.delete(message.reply); }
    if (message.kind === "hello") this.hello(message, buffers);
    if (message.kind !== "pong") this.turn = (this.turn ?? 0) + 1;
    if (message.kind === "busy") this.setBusy(true);
    if (message.kind === "update") this.take_update(message, buffers, this.turn);
    if (message.kind === "error") this.fail(message.text);
    if (answered && message.reply === this.painting) { this.painting = null; this.sendStroke(); }
  }

  hello(message, buffers) {
    for (const [i, name] of message.tables.entries()) this.tables[name] = new Uint8Array(buffers[i].buffer, buffers[i].byteOffset, 768);
    this.usual = message.view;
    this.buildPanels(message.panels);
  }

  setBusy(busy) { // what takes less than a blink shows no sign
    clearTimeout(this.busyTimer);
    if (busy && !this.root.classList.contains("lk-busy")) this.busyTimer = setTimeout(() => this.showBusy(true), 50);
    else if (!busy) this.showBusy(false);
  }

  showBusy(busy) {
    this.root.classList.toggle("lk-busy", busy);
    this.root.setAttribute("aria-busy", String(busy));
    this.status.textContent = busy ? "computing…" : this.frame ? this.frame.label : "";
  }

  fail(text) {
    this.error.textContent = text;
    this.error.hidden = !text;
    this.setBusy(false);
  }

  async take_update(message, buffers, turn) {
    const before = this.landing;
    let landed;
    this.landing = new Promise((resolve) => (landed = resolve)); // at once: the next update waits for this one
    try {
      const pictures = await Promise.all(message.jpegs.map(async (jpeg, i) => {
        const bytes = buffers[message.maps.length + i];
        return [jpeg, await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }))];
      }));
      await before; // pictures decode in parallel, but arrive in order
      this.land(message, buffers, pictures, turn === this.turn);
    } catch (error) {
      this.fail(`The picture could not be drawn: ${error.message}. Change something to draw it anew.`);
    } finally {
      landed();
    }
  }

  land(message, buffers, pictures, last) {
    if (message.frame) Object.assign(this, { frame: message.frame, now: {}, before: {} });
    const keep = ({ side, name }, picture) => { for (const one of side === "both" ? ["now", "before"] : [side]) this[one][name] = picture; };
    message.maps.forEach((map, i) => keep(map, this.paintMap(map, buffers[i])));
    for (const [jpeg, bitmap] of pictures) keep(jpeg, { bitmap, jpeg: true });
    this.update = { ...this.update, ...message };
    this.undo.disabled = !message.can_undo;
    this.redo.disabled = !message.can_redo;
    this.line.value = message.line;
    this.note.textContent = message.note;
    if (last) this.fail(""); // else more is under way: its sign, or its error, stays
    this.drawNumbers();
    this.drawPlots();
    if (last && !this.strokes.length) this.trail = null;
    this.draw();
    this.root.dataset.updates = String(Number(this.root.dataset.updates ?? 0) + 1);
    this.root.dataset.runs = message.runs;
    this.root.dataset.json = message.json;
  }

  paintMap(map, buffer) {
    const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, map.width * map.height);
    const table = this.tables[map.table];
    const image = new ImageData(map.width, map.height);
    for (let i = 0, j = 0; i < bytes.length; i++, j += 4) {
      const c = 3 * bytes[i];
      image.data[j] = table[c]; image.data[j + 1] = table[c + 1]; image.data[j + 2] = table[c + 2]; image.data[j + 3] = 255;
    }
    const bitmap = make("canvas", { width: map.width, height: map.height });
    bitmap.getContext("2d").putImageData(image, 0, 0);
    return { ...map, bytes, bitmap };
  }

  // --- drawing ----------------------------------------------------------------------------------------

  source(name) {
    if (name === "mask") return this.mask();
    return (this.holding && this.before[name]) || this.now[name];
  }

  mask() { // the probability enlarged as the kernel does it, then the threshold: a smooth edge, and no round trip
    const map = this.source("probability");
    if (!map) return null;
    const level = (this.model.get("threshold") - map.low) / (map.high - map.low) * 255;
    if (map.mask && map.level === level) return map.mask;
    const [, , width, height] = this.frame.box;
    const grey = new ImageData(map.width, map.height), words = new Uint32Array(grey.data.buffer);
    map.bytes.forEach((v, i) => { words[i] = 0xff000000 | v * 0x010101; });
    const small = make("canvas", { width: map.width, height: map.height });
    small.getContext("2d").putImageData(grey, 0, 0);
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(small, 0, 0, width, height);
    const image = context.getImageData(0, 0, width, height), pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = (pixels[i] & 0xff) > level ? 0xffffffff : 0xff000000;
    context.putImageData(image, 0, 0);
    map.level = level;
    map.mask = { name: "mask", bitmap: canvas, bytes: null };
    return map.mask;
  }

  geometry(canvas) { // frame pixel → canvas pixel: scale and shift, the same view for every canvas
    const [magnification, cx, cy] = this.zoom;
    const scale = magnification * canvas.width / this.frame.width;
    return { scale, x: canvas.width / 2 - cx * this.frame.width * scale, y: canvas.height / 2 - cy * this.frame.height * scale };
  }

  fit(canvas) {
    const width = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    const height = Math.max(1, Math.round(width * this.frame.height / this.frame.width));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.style.aspectRatio = `${this.frame.width} / ${this.frame.height}`;
  }

  draw() {
    if (!this.frame || this.asked_frame) return;
    this.asked_frame = requestAnimationFrame(() => {
      this.asked_frame = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { model } = this;
    const [under, over] = [model.get("under"), model.get("over")];
    for (const [name, { canvas }] of Object.entries(this.cells)) this.drawOn(canvas, [[name, 1]]);
    this.drawOn(this.stage, [[under, 1], [over, model.get("opacity")]]);
    this.drawMarks();
    const title = (name) => this.cells[name].title;
    Object.assign(this.under, { value: under });
    Object.assign(this.over, { value: over });
    if (Number(this.opacity.value) !== model.get("opacity")) this.opacity.value = model.get("opacity");
    const share = Math.round(100 * model.get("opacity"));
    const what = share ? `${title(under)} under ${share} % ${title(over)}` : title(under);
    this.caption.textContent = this.holding ? `BEFORE: ${what}` : what;
    this.root.classList.toggle("lk-before", this.holding);
    this.stage.setAttribute("aria-label", `Stage: ${what}. Arrow keys move the cross, Enter measures, plus and minus zoom, ` +
      "Shift and arrows pan, zero shows all, hold B for before.");
    this.readout();
    this.root.dataset.draws = String(Number(this.root.dataset.draws ?? 0) + 1);
    this.root.dataset.drawn = String(performance.now());
  }

  drawOn(canvas, layers) {
    this.fit(canvas);
    const context = canvas.getContext("2d", { willReadFrequently: canvas === this.stage });
    const { scale, x, y } = this.geometry(canvas);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = 1;
    context.fillStyle = "rgb(128,128,128)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(scale, 0, 0, scale, x, y);
    const [bx, by, bw, bh] = this.frame.box;
    for (const [name, opacity] of layers) {
      const source = this.source(name);
      if (!source || !opacity) continue;
      context.globalAlpha = opacity;
      context.imageSmoothingEnabled = source.table !== "attention" && scale < 6; // attention shows its cells
      if (source.jpeg) context.drawImage(source.bitmap, 0, 0, this.frame.width, this.frame.height);
      else context.drawImage(source.bitmap, bx, by, bw, bh);
    }
    context.globalAlpha = 1;
  }

  drawMarks() {
    const context = this.stage.getContext("2d");
    const { scale } = this.geometry(this.stage);
    const thin = 1.2 * (window.devicePixelRatio || 1) / scale;
    const both = (path) => { // black under white is seen on everything
      for (const [colour, width] of [["#000", 3 * thin], ["#fff", thin]]) {
        Object.assign(context, { strokeStyle: colour, lineWidth: width });
        context.beginPath(); path(); context.stroke();
      }
    };
    const profile = this.update.profile;
    if (profile && !this.holding) {
      const [x, y] = profile.point, [x0, y0, x1, y1] = profile.ends, r = 5 * thin;
      context.setLineDash([6 * thin, 4 * thin]);
      both(() => { context.moveTo(x0, y0); context.lineTo(x1, y1); });
      context.setLineDash([]);
      both(() => context.arc(x, y, r, 0, 7));
    }
    if (this.trail) {
      Object.assign(context, { globalAlpha: 0.35, strokeStyle: "#fff", lineCap: "round", lineJoin: "round", lineWidth: 2 * this.model.get("brush_px") });
      context.beginPath();
      this.trail.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (this.trail.length === 1) context.lineTo(this.trail[0][0] + 0.01, this.trail[0][1]);
      context.stroke();
      context.globalAlpha = 1;
    }
    if (this.pointer && this.tool !== "point") both(() => context.arc(...this.pointer, this.model.get("brush_px"), 0, 7));
    if (this.cursor) {
      const [x, y] = this.cursor, r = 10 * thin;
      both(() => { context.moveTo(x - r, y); context.lineTo(x + r, y); context.moveTo(x, y - r); context.lineTo(x, y + r); });
    }
  }

  // --- values and numbers -----------------------------------------------------------------------------

  value(name, [x, y]) {
    const map = this.source(name);
    const [bx, by, bw, bh] = this.frame.box;
    if (!map?.bytes) return null;
    const column = Math.floor((x - bx) / bw * map.width), row = Math.floor((y - by) / bh * map.height);
    if (column < 0 || row < 0 || column >= map.width || row >= map.height) return null;
    const level = map.low + map.bytes[row * map.width + column] / 255 * (map.high - map.low);
    return map.log ? Math.exp(level) : level;
  }

  readout() {
    const place = this.cursor ?? this.pointer;
    for (const [name, { value }] of Object.entries(this.cells)) {
      let found = place && this.value(name, place);
      if (name === "mask" && place) {
        const p = this.value("probability", place);
        value.textContent = p === null ? "" : p > this.model.get("threshold") ? "lesion" : "–";
        continue;
      }
      if (name === "image") { value.textContent = place ? `${Math.round(place[0])}, ${Math.round(place[1])}` : ""; continue; }
      value.textContent = found === null || found === undefined ? "" : found.toFixed(name.startsWith("depth") && name !== "depth_second" ? 1 : 2);
    }
  }

  drawNumbers() {
    const rows = this.update.numbers ?? [];
    const head = make("tr", {}, ...["", "now", "original", "change"].map((t) => make("th", { scope: "col" }, t)));
    const body = rows.map((row) => make("tr", { "data-number": row.name, class: row.changed ? "lk-changed" : "" },
      make("th", { scope: "row", title: row.help }, row.label), ...[row.now, row.original, row.change].map((t) => make("td", {}, t))));
    this.table.replaceChildren(make("table", { "aria-label": "What was found now, and originally" }, make("thead", {}, head), make("tbody", {}, ...body)));
  }

  drawPlots() {
    const p = this.update.profile;
    if (!p) {
      this.plots.replaceChildren(make("p", { class: "lk-help" }, "Click a point of the stage: its depth profile, depth gradient and attention appear here."));
      return;
    }
    const line = (name, values, style) => ({ name, values, style });
    const depth = [line("estimated", p.estimated, "a"), p.changed && line("used", p.used, "b"), p.exact && line("exact", p.exact, "c")];
    const slope = [line("own depth", p.gradient.map((v) => 100 * v), "a"), p.changed && line("used", p.gradient_used.map((v) => 100 * v), "b")];
    const chance = [p.changed && line("before", p.probability_original, "c"), line("now", p.probability, "a")];
    this.plots.replaceChildren(
      chart("Depth along the line", p.unit, p.distance_px, depth.filter(Boolean), null),
      chart("Depth gradient", "% per pixel", p.distance_px, slope.filter(Boolean), 0),
      chart("Probability", "", p.distance_px, chance.filter(Boolean), 0, 1),
      bars("Attention at the point", p.attention, p.changed ? p.attention_original : null));
  }

  // --- pointer, keys ----------------------------------------------------------------------------------

  follow(canvas) {
    canvas.addEventListener("pointermove", (event) => this.move(canvas, event));
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
    canvas.addEventListener("pointerdown", (event) => this.press(canvas, event));
    canvas.addEventListener("pointerup", (event) => this.release(canvas, event));
    canvas.addEventListener("pointercancel", () => { this.pressed = null; this.endStroke(); });
    canvas.addEventListener("wheel", (event) => {
      if (!(event.ctrlKey || event.metaKey)) return; // the page must still scroll
      event.preventDefault();
      this.magnify(Math.exp(-event.deltaY / 400), this.place(canvas, event));
    }, { passive: false });
  }

  place(canvas, event) {
    const box = canvas.getBoundingClientRect(), { scale, x, y } = this.geometry(canvas);
    const [px, py] = [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
    return [(px - x) / scale, (py - y) / scale];
  }

  inside([x, y]) { return x >= 0 && y >= 0 && x <= this.frame.width && y <= this.frame.height; }

  press(canvas, event) {
    if (!this.frame || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    const place = this.place(canvas, event);
    this.pressed = { at: place, x: event.clientX, y: event.clientY, zoom: [...this.zoom], moved: false };
    if (canvas === this.stage && this.tool !== "point") {
      this.strokes.push({ id: `${Date.now()}-${this.count}`, tool: this.tool, points: [place] });
      this.trail = [place];
      this.sendStroke();
      this.draw();
    }
  }

  move(canvas, event) {
    if (!this.frame) return;
    const place = this.place(canvas, event);
    this.pointer = this.inside(place) ? place : null;
    this.cursor = null;
    if (this.stroke) {
      this.stroke.points.push(place);
      this.trail.push(place);
      this.sendStroke();
    } else if (this.pressed) this.pan(canvas, event);
    this.draw();
  }

  pan(canvas, event) {
    const { x, y, zoom } = this.pressed;
    const [dx, dy] = [event.clientX - x, event.clientY - y];
    if (!this.pressed.moved && Math.hypot(dx, dy) < 4) return;
    this.pressed.moved = true;
    const box = canvas.getBoundingClientRect();
    this.look([zoom[0], zoom[1] - dx / box.width / zoom[0], zoom[2] - dy / box.height / zoom[0]]);
  }

  release(canvas, event) {
    const pressed = this.pressed;
    this.pressed = null;
    if (this.stroke) return this.endStroke();
    if (pressed && !pressed.moved) this.measure(this.place(canvas, event));
  }

  measure(place) {
    if (this.inside(place)) this.ask({ kind: "point", x: place[0], y: place[1] });
  }

  sendStroke() { // one request at a time: what is painted meanwhile goes with the next, so nothing queues up
    while (this.strokes.length && !this.painting) {
      const stroke = this.strokes[0], { points } = stroke;
      if (points.length > (stroke.sent ? 1 : 0)) {
        stroke.points = points.slice(-1); // the line goes on from its last point
        stroke.sent = true;
        this.painting = this.ask({ kind: "paint", stroke: stroke.id, tool: stroke.tool, points });
      } else if (stroke.ended) this.strokes.shift();
      else return;
    }
  }

  get stroke() { // the one under the mouse; those before it may still have points to send
    const last = this.strokes.at(-1);
    return last && !last.ended ? last : null;
  }

  endStroke() {
    if (!this.stroke) return;
    this.stroke.ended = true;
    this.sendStroke();
  }

  choose(tool) {
    this.tool = tool;
    for (const b of this.root.querySelectorAll("[data-tool]")) b.setAttribute("aria-pressed", String(b.dataset.tool === tool));
    this.stage.classList.toggle("lk-painting", tool !== "point");
    this.draw();
  }

  show(before) {
    if (this.holding === before || !this.frame) return;
    this.holding = before;
    this.draw();
  }

  look([magnification, cx, cy]) {
    const m = Math.min(40, Math.max(1, magnification)), half = 0.5 / m;
    const keep = (c) => Math.min(1 - half, Math.max(half, c));
    this.zoom = [m, keep(cx), keep(cy)].map((v) => Math.round(1e4 * v) / 1e4); // as the kernel rounds it
    this.draw();
    clearTimeout(this.zoomTimer);
    this.zoomTimer = setTimeout(() => { this.model.set("zoom", this.zoom); this.model.save_changes(); }, 250);
  }

  magnify(factor, place = this.cursor) {
    if (!this.frame) return;
    const [m, cx, cy] = this.zoom, wanted = Math.min(40, Math.max(1, m * factor));
    const [fx, fy] = place ? [place[0] / this.frame.width, place[1] / this.frame.height] : [cx, cy];
    this.look([wanted, fx + (cx - fx) * m / wanted, fy + (cy - fy) * m / wanted]);
  }

  isOurs(event) { // JupyterLab would make a cell on "b" and restart the kernel on "0" twice
    return !(event.ctrlKey || event.metaKey) || ["z", "y"].includes(event.key.toLowerCase());
  }

  key(event) {
    const typing = event.target.closest("input:not([type=range]), textarea:not([readonly]), [contenteditable=true]");
    const key = event.key.toLowerCase(), down = event.type === "keydown", command = event.ctrlKey || event.metaKey;
    if (this.isOurs(event)) event.stopPropagation();
    if (typing) return;
    if (key === "b" && !command) { this.show(down); event.preventDefault(); return; }
    if (!down) return;
    if (command && (key === "z" || key === "y")) {
      event.preventDefault();
      this.ask({ kind: key === "y" || event.shiftKey ? "redo" : "undo" });
    } else if (event.target === this.stage && !command && this.frame && this.stageKey(event)) event.preventDefault();
  }

  stageKey(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrows && event.shiftKey) this.look([this.zoom[0], this.zoom[1] + arrows[0] * 0.1 / this.zoom[0], this.zoom[2] + arrows[1] * 0.1 / this.zoom[0]]);
    else if (arrows) {
      const step = this.frame.width / 50 / this.zoom[0];
      const [x, y] = this.cursor ?? this.update.profile?.point ?? [this.frame.width / 2, this.frame.height / 2];
      const hold = (v, d, top) => Math.min(top, Math.max(0, v + d * step));
      this.cursor = [hold(x, arrows[0], this.frame.width), hold(y, arrows[1], this.frame.height)];
      this.draw();
    } else if (event.key === "Enter" || event.key === " ") { if (this.cursor) this.measure(this.cursor); }
    else if (event.key === "+" || event.key === "=") this.magnify(1.4);
    else if (event.key === "-") this.magnify(1 / 1.4);
    else if (event.key === "0") this.look([1, 0.5, 0.5]);
    else return false;
    return true;
  }

  // --- files ------------------------------------------------------------------------------------------

  async take(files) {
    const file = files?.[0];
    this.file.value = "";
    if (!file) return;
    if (file.name.toLowerCase().endsWith(".json")) {
      if (file.size > 2e6) return this.fail(`${file.name} is too large for a saved state: it has ${(file.size / 1e6).toFixed(0)} MB.`);
      return this.ask({ kind: "load", name: file.name, text: await file.text() });
    }
    this.setBusy(true);
    try {
      const bytes = file.size > LARGEST_UPLOAD ? await reduce(file) : await file.arrayBuffer();
      this.ask({ kind: "upload", name: file.name, reduced: file.size > LARGEST_UPLOAD }, [bytes]);
    } catch {
      this.fail(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB, and the browser cannot reduce it: it is no image that can be shown here. Save it as a JPEG or PNG of at most 8 MB.`);
    }
  }

  download(name, blob) {
    const link = make("a", { href: URL.createObjectURL(blob), download: name, class: "lk-hidden" });
    this.root.append(link); // VS Code hears clicks at the document
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  savePicture() {
    if (!this.frame) return this.fail("There is no picture to save yet.");
    const cells = Object.values(this.cells), unit = cells[0].canvas, [w, h] = [unit.width, unit.height + 22];
    const canvas = make("canvas"), large = this.stage, tall = Math.max(large.height + 30, 3 * h);
    Object.assign(canvas, { width: large.width + 12 + 5 * (w + 6), height: tall + 26 });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "#222"; context.font = "13px sans-serif";
    context.drawImage(large, 0, 0);
    context.fillText(this.caption.textContent, 4, large.height + 18);
    cells.forEach(({ canvas: one, title }, i) => {
      const x = large.width + 12 + (i % 5) * (w + 6), y = Math.floor(i / 5) * h;
      context.drawImage(one, x, y);
      context.fillText(title, x, y + one.height + 15);
    });
    const summary = (this.update.numbers ?? []).slice(0, 4).map((row) => `${row.label} ${row.now} (${row.original})`).join("  ·  ");
    context.fillText(`${this.frame.label}  ·  ${summary}`, 4, canvas.height - 8);
    canvas.toBlob((blob) => this.download("explorer.png", blob));
  }

  saveState() { // how it is looked at may be newer here than what the kernel knows
    const state = JSON.parse(this.update.json ?? "{}");
    const now = { zoom: this.zoom, ...Object.fromEntries(["under", "over", "opacity"].map((name) => [name, this.model.get(name)])) };
    for (const [name, usual] of Object.entries(this.usual ?? {})) {
      delete state[name];
      if (JSON.stringify(now[name]) !== JSON.stringify(usual)) state[name] = now[name];
    }
    this.download("explorer.json", new Blob([JSON.stringify(state, null, 1)], { type: "application/json" }));
  }

  async copyLine() {
    this.line.select();
    try { await navigator.clipboard.writeText(this.line.value); } catch { document.execCommand("copy"); }
    this.status.textContent = "copied";
  }
}

async function reduce(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, REDUCED_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  return blob.arrayBuffer();
}

// --- small charts: SVG, in the colours of the page ------------------------------------------------------

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function chart(title, unit, xs, lines, low, high) {
  const [W, H, L, R, T, B] = [280, 130, 34, 6, 8, 18];
  const all = lines.flatMap((line) => line.values);
  let bottom = low ?? Math.min(...all), top = high ?? Math.max(...all);
  if (top - bottom < 1e-6) top = bottom + 1;
  const x = (v) => L + (v - xs[0]) / (xs.at(-1) - xs[0] || 1) * (W - L - R);
  const y = (v) => H - B - (v - bottom) / (top - bottom) * (H - T - B);
  const text = (px, py, anchor, label) => svg("text", { x: px, y: py, "text-anchor": anchor }, label);
  const digits = top - bottom < 3 ? 1 : 0;
  const shape = lines.map((line) => svg("polyline", { class: `lk-${line.style}`, fill: "none",
    points: line.values.map((v, i) => `${x(xs[i]).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }, svg("title", {}, line.name)));
  const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} ${unit}: ${lines.map((l) => l.name).join(", ")}` },
    svg("path", { class: "lk-axis", d: `M${L},${T}V${H - B}H${W - R}M${x(0)},${T}V${H - B}` }), ...shape,
    text(L - 3, T + 8, "end", top.toFixed(digits)), text(L - 3, H - B, "end", bottom.toFixed(digits)),
    text(x(0), H - 5, "middle", "point"), text(W - R, H - 5, "end", `${Math.round(xs.at(-1))} px`), text(L, H - 5, "start", `${Math.round(xs[0])}`));
  const legend = make("span", { class: "lk-legend" }, ...lines.map((line) => make("span", { class: `lk-key-${line.style}` }, line.name)));
  return make("figure", {}, make("figcaption", {}, `${title}${unit ? `, ${unit}` : ""} `, lines.length > 1 ? legend : ""), node);
}

function bars(title, now, before) {
  const [W, H, L, B, T] = [280, 130, 34, 18, 8], step = (W - L) / now.length, top = Math.max(2, ...now, ...(before ?? []));
  const y = (v) => H - B - v / top * (H - T - B);
  const parts = [svg("path", { class: "lk-axis", d: `M${L},${T}V${H - B}H${W}M${L},${y(1)}H${W}` }),
    svg("text", { x: L - 3, y: y(1) + 4, "text-anchor": "end" }, "1"), svg("text", { x: L - 3, y: T + 8, "text-anchor": "end" }, top.toFixed(1))];
  now.forEach((v, i) => {
    const x = L + i * step + step * 0.18;
    if (before) parts.push(svg("rect", { class: "lk-bar-before", x, y: y(before[i]), width: step * 0.3, height: H - B - y(before[i]) }));
    parts.push(svg("rect", { class: "lk-bar-now", x: before ? x + step * 0.32 : x, y: y(v), width: step * (before ? 0.3 : 0.62), height: H - B - y(v) }));
    parts.push(svg("text", { x: L + (i + 0.5) * step, y: H - 5, "text-anchor": "middle" }, `1/${2 ** (i + 1)}`),
      svg("text", { x: L + (i + 0.5) * step, y: y(Math.max(v, before ? before[i] : 0)) - 2, "text-anchor": "middle" }, v.toFixed(2)));
  });
  const label = `${title}: ${now.map((v, i) => `scale 1/${2 ** (i + 1)} ${v.toFixed(2)}`).join(", ")}`;
  const legend = before ? make("span", { class: "lk-legend" }, make("span", { class: "lk-key-before" }, "before"), make("span", { class: "lk-key-a" }, "now")) : "";
  return make("figure", {}, make("figcaption", {}, `${title}, 1 = as it is `, legend), svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label }, ...parts));
}

function render({ model, el }) {
  const stack = new Stack(model, el);
  return () => stack.close();
}

export default { render };
