// Conv4 in plain JavaScript, with the weights of the ONNX file. It knows the five kinds of step that a Conv4 has, and no other.

(() => {
  const fsl = (globalThis.fsl ??= {});
  const FLOAT = 1; // ONNX's number for float32
  const PASSES = ["Transpose", "Reshape"]; // between grey pictures and rows of maps they change no order

  // Yields [field, value] of a protobuf message: a number, or the bytes of what has a length.
  function* fields(bytes) {
    let at = 0;
    const whole = () => {
      let value = 0;
      for (let shift = 1; ; shift *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * shift;
        if (byte < 128) return value;
      }
    };
    while (at < bytes.length) {
      const key = whole();
      const kind = key & 7;
      if (kind === 0) yield [key >> 3, whole()];
      else if (kind === 2) {
        const size = whole();
        yield [key >> 3, bytes.subarray(at, (at += size))];
      } else at += kind === 1 ? 8 : 4;
    }
  }

  const text = (bytes) => new TextDecoder().decode(bytes);
  const all = (bytes, number) => [...fields(bytes)].filter(([field]) => field === number).map(([, value]) => value);

  // The steps of the file's graph, its tensors of float32 by name, and the JSON texts that come with it.
  function read(bytes) {
    const [graph] = all(bytes, 7);
    const steps = all(graph, 1).map((node) => ({ kind: text(all(node, 4)[0]), inputs: all(node, 1).map(text) }));
    const tensors = {};
    for (const tensor of all(graph, 5)) {
      const raw = all(tensor, 9)[0];
      if (all(tensor, 2)[0] === FLOAT) tensors[text(all(tensor, 8)[0])] = new Float32Array(raw.slice().buffer);
    }
    const about = {};
    for (const entry of all(bytes, 14)) about[text(all(entry, 1)[0])] = JSON.parse(text(all(entry, 2)[0]));
    return { steps, tensors, about };
  }

  // A 3x3 convolution with a border of zeros: maps [inner, side, side] -> [outer, side, side].
  function convolved(maps, side, weight, bias) {
    const outer = bias.length;
    const inner = weight.length / (9 * outer);
    const wide = side + 2;
    const padded = new Float32Array(inner * wide * wide);
    for (let c = 0; c < inner; c++) {
      for (let y = 0; y < side; y++) {
        const row = maps.subarray((c * side + y) * side, (c * side + y + 1) * side);
        padded.set(row, (c * wide + y + 1) * wide + 1);
      }
    }
    const out = new Float32Array(outer * side * side);
    for (let o = 0; o < outer; o++) {
      out.fill(bias[o], o * side * side, (o + 1) * side * side);
      for (let c = 0; c < inner; c++) add(out, o * side * side, padded, c * wide * wide, side, weight, 9 * (o * inner + c));
    }
    return out;
  }

  // Adds one filter over one map. The nine weights stay in variables, because this loop is nearly all of the work.
  function add(out, to, padded, from, side, weight, w) {
    const a = weight[w], b = weight[w + 1], c = weight[w + 2];
    const d = weight[w + 3], e = weight[w + 4], f = weight[w + 5];
    const g = weight[w + 6], h = weight[w + 7], i = weight[w + 8];
    const wide = side + 2;
    for (let y = 0; y < side; y++) {
      let p = from + y * wide;
      let q = p + wide;
      let r = q + wide;
      for (let x = 0; x < side; x++, p++, q++, r++) {
        out[to++] +=
          a * padded[p] + b * padded[p + 1] + c * padded[p + 2] +
          d * padded[q] + e * padded[q + 1] + f * padded[q + 2] +
          g * padded[r] + h * padded[r + 1] + i * padded[r + 2];
      }
    }
  }

  // The largest of every 2x2 block: maps [c, side, side] -> [c, floor(side / 2), floor(side / 2)].
  function pooled(maps, side) {
    const half = side >> 1;
    const channels = maps.length / (side * side);
    const out = new Float32Array(channels * half * half);
    let at = 0;
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < half; y++) {
        for (let x = 0; x < half; x++) {
          const p = (c * side + 2 * y) * side + 2 * x;
          out[at++] = Math.max(maps[p], maps[p + 1], maps[p + side], maps[p + side + 1]);
        }
      }
    }
    return out;
  }

  // bytes: an ONNX file that `python -m fsl_course export` wrote -> { embed, about }. Throws an Error for another net.
  fsl.plainNet = (bytes) => {
    const { steps, tensors, about } = read(bytes);
    const unknown = steps.find(({ kind }) => !["Conv", "MaxPool", "Relu", ...PASSES].includes(kind));
    if (unknown) throw new Error(`net.js knows no step ${unknown.kind}: it reads a Conv4 with one channel.`);
    // pixels: Uint8Array [28 * 28] -> Float32Array [D]
    const embed = (pixels) => {
      let maps = Float32Array.from(pixels, (value) => value / 255);
      let side = Math.sqrt(maps.length);
      for (const { kind, inputs } of steps) {
        if (kind === "Conv") maps = convolved(maps, side, tensors[inputs[1]], tensors[inputs[2]]);
        else if (kind === "Relu") maps = maps.map((value) => Math.max(0, value));
        else if (kind === "MaxPool") [maps, side] = [pooled(maps, side), side >> 1];
      }
      return maps;
    };
    return { embed, about };
  };
})();
