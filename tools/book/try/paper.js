// From strokes to what the network sees: the same steps as `rasterise` in fsl_classroom/widgets/sketch_pad.py.
// The numbers below are those of that file; a test draws the same strokes with both and compares the pixels.

(() => {
  const fsl = (globalThis.fsl ??= {});
  const INK_SIDE = 0.566; // the longer side of a drawing, as a fraction of the picture's side
  const DOT = 0.06; // anything smaller is a dot and is not enlarged
  const PEN = 1.5; // width of the pen in pixels
  const FINER = 9; // factor by which it is drawn larger before it is blurred
  const EDGE = 1.5; // width of the blur in pixels
  const GREYS = 5; // steps between the grey levels 0, 51, ... 255
  const SIZE = 28;

  // Puts the middle of a drawing into the middle of a square of `side` pixels, and gives it the size of the letters.
  function placed(strokes, side) {
    const points = strokes.flat();
    const low = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
    const high = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
    const extent = Math.max(high[0] - low[0], high[1] - low[1]);
    const scale = extent > DOT ? INK_SIDE / extent : 1;
    const move = (value, axis) => ((value - (low[axis] + high[axis]) / 2) * scale + 0.5) * side - 0.5;
    return strokes.map((stroke) => stroke.map(([x, y]) => [move(x, 0), move(y, 1)]));
  }

  // Inks every pixel of a box for which inside(x, y) is true.
  function fill(ink, side, [left, top, right, bottom], inside) {
    for (let y = Math.max(0, top); y <= Math.min(side - 1, bottom); y++) {
      for (let x = Math.max(0, left); x <= Math.min(side - 1, right); x++) if (inside(x, y)) ink[y * side + x] = 1;
    }
  }

  // A round end. The corners of its box are whole pixels, as for Pillow's ellipse.
  function dot(ink, side, [x, y]) {
    const reach = (PEN * FINER) / 2 - 0.5;
    const box = [x - reach, y - reach, x + reach, y + reach].map(Math.trunc);
    const middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const radii = [(box[2] - box[0]) / 2 + 0.45, (box[3] - box[1]) / 2 + 0.45]; // borders are rounded outwards
    fill(ink, side, box, (px, py) => ((px - middle[0]) / radii[0]) ** 2 + ((py - middle[1]) / radii[1]) ** 2 <= 1);
  }

  // A straight line, as Pillow draws it: a polygon whose corners are whole pixels.
  function line(ink, side, from, to) {
    const [x0, y0, x1, y1] = [...from, ...to].map(Math.trunc);
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = Math.hypot(dx, dy);
    if (!length) return;
    const half = (Math.round(PEN * FINER) - 1) / 2;
    const up = (v) => Math.sign(v) * Math.floor(Math.abs(v) + 0.5);
    const down = (v) => Math.sign(v) * Math.ceil(Math.abs(v) - 0.5);
    const [most, least] = [up(half) / length, down(half) / length];
    const [a, b, c, d] = [down(least * dy), down(most * dy), up(least * dx), up(most * dx)];
    const corners = [[x0 - a, y0 + d], [x1 - a, y1 + d], [x1 + b, y1 - c], [x0 + b, y0 - c]];
    const box = [0, 1].map((axis) => Math.min(...corners.map((corner) => corner[axis])));
    box.push(...[0, 1].map((axis) => Math.max(...corners.map((corner) => corner[axis]))));
    fill(ink, side, box, (x, y) =>
      corners.every(([px, py], i) => {
        const [qx, qy] = corners[(i + 1) % 4];
        return (qx - px) * (y - py) - (qy - py) * (x - px) <= 0.499 * Math.abs(qy - py); // rows end at the nearest pixel
      }),
    );
  }

  // The mean of a box around the middle of each coarse pixel; at its ends the box covers a part of a fine pixel.
  function averaged(ink, side) {
    const reach = (EDGE * FINER - 1) / 2;
    const whole = Math.floor(reach);
    const weight = (d) => (Math.abs(d) <= whole ? 1 : reach - whole) / (EDGE * FINER);
    const middle = (i) => i * FINER + (FINER >> 1);
    const rows = new Float64Array(side * SIZE);
    for (let y = 0; y < side; y++) {
      for (let i = 0; i < SIZE; i++) {
        for (let d = -whole - 1; d <= whole + 1; d++) {
          const x = Math.max(0, Math.min(side - 1, middle(i) + d));
          rows[y * SIZE + i] += weight(d) * ink[y * side + x];
        }
      }
    }
    const picture = new Float64Array(SIZE * SIZE);
    for (let j = 0; j < SIZE; j++) {
      for (let d = -whole - 1; d <= whole + 1; d++) {
        const y = Math.max(0, Math.min(side - 1, middle(j) + d));
        for (let i = 0; i < SIZE; i++) picture[j * SIZE + i] += weight(d) * rows[y * SIZE + i];
      }
    }
    return picture;
  }

  // strokes: lists of points [x, y] in 0..1, y downwards -> Uint8Array [28 * 28], ink 255 on 0 in six grey levels.
  fsl.rasterise = (strokes) => {
    if (!strokes.length) return new Uint8Array(SIZE * SIZE);
    const side = SIZE * FINER;
    const ink = new Uint8Array(side * side);
    for (const stroke of placed(strokes, side)) {
      for (const point of stroke) dot(ink, side, point);
      for (let i = 1; i < stroke.length; i++) line(ink, side, stroke[i - 1], stroke[i]);
    }
    return Uint8Array.from(averaged(ink, side), (v) => Math.round(v * GREYS) * (255 / GREYS));
  };
})();
