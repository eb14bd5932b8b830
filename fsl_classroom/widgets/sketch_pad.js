// A square to draw on. A stroke stays here while it is drawn and goes to Python once, when the pen is lifted.
// The web book's page to try takes this file, too, with a model of its own: it gives a `side`, which notebooks leave out.

const SIDE = 200; // pixels of the canvas if the page is wide enough
const STYLE = `
.fsl-pad { max-width: var(--fsl-side); }
.fsl-pad canvas { display: block; box-sizing: border-box; width: 100%; aspect-ratio: 1;
  background: white; border: 1px solid #767676; border-radius: 4px; cursor: crosshair; touch-action: none; }
.fsl-pad canvas:focus-visible { outline: 3px solid #0072B2; outline-offset: -2px; }
.fsl-pad .tools { display: flex; gap: 6px; margin: 4px 0; }
.fsl-pad button { font: inherit; padding: 2px 10px; cursor: pointer;
  color: var(--jp-ui-font-color1, black); background: var(--jp-layout-color2, #f3f3f3);
  border: 1px solid #767676; border-radius: 3px; }
.fsl-pad summary { cursor: pointer; }
.fsl-pad .help { font-size: 85%; line-height: 1.35; }
.fsl-pad .said { font-size: 85%; min-height: 1.35em; }`;
const KEYS =
  "Arrow keys move the pen (with Shift: finely), Space lowers and lifts it, " +
  "Backspace undoes a stroke, Escape or Delete clears the pad.";

function node(name, attributes, parent) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  parent?.append(element);
  return element;
}

function render({ model, el }) {
  node("style", { text: STYLE }, el);
  const pad = node("div", { class: "fsl-pad", "data-lm-suppress-shortcuts": "true" }, el);
  const name = model.get("label");
  const wide = model.get("side") ?? SIDE;
  pad.style.setProperty("--fsl-side", `${wide}px`);
  const canvas = node("canvas", { tabindex: 0, role: "application", "aria-label": `${name}. ${KEYS}` }, pad);
  const tools = node("div", { class: "tools" }, pad);
  const undo = node("button", { type: "button", text: "Undo stroke", "aria-label": `Undo a stroke: ${name}` }, tools);
  const clear = node("button", { type: "button", text: "Clear", "aria-label": `Clear: ${name}` }, tools);
  const said = node("div", { class: "said", role: "status", "aria-live": "polite" }, pad);
  const help = node("details", { class: "help" }, pad);
  node("summary", { text: "Draw with the keyboard" }, help);
  node("div", { text: KEYS }, help);

  const sharp = Math.min(3, Math.max(1, window.devicePixelRatio || 1));
  canvas.width = canvas.height = wide * sharp;
  const pen = canvas.getContext("2d");
  let stroke = null; // the stroke being drawn
  let cursor = null; // [x, y] of the keyboard's pen, shown after the first arrow key
  let down = false; // true if the keyboard's pen touches the paper
  let pointer = null; // id of the drawing pointer, so that a second finger is ignored

  const inside = (v) => Math.round(Math.max(0, Math.min(1, v)) * 1e4) / 1e4;

  function paint() {
    const side = canvas.width;
    pen.clearRect(0, 0, side, side);
    pen.lineWidth = 0.04 * side;
    pen.lineCap = pen.lineJoin = "round";
    pen.strokeStyle = "black";
    for (const points of stroke ? [...model.get("strokes"), stroke] : model.get("strokes")) {
      pen.beginPath();
      pen.moveTo(points[0][0] * side, points[0][1] * side);
      for (const [x, y] of points) pen.lineTo(x * side, y * side); // starts with the first point again, so that a dot shows
      pen.stroke();
    }
    if (!cursor) return;
    pen.lineWidth = 0.012 * side;
    pen.strokeStyle = "#D55E00";
    pen.beginPath();
    pen.arc(cursor[0] * side, cursor[1] * side, 0.035 * side, 0, 2 * Math.PI);
    pen.stroke();
    if (!down) return;
    pen.fillStyle = "#D55E00";
    pen.fill();
  }

  function send(strokes) {
    model.set("strokes", strokes);
    model.save_changes();
    paint();
  }

  function finish() {
    if (!stroke) return;
    const done = stroke;
    stroke = null;
    down = false;
    send([...model.get("strokes"), done]);
  }

  function extend(x, y) {
    const [lastX, lastY] = stroke[stroke.length - 1];
    if (Math.hypot(x - lastX, y - lastY) > 0.004) stroke.push([inside(x), inside(y)]);
  }

  function undoStroke() {
    if (stroke) {
      stroke = null;
      down = false;
      paint();
    } else if (model.get("strokes").length) send(model.get("strokes").slice(0, -1));
    said.textContent = `${model.get("strokes").length} strokes left.`;
  }

  function clearPad() {
    stroke = null;
    down = false;
    send([]);
    said.textContent = "The pad is empty.";
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map(inside);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    finish(); // ends a stroke begun with the keyboard
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    canvas.focus();
    cursor = null;
    said.textContent = "";
    stroke = [at(event)];
    paint();
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer || !stroke) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const step of between.length ? between : [event]) extend(...at(step));
    paint();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId !== pointer) return;
      pointer = null;
      finish();
    });
  }
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || pointer !== null) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      const far = event.shiftKey ? 0.01 : 0.04;
      const [x, y] = cursor ?? [0.5, 0.5];
      cursor = [inside(x + far * way[0]), inside(y + far * way[1])];
      if (down) extend(...cursor);
      paint();
    } else if (event.key === " ") {
      cursor = cursor ?? [0.5, 0.5];
      if (down) finish();
      else {
        down = true;
        stroke = [[...cursor]];
      }
      said.textContent = down ? "Pen down." : "Pen up.";
      paint();
    } else if (event.key === "Backspace") undoStroke();
    else if (event.key === "Escape" || event.key === "Delete") clearPad();
    else return; // Tab and all others keep their meaning
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => {
    if (pointer === null) finish();
    cursor = null;
    said.textContent = "";
    paint();
  });
  undo.addEventListener("click", undoStroke);
  clear.addEventListener("click", clearPad);

  model.on("change:strokes", paint);
  paint();
  return () => model.off("change:strokes", paint);
}

export default { render };
