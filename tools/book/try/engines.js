// The two programs that compute embeddings: plain JavaScript at once, and ONNX Runtime when its script has been loaded.
// Both get the model from a script file as base64, because a page opened from a folder may fetch nothing.

(() => {
  const fsl = (globalThis.fsl ??= {});
  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const unpacked = (base64) =>
    new Response(new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

  function script(address) {
    return new Promise((done, failed) => {
      const element = document.createElement("script");
      element.src = address;
      element.onload = done;
      element.onerror = () => failed(new Error(`the file ${address} is missing or cannot be read`));
      document.head.append(element);
    });
  }

  // -> { name, about, embed(pixels) -> promise of Float32Array [64] }
  fsl.plainEngine = () => {
    if (!fsl.model) throw new Error("the file _static/try/model.js is missing or cannot be read");
    const net = fsl.plainNet(bytes(fsl.model));
    return { name: "plain JavaScript", about: net.about, embed: async (pixels) => net.embed(pixels) };
  };

  fsl.onnxEngine = async () => {
    if (!globalThis.WebAssembly || !globalThis.DecompressionStream) {
      throw new Error("this browser lacks WebAssembly or DecompressionStream; one from 2023 or later has both");
    }
    if (!fsl.runtime) await script("_static/try/runtime.js");
    const { code, wasm } = fsl.runtime;
    // A module cannot be loaded from a file, but from an address that contains it.
    const ort = await import(`data:text/javascript;base64,${code}`);
    ort.env.wasm.numThreads = 1; // more threads would need headers that only a server can send
    ort.env.wasm.wasmBinary = await unpacked(wasm);
    fsl.runtime = null;
    const session = await ort.InferenceSession.create(bytes(fsl.model), { executionProviders: ["wasm"] });
    let last = Promise.resolve(); // a session takes one call at a time
    const embed = (pixels) => {
      const side = Math.sqrt(pixels.length);
      const input = new ort.Tensor("float32", Float32Array.from(pixels, (value) => value / 255), [1, 1, side, side]);
      const answer = last.then(() => session.run({ pictures: input })).then((found) => found.embeddings.data);
      last = answer.catch(() => {});
      return answer;
    };
    return { name: "ONNX Runtime", embed };
  };

  // Median milliseconds for one picture, and the largest difference between two programs on some pictures.
  fsl.timed = async (engine, pictures) => {
    const times = [];
    await engine.embed(pictures[0]); // the first call is slower, and not what a user waits for
    for (let i = 0; i < 15; i++) {
      const start = performance.now();
      await engine.embed(pictures[i % pictures.length]);
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[7];
  };
  fsl.apart = async (one, other, pictures) => {
    let most = 0;
    for (const picture of pictures) {
      const [a, b] = [await one.embed(picture), await other.embed(picture)];
      a.forEach((value, i) => (most = Math.max(most, Math.abs(value - b[i]))));
    }
    return most;
  };

  // Prototypes and answers, as `PrototypicalNetwork.score` has them.
  const squared = (a, b) => a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0);
  fsl.mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  fsl.squared = squared;

  // query [D], prototypes: lists [D] -> shares that sum to 1
  fsl.shares = (query, prototypes) => {
    const logits = prototypes.map((prototype) => -squared(query, prototype));
    const top = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - top));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / sum);
  };
})();
