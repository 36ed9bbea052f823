// The explorer's image stack: a stage and linked panels, drawn from bytes that the kernel sends, on the page explorer.html.
//
// Kernel → view, custom messages: "hello" {panels, tables} · "update" {maps, jpegs, …} · "busy" · "error" {text}.
// View → kernel: ready, point, paint, upload, load, undo, redo, reset; each with an id that the answer repeats.
// Blending, zoom, the reading under the pointer, the mask's threshold and before/after need no kernel at all.

const SILENCE_MS = 6000; // a kernel that says nothing for so long is gone, or at work on another cell
const BUSY_MS = 30000; // one that said "busy" may take its time
const LARGEST_UPLOAD = 8e6; // beyond this a server's message limit may cut the connection, so the browser reduces it
const REDUCED_PX = 2048;
const VIEW = ["under", "over", "opacity"]; // what the stage shows
const ARROWS = { ARROWLEFT: [-1, 0], ARROWRIGHT: [1, 0], ARROWUP: [0, -1], ARROWDOWN: [0, 1] };
const TYPING = "input:not([type=range]), textarea:not([readonly]), [contenteditable=true]"; // where keys are text
const SVG_TAGS = ["svg", "path", "text", "title"];

function make(tag, attributes = {}, ...children) {
  const space = SVG_TAGS.includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const node = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const bytesOf = (buffer) => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
const isCommand = (event) => event.ctrlKey || event.metaKey;
// JupyterLab would make a cell on "b" and restart the kernel on "0" twice; its Ctrl+S should still save.
const isOurs = (event) => !isCommand(event) || ["z", "y"].includes(event.key.toLowerCase());

class Stack {
  constructor(model, el) {
    Object.assign(this, { model, tool: "point", holding: false, byKeys: false, closing: new AbortController() });
    Object.assign(this, { tables: {}, cells: {}, usual: {}, frame: null, now: {}, before: {}, last: {} }); // from the kernel
    Object.assign(this, { count: 0, strokes: [], updates: 0, draws: 0 });
    this.root = make("div", { class: "lk-stack" });
    this.root.innerHTML = model.get("_html");
    for (const node of this.root.querySelectorAll("[data-part]")) this[node.dataset.part] = node;
    el.append(this.root);
    this.listen();
    this.ask({ kind: "ready" });
  }

  close = () => {
    this.closing.abort();
    this.model.off();
  };

  // --- what happens on the page -----------------------------------------------------------------------

  on(target, kinds, action, capture = false) { // until the view is closed
    for (const kind of kinds.split(" ")) target.addEventListener(kind, action, { capture, signal: this.closing.signal });
  }

  listen() {
    const { model, root, file } = this;
    model.on("msg:custom", (message, buffers) => this.receive(message, buffers));
    model.on("comm_live_update", this.silent);
    for (const name of [...VIEW, "zoom", "threshold", "brush_px"]) model.on(`change:${name}`, this.draw);
    this.on(this.bar, "click", ({ target }) => this.click(target.dataset));
    this.on(this.hold, "pointerdown", () => this.show(true));
    this.on(this.mix, "input", ({ target }) => this.put(target.name, target.valueAsNumber ?? target.value));
    this.on(this.opener, "click", () => file.click());
    this.on(file, "change", () => this.take(file.files[0]));
    const onCanvas = (kinds, action) =>
      this.on(root, kinds, (event) => this.frame && event.target.matches("canvas") && action(event), true);
    onCanvas("pointerdown", (event) => this.press(event));
    onCanvas("pointermove", (event) => this.move(event));
    onCanvas("click", () => this.pressed && !this.pressed.moved && this.measure(this.pressed.place));
    onCanvas("pointerleave", () => this.point(null));
    onCanvas("wheel", (event) => {
      if (!isCommand(event)) return; // the page must still scroll
      event.preventDefault();
      this.look(Math.exp(-event.deltaY / 400), this.place(event));
    });
    new ResizeObserver(this.draw).observe(root);
    requestAnimationFrame(() => this.adopt(root.closest(".lesionkit-explorer") ?? root));
  }

  adopt(whole) { // the controls stand beside this element, in the same box: their keys are watched too
    this.whole = whole;
    whole.tabIndex = -1; // a click between the controls keeps the keys here
    this.on(whole, "keydown", (event) => this.key(event));
    this.on(whole, "dragover drop", (event) => event.preventDefault());
    this.on(whole, "drop", (event) => this.take(event.dataTransfer.files[0]));
    this.on(window, "blur pointerup pointercancel", () => this.show(false), true); // it may be released elsewhere
    this.on(window, "keyup", (event) => /^(b| |enter)$/i.test(event.key) && this.show(false), true);
    // JupyterLab looks for this attribute before all else
    this.on(window, "keydown", (event) => whole.toggleAttribute("data-lm-suppress-shortcuts", isOurs(event)), true);
  }

  nameSliders() { // ipywidgets gives its sliders' handles no name of their own
    for (const slider of this.whole?.querySelectorAll(".widget-slider, .widget-inline-hbox") ?? []) {
      const name = slider.querySelector(".widget-label")?.textContent;
      for (const handle of slider.querySelectorAll(".noUi-handle, [contenteditable], select, input")) handle.ariaLabel ??= name;
    }
  }

  press(event) {
    if (event.button) return;
    event.target.setPointerCapture(event.pointerId);
    const place = this.place(event), stroke = event.target === this.stage && this.tool !== "point" && String(Date.now());
    this.pressed = { place, x: event.clientX, y: event.clientY, stroke, moved: Boolean(stroke), points: [] };
    this.move(event);
  }

  move(event) {
    const place = this.place(event), { pressed } = this, { clientX, clientY, buttons } = event;
    if (buttons & 1 && pressed?.stroke) this.brush(pressed, place);
    else if (buttons & 1 && pressed) {
      pressed.moved ||= Math.hypot(clientX - pressed.x, clientY - pressed.y) >= 4;
      if (pressed.moved) this.look(1, null, pressed.place[0] - place[0], pressed.place[1] - place[1]);
    }
    this.point(place);
  }

  click({ tool, ask, zoom, call }) { // what explorer.html says of a button
    if (ask) this.ask({ kind: ask });
    if (zoom && this.frame) this.look(Number(zoom), this.cross);
    if (call) this[call]();
    this.tool = tool ?? this.tool;
    for (const one of this.bar.querySelectorAll("[data-tool]")) one.ariaPressed = one.dataset.tool === this.tool;
  }

  key(event) {
    if (!isOurs(event)) return;
    event.stopPropagation();
    const { target, shiftKey } = event, command = isCommand(event), key = event.key.toUpperCase(), arrow = ARROWS[key];
    const onStage = target === this.stage && this.frame, enter = key === "ENTER" || key === " ";
    const name = command ? `Control+${shiftKey ? "Shift+" : ""}${key}` : key;
    const button = this.bar.querySelector(`[aria-keyshortcuts~="${CSS.escape(name)}"]`);
    if (target.closest(TYPING)) return;
    if (button === this.hold || (target === this.hold && enter)) this.show(true);
    else if (button && (command || onStage)) button.click();
    else if (onStage && arrow) this.step(arrow, shiftKey);
    else if (onStage && enter) this.measure(this.cross);
    else return;
    event.preventDefault();
  }

  place(event) { // of the pointer, in the image's pixels
    const { zoom: [magnification, cx, cy], frame } = this, box = event.target.getBoundingClientRect();
    const x = cx + ((event.clientX - box.left) / box.width - 0.5) / magnification;
    const y = cy + ((event.clientY - box.top) / box.height - 0.5) / magnification;
    return [x * frame.width, y * frame.height];
  }

  get zoom() {
    return this.model.get("zoom"); // magnification and centre, as shares of width and height
  }

  get cross() {
    return this.byKeys ? this.pointer : null; // moved by keys, where the mouse has not come since
  }

  inside = (place) => place?.every((value, i) => value >= 0 && value <= [this.frame.width, this.frame.height][i]);
  measure = (place) => this.inside(place) && this.ask({ kind: "point", x: place[0], y: place[1] });

  point(place, byKeys = false) {
    Object.assign(this, { pointer: this.inside(place) ? place : null, byKeys });
    this.draw();
  }

  brush({ stroke, points }, place) {
    points.push(place);
    this.trail = points; // seen until the kernel has painted it
    if (this.strokes.at(-1)?.stroke === stroke) this.strokes.at(-1).points.push(place);
    else this.strokes.push({ stroke, tool: this.tool, points: points.slice(-2) }); // on from what was sent last
    this.paint();
  }

  paint() { // one request at a time: what is painted meanwhile goes with the next, so nothing queues up
    if (this.strokes.length && !this.painting) this.painting = this.ask({ kind: "paint", ...this.strokes.shift() });
  }

  show(before) {
    if (this.holding !== before) this.draw();
    this.holding = before;
  }

  look(factor, place, dx = 0, dy = 0) { // magnify, where the place stays on the screen, and move by pixels of the image
    const { zoom: [before, cx, cy], frame: { width, height } } = this, m = clamp(before * factor, 1, 40);
    const [x, y] = place ? [place[0] / width, place[1] / height] : [cx, cy];
    const centre = (from, at, shift) => clamp(at + (from - at) * before / m + shift, 0.5 / m, 1 - 0.5 / m);
    const zoom = [m, centre(cx, x, dx / width), centre(cy, y, dy / height)];
    this.model.set("zoom", zoom.map((value) => Math.round(1e4 * value) / 1e4)); // as the kernel rounds it
    clearTimeout(this.zoomTimer);
    this.zoomTimer = setTimeout(() => this.model.save_changes(), 250); // told to the kernel when it rests
  }

  step([dx, dy], shift) { // the cross by a fiftieth of what is seen, or with Shift the view by a tenth
    const { width, height } = this.frame, seen = width / this.zoom[0];
    if (shift) return this.look(1, null, dx * seen / 10, dy * seen / 10);
    const [x, y] = this.cross ?? this.last.profile?.point ?? [width / 2, height / 2];
    this.point([clamp(x + dx * seen / 50, 0, width), clamp(y + dy * seen / 50, 0, height)], true);
  }

  put(trait, value) { // shown at once; the kernel, if it lives, remembers it for the saved state
    this.model.set(trait, value);
    this.model.save_changes();
  }

  // --- talking to the kernel --------------------------------------------------------------------------

  ask(message, buffers = []) {
    const id = String(++this.count);
    this.patience ??= setTimeout(this.silent, SILENCE_MS);
    this.model.send({ ...message, id }, undefined, buffers);
    return id;
  }

  silent = () => (this.root.ariaBusy = this.silence.hidden = false);

  fail(text) {
    this.error.textContent = text;
    this.root.ariaBusy = false;
  }

  receive(message, buffers) {
    const { kind, reply } = message;
    clearTimeout(this.patience);
    this.patience = kind === "busy" ? setTimeout(this.silent, BUSY_MS) : null;
    this.silence.hidden = true;
    this.newest = message;
    if (kind === "busy") this.root.ariaBusy = true;
    else if (kind === "error") this.fail(message.text);
    else this[kind](message, buffers); // hello, update
    if (reply === this.painting) this.painting = null;
    this.paint();
  }

  hello({ tables, view, panels }, buffers) {
    tables.forEach((name, i) => (this.tables[name] = palette(bytesOf(buffers[i]))));
    this.usual = view;
    for (const [name, title] of Object.entries(panels)) {
      for (const select of [this.under, this.over]) select.append(new Option(title, name));
      const canvas = make("canvas", { role: "img", "aria-label": title }), value = make("span", { class: "lk-value" });
      const caption = make("figcaption", {}, make("span", {}, title), value);
      this.panels.append(make("figure", { class: "lk-cell", "data-panel": name }, canvas, caption));
      this.cells[name] = { canvas, value, title };
    }
  }

  update(message, buffers) { // pictures are decoded in parallel, but arrive in order
    const jpegs = buffers.slice(message.maps.length).map((bytes) => new Blob([bytes], { type: "image/jpeg" }));
    this.landing = Promise.all([this.landing, ...jpegs.map((jpeg) => createImageBitmap(jpeg))])
      .then(([, ...bitmaps]) => this.land(message, buffers, bitmaps))
      .catch((error) => this.fail(`The picture could not be drawn: ${error.message}. Change something to draw it anew.`));
  }

  land(message, buffers, bitmaps) {
    if (message.frame) Object.assign(this, { frame: message.frame, now: {}, before: {} });
    const { width, height, box, label } = this.frame;
    const maps = message.maps.map((map, i) => ({ ...map, bytes: bytesOf(buffers[i]), box }));
    const jpegs = message.jpegs.map((jpeg, i) => ({ ...jpeg, bitmap: bitmaps[i], box: [0, 0, width, height] }));
    for (const map of maps) map.bitmap = painted(map, (i) => this.tables[map.table][map.bytes[i]]);
    for (const picture of [...maps, ...jpegs])
      for (const side of picture.side === "both" ? ["now", "before"] : [picture.side]) this[side][picture.name] = picture;
    this.last = message;
    this.undo.disabled = !message.can_undo;
    this.redo.disabled = !message.can_redo;
    this.line.value = message.line;
    this.note.textContent = message.note;
    this.status.textContent = label;
    this.rows.replaceChildren(...message.numbers.map(numberRow));
    this.plots.replaceChildren(...charts(message.profile));
    if (message === this.newest) this.fail(""); // else more is under way: its sign, or its error, stays
    if (message === this.newest && !this.painting) this.trail = null;
    this.nameSliders();
    this.draw();
    Object.assign(this.root.dataset, { updates: ++this.updates, runs: message.runs, json: message.json });
  }

  // --- drawing ----------------------------------------------------------------------------------------

  picture(name) {
    if (name !== "mask") return (this.holding && this.before[name]) || this.now[name];
    const map = this.picture("probability"), threshold = this.model.get("threshold");
    if (map && map.mask?.threshold !== threshold) map.mask = { threshold, box: map.box, bitmap: thresholded(map, threshold) };
    return map?.mask;
  }

  draw = () => (this.drawing ??= requestAnimationFrame(() => this.drawNow())); // once a frame, whatever asks for it

  drawNow() {
    this.drawing = null;
    if (!this.frame) return;
    const { model, cells, root } = this, [under, over, opacity] = VIEW.map((name) => model.get(name));
    for (const name of VIEW) this[name].value = model.get(name);
    for (const [name, { canvas }] of Object.entries(cells)) this.drawOn(canvas, [[name, 1]]);
    this.drawOn(this.stage, [[under, 1], [over, opacity]]);
    this.drawMarks(this.stage.getContext("2d"));
    for (const [name, { value }] of Object.entries(cells)) value.textContent = this.pointer ? this.reading(name) : "";
    const share = Math.round(100 * opacity), title = cells[under].title;
    const what = share ? `${title} under ${share} % ${cells[over].title}` : title;
    this.caption.textContent = this.holding ? `BEFORE: ${what}` : what;
    this.stage.ariaLabel = `Stage: ${what}. ${this.keys.textContent}`;
    root.classList.toggle("lk-before", this.holding);
    Object.assign(root.dataset, { draws: ++this.draws, drawn: performance.now() });
  }

  drawOn(canvas, layers) { // every canvas has the same view of the image
    const { frame, zoom: [magnification, cx, cy] } = this;
    canvas.style.aspectRatio = frame.width / frame.height;
    const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const height = Math.max(1, Math.round(width * frame.height / frame.width));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: canvas === this.stage });
    const scale = magnification * width / frame.width;
    context.resetTransform();
    Object.assign(context, { globalAlpha: 1, fillStyle: "rgb(128,128,128)" }).fillRect(0, 0, width, height);
    context.setTransform(scale, 0, 0, scale, width / 2 - cx * frame.width * scale, height / 2 - cy * frame.height * scale);
    for (const [name, opacity] of layers) {
      const picture = this.picture(name);
      context.globalAlpha = opacity;
      context.imageSmoothingEnabled = picture?.table !== "attention" && scale < 6; // attention shows its cells
      if (picture) context.drawImage(picture.bitmap, ...picture.box);
    }
  }

  drawMarks(context) {
    const thin = 1.2 * devicePixelRatio / context.getTransform().a, radius = this.model.get("brush_px");
    const stroke = (path, dash, look) => {
      Object.assign(context, look).setLineDash(dash);
      context.stroke(new Path2D(path));
    };
    const mark = (path, dash = []) => { // black under white is seen on everything
      stroke(path, dash, { globalAlpha: 1, lineCap: "butt", strokeStyle: "#000", lineWidth: 3 * thin });
      stroke(path, dash, { strokeStyle: "#fff", lineWidth: thin });
    };
    const circle = ([x, y], r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`;
    const cross = ([x, y], r) => `M${x - r},${y}h${2 * r}M${x},${y - r}v${2 * r}`;
    const brushed = { globalAlpha: 0.35, lineCap: "round", lineJoin: "round", strokeStyle: "#fff", lineWidth: 2 * radius };
    if (this.trail) stroke(`M${this.trail.join("L")}h0.01`, [], brushed);
    const { profile } = this.last;
    if (profile && !this.holding) {
      const [x0, y0, x1, y1] = profile.ends;
      mark(`M${x0},${y0}L${x1},${y1}`, [6 * thin, 4 * thin]);
      mark(circle(profile.point, 5 * thin));
    }
    if (this.cross) mark(cross(this.cross, 10 * thin));
    else if (this.pointer && this.tool !== "point") mark(circle(this.pointer, radius));
  }

  reading(name) {
    const [x, y] = this.pointer;
    if (name === "image") return `${Math.round(x)}, ${Math.round(y)}`;
    const map = this.picture(name === "mask" ? "probability" : name);
    if (!map?.bytes) return "";
    const [left, top, width, height] = map.box;
    const column = Math.floor((x - left) / width * map.width), row = Math.floor((y - top) / height * map.height);
    if (column < 0 || row < 0 || column >= map.width || row >= map.height) return "";
    const value = map.low + map.bytes[row * map.width + column] / 255 * (map.high - map.low);
    if (name === "mask") return value > this.model.get("threshold") ? "lesion" : "–";
    return map.log ? Math.exp(value).toFixed(1) : value.toFixed(2);
  }

  async take(file) {
    this.file.value = ""; // or the same file could not be chosen again
    if (!file) return;
    const { name, size } = file, reduced = size > LARGEST_UPLOAD;
    this.root.ariaBusy = true;
    try {
      if (/\.json$/i.test(name) && !reduced) this.ask({ kind: "load", name, text: await file.text() });
      else this.ask({ kind: "upload", name, reduced }, [await (reduced ? shrunk(file) : file.arrayBuffer())]);
    } catch {
      this.fail(`${name} has ${(size / 1e6).toFixed(0)} MB, and the browser cannot reduce it: it is no image that can be ` +
        "shown here. Save it as a JPEG or PNG of at most 8 MB.");
    }
  }

  download(name, blob) { // by a link on the page: VS Code hears clicks at the document
    const href = URL.createObjectURL(blob);
    Object.assign(this.link, { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

  savePicture() { // the stage, the panels beside it in rows of five, and the first numbers
    if (!this.frame) return this.fail("There is no picture to save yet.");
    const { stage, last, frame } = this, cells = Object.values(this.cells);
    const wide = cells[0].canvas.width + 6, high = cells[0].canvas.height + 22;
    const canvas = make("canvas", { width: stage.width + 12 + 5 * wide, height: Math.max(stage.height + 30, 3 * high) + 26 });
    const context = canvas.getContext("2d");
    Object.assign(context, { fillStyle: "#fff" }).fillRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { fillStyle: "#222", font: "13px sans-serif" });
    const put = (picture, title, x, y) => {
      context.drawImage(picture, x, y);
      context.fillText(title, x, y + picture.height + 15);
    };
    put(stage, this.caption.textContent, 0, 0);
    cells.forEach((cell, i) => put(cell.canvas, cell.title, stage.width + 12 + (i % 5) * wide, Math.floor(i / 5) * high));
    const numbers = last.numbers.slice(0, 4).map((row) => `${row.label} ${row.now} (${row.original})`);
    context.fillText([frame.label, ...numbers].join("  ·  "), 4, canvas.height - 8);
    canvas.toBlob((blob) => this.download("explorer.png", blob));
  }

  saveState() { // how it is looked at may be newer here than what the kernel knows
    const state = JSON.parse(this.last.json ?? "{}");
    for (const [name, usual] of Object.entries(this.usual)) {
      const now = this.model.get(name);
      delete state[name];
      if (String(now) !== String(usual)) state[name] = now;
    }
    this.download("explorer.json", new Blob([JSON.stringify(state, null, 1)], { type: "application/json" }));
  }

  copyLine() { // by a command that works without https, too
    this.line.select();
    document.execCommand("copy");
    this.status.textContent = "copied";
  }
}

const palette = (bytes) => Array.from({ length: 256 }, (_, level) => rgb(...bytes.subarray(3 * level, 3 * level + 3)));
const rgb = (red, green, blue) => 0xff000000 | (blue << 16) | (green << 8) | red; // as a canvas keeps it

function painted({ width, height }, colour) { // colour: of the pixel at an index
  const canvas = make("canvas", { width, height }), image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function thresholded(map, threshold) {
  const [, , width, height] = map.box, level = (threshold - map.low) / (map.high - map.low) * 255;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(painted(map, (i) => rgb(map.bytes[i], map.bytes[i], map.bytes[i])), 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return painted({ width, height }, (i) => (data[4 * i] > level ? rgb(255, 255, 255) : rgb(0, 0, 0)));
}

async function shrunk(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, REDUCED_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return (await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 })).arrayBuffer();
}

// --- numbers and charts: SVG, in the colours of the page ------------------------------------------------

function numberRow({ name, label, help, now, original, change, changed }) {
  const cells = [now, original, change].map((text) => make("td", {}, text));
  const head = make("th", { scope: "row", title: help }, label);
  return make("tr", { "data-number": name, class: changed ? "lk-changed" : "" }, head, ...cells);
}

function charts(profile) {
  if (!profile) return []; // explorer.html says then what to do
  const changed = (values) => (profile.changed ? values : null), percent = (values) => values.map((value) => 100 * value);
  const { distance_px: xs, unit, estimated, used, exact, gradient, gradient_used, probability, attention } = profile;
  return [
    lineChart(`Depth along the line, ${unit}`, xs, { estimated, used: changed(used), exact }),
    lineChart("Depth gradient, % per pixel", xs, { "own depth": percent(gradient), used: changed(percent(gradient_used)) }, 0),
    lineChart("Probability", xs, { before: changed(profile.probability_original), now: probability }, 0, 1),
    barChart("Attention at the point, 1 = as it is", { before: changed(profile.attention_original), now: attention }),
  ];
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [280, 130, 34, 274, 8, 112]; // of a chart, and the edges of its field
const linear = (low, high, from, to) => (value) => from + (value - low) / (high - low || 1) * (to - from);

function chart(title, kind, series, axes, path, labels, spoken) { // path: of values and their number; labels: x, y, anchor, text
  const names = Object.keys(series).filter((name) => series[name]);
  const keys = names.map((name) => make("span", { "data-series": name }, name));
  const shapes = names.map((name, i) => make("path", { class: `lk-${kind}`, "data-series": name, d: path(series[name], i) }));
  const texts = labels.map(([x, y, anchor, text]) => make("text", { x, y, "text-anchor": anchor }, text));
  const frame = make("path", { class: "lk-axis", d: `M${LEFT},${TOP}V${BOTTOM}H${RIGHT}${axes}` });
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${spoken ?? names.join(", ")}` };
  const caption = make("figcaption", {}, `${title} `, make("span", { class: "lk-legend" }, ...keys));
  return make("figure", { class: `lk-${kind}s` }, caption, make("svg", box, frame, ...shapes, ...texts));
}

