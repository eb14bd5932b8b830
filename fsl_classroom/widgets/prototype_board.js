// A board of support points over decision regions. Python computes the regions; this file paints them and moves points.
// While a point is dragged, at most one message is in transit: the next one waits for the answer to the last.

const SIDE = 420; // width and height of the picture in its own units; the page scales it
const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`, // circle
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`, // square
  (r) => `M0,${-1.3 * r}L${1.2 * r},${0.9 * r}H${-1.2 * r}z`, // triangle
  (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`, // diamond
  (r) => `M0,${1.3 * r}L${1.2 * r},${-0.9 * r}H${-1.2 * r}z`, // triangle, point down
];
const STAR = Array.from({ length: 10 }, (_, i) => {
  const r = i % 2 ? 6 : 15;
  return `${i ? "L" : "M"}${r * Math.sin((Math.PI * i) / 5)},${-r * Math.cos((Math.PI * i) / 5)}`;
}).join("") + "z";
const STYLE = `
.fsl-board { position: relative; width: 100%; max-width: ${SIDE}px; aspect-ratio: 1; background: white; }
.fsl-board canvas, .fsl-board svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.fsl-board svg { overflow: visible; user-select: none; }
.fsl-board text { font: bold 12px sans-serif; text-anchor: middle; dominant-baseline: central; pointer-events: none; }
.fsl-board .region { font-weight: normal; fill: #333; opacity: 0.65; }
.fsl-board .point { cursor: grab; touch-action: none; outline: none; }
.fsl-board .point .letter { fill: white; stroke: black; stroke-width: 2.5px; paint-order: stroke; }
.fsl-board .point .ring { fill: none; stroke: none; }
.fsl-board .point:focus .ring { stroke: black; stroke-width: 2.5px; stroke-dasharray: 4 2; }`;

function svg(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

function render({ model, el }) {
  const reach = model.get("reach");
  const letters = "ABCDE";
  const colours = model.get("colours");
  const toX = (x) => ((x + reach) / (2 * reach)) * SIDE;
  const toY = (y) => ((reach - y) / (2 * reach)) * SIDE;
  const inside = (v) => Math.max(-reach, Math.min(reach, v));

  const style = document.createElement("style");
  style.textContent = STYLE;
  const board = document.createElement("div");
  board.className = "fsl-board";
  board.setAttribute("data-lm-suppress-shortcuts", "true"); // arrow keys move points, not JupyterLab's cells
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  const picture = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "group" });
  picture.setAttribute("aria-label", "Support points. Tab to a point, arrow keys move it, with Shift five times as far.");
  const middle = { stroke: "#767676", "stroke-width": 0.7, "stroke-dasharray": "3 3" };
  svg("path", { d: `M0,${SIDE / 2}H${SIDE}M${SIDE / 2},0V${SIDE}`, ...middle }, picture);
  const names = svg("g", { "aria-hidden": "true" }, picture);
  const stars = svg("g", { "aria-hidden": "true" }, picture);
  const points = svg("g", {}, picture);
  board.append(canvas, picture);
  el.append(style, board);

  const own = new Map(); // id -> {slot, x, y, element}: the points on the screen
  let held = null; // id of the point under the pointer
  let waiting = 0; // time when the message in transit was sent, 0 if there is none
  let next = null; // the latest move that has not been sent
  let serial = Date.now() % 1e9; // message number; two views of one board should not share numbers

  function send() {
    if (!next || (waiting && Date.now() - waiting < 3000)) return; // sends again after 3 s without an answer
    waiting = Date.now();
    serial += 1;
    model.set("moved", [...next, serial]);
    next = null;
    model.save_changes();
  }

  function place(id) {
    const p = own.get(id);
    p.element.setAttribute("transform", `translate(${toX(p.x)},${toY(p.y)})`);
    const where = `x ${p.x.toFixed(1)}, y ${p.y.toFixed(1)}`;
    p.element.setAttribute("aria-label", `support point of class ${letters[p.slot]}, ${where}`);
  }

  function move(id, x, y, done) {
    const p = own.get(id);
    [p.x, p.y] = [inside(x), inside(y)];
    place(id);
    next = [id, p.x, p.y, done];
    send();
  }

  function make(id, slot) {
    const element = svg("g", { class: "point", tabindex: 0, role: "button" });
    element.setAttribute("aria-roledescription", "movable point");
    element.dataset.point = id;
    svg("circle", { r: 17, fill: "transparent" }, element); // larger than the marker, because fingers are
    svg("circle", { r: 16, class: "ring" }, element);
    svg("path", { d: SHAPES[slot](9), fill: colours[slot], stroke: "black", "stroke-width": 1.5 }, element);
    svg("text", { class: "letter" }, element).textContent = letters[slot];
    const at = (event) => {
      const box = picture.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 2 * reach - reach;
      return [x, reach - ((event.clientY - box.top) / box.height) * 2 * reach];
    };
    element.addEventListener("pointerdown", (event) => {
      held = id;
      element.setPointerCapture(event.pointerId);
      element.focus();
      event.preventDefault();
    });
    element.addEventListener("pointermove", (event) => held === id && move(id, ...at(event), false));
    for (const end of ["pointerup", "pointercancel"]) {
      element.addEventListener(end, () => {
        if (held !== id) return;
        held = null;
        move(id, own.get(id).x, own.get(id).y, true);
      });
    }
    element.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      const far = event.shiftKey ? 0.5 : 0.1;
      move(id, own.get(id).x + far * way[0], own.get(id).y + far * way[1], true);
    });
    return element;
  }

  function paint() {
    const cells = model.get("cells");
    const step = model.get("step");
    const bytes = model.get("regions");
    const winner = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength); // [cells, cells], lowest y first
    if (winner.length !== cells * cells) return;
    const channel = (slot, c) => parseInt(colours[slot].slice(1 + 2 * c, 3 + 2 * c), 16);
    canvas.width = canvas.height = cells;
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(cells, cells);
    names.replaceChildren();
    for (let row = 0; row < cells; row++) {
      for (let column = 0; column < cells; column++) {
        const here = row * cells + column;
        const slot = winner[here];
        const edge =
          (column + 1 < cells && winner[here + 1] !== slot) || (row + 1 < cells && winner[here + cells] !== slot);
        const pixel = 4 * ((cells - 1 - row) * cells + column);
        for (let c = 0; c < 3; c++) image.data[pixel + c] = edge ? 60 : 255 - 0.25 * (255 - channel(slot, c));
        image.data[pixel + 3] = 255;
        if (row % step === step / 2 && column % step === step / 2) {
          const x = ((column + 0.5) / cells) * SIDE;
          const y = (1 - (row + 0.5) / cells) * SIDE;
          svg("text", { x, y, class: "region" }, names).textContent = letters[slot];
        }
      }
    }
    pen.putImageData(image, 0, 0);
  }

  function update() {
    const { points: fresh, centres, answered } = model.get("board");
    if (answered === serial) waiting = 0;
    const known = new Set(fresh.map(([id]) => id));
    for (const [id, p] of own) {
      if (known.has(id)) continue;
      p.element.remove();
      own.delete(id);
    }
    for (const [id, slot, x, y] of fresh) {
      if (!own.has(id)) {
        own.set(id, { slot, x, y, element: make(id, slot) });
        points.append(own.get(id).element);
      } else if (id !== held && !(next && next[0] === id)) {
        Object.assign(own.get(id), { x, y }); // not a point that the reader is moving: it is newer here than in Python
      }
      place(id);
    }
    stars.replaceChildren();
    centres.forEach(([x, y], slot) => {
      const look = { d: STAR, fill: colours[slot], stroke: "black", "stroke-width": 1.5, class: "star" };
      svg("path", { ...look, transform: `translate(${toX(x)},${toY(y)})` }, stars);
    });
    paint();
    send();
  }

  model.on("change:board", update);
  update();
  return () => model.off("change:board", update);
}

export default { render };