function lineChart(title, xs, series, low, high) {
  const values = Object.values(series).flatMap((line) => line ?? []), first = xs[0], last = xs.at(-1);
  const bottom = low ?? Math.min(...values), most = high ?? Math.max(...values);
  const top = most - bottom < 1e-6 ? bottom + 1 : most, digits = top - bottom < 3 ? 1 : 0;
  const x = linear(first, last, LEFT, RIGHT), y = linear(bottom, top, BOTTOM, TOP);
  const path = (line) => `M${line.map((value, i) => `${x(xs[i]).toFixed(1)},${y(value).toFixed(1)}`).join("L")}`;
  return chart(title, "line", series, `M${x(0)},${TOP}V${BOTTOM}`, path, [
    [LEFT - 3, TOP + 8, "end", top.toFixed(digits)], [LEFT - 3, BOTTOM, "end", bottom.toFixed(digits)],
    [LEFT, HEIGHT - 5, "start", Math.round(first)], [x(0), HEIGHT - 5, "middle", "point"],
    [RIGHT, HEIGHT - 5, "end", `${Math.round(last)} px`],
  ]);
}

function barChart(title, { before, now }) { // side by side in a step for each scale
  const top = Math.max(2, ...now, ...(before ?? [])), y = linear(0, top, BOTTOM, TOP), x = linear(0, now.length, LEFT, RIGHT);
  const wide = (x(1) - x(0)) * (before ? 0.3 : 0.62);
  const path = (bars, at) => bars.map((v, i) => `M${x(i + 0.18 + 0.32 * at)},${BOTTOM}V${y(v)}h${wide}V${BOTTOM}`).join("");
  const named = now.map((value, i) => [`1/${2 ** (i + 1)}`, value.toFixed(2), y(Math.max(value, before?.[i] ?? 0)) - 2]);
  const spoken = named.map(([name, value]) => `scale ${name} ${value}`).join(", ");
  return chart(title, "column", { before, now }, `M${LEFT},${y(1)}H${RIGHT}`, path, [
    [LEFT - 3, TOP + 8, "end", top.toFixed(1)], [LEFT - 3, y(1) + 4, "end", "1"],
    ...named.map(([name], i) => [x(i + 0.5), HEIGHT - 5, "middle", name]),
    ...named.map(([, value, above], i) => [x(i + 0.5), above, "middle", value]),
  ], spoken);
}

export default { render: ({ model, el }) => new Stack(model, el).close };
