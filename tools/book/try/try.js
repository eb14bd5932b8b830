// The page to try: a pad, the characters that were taught, and the answer. What it computes with stands in the other files.

(() => {
  const fsl = globalThis.fsl ?? {};
  const MOST_CHARACTERS = 10;
  const MOST_EXAMPLES = 5;
  const NEAREST = 3;
  const NARROW = "(max-width: 700px)";
  const $ = (id) => document.getElementById(id);

  let engine; // what embeds: plain JavaScript first
  let onnx = null;
  let characters = []; // { name, examples: [{ pixels, embedding, picture }] }
  let untouched = true; // the drawing on the pad is one that the page put there
  let latest = 0; // number of the last query, so that a slow answer never replaces a newer one

  function node(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") element.textContent = value;
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  const percent = (share) => (share > 0.995 ? "over 99 %" : share < 0.005 ? "under 1 %" : `${Math.round(100 * share)} %`);
  const say = (text) => ($("said").textContent = text);

  // Dark ink on white paper into a canvas of 28 x 28.
  function paint(canvas, pixels) {
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(28, 28);
    pixels.forEach((value, i) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
    pen.putImageData(image, 0, 0);
    return canvas;
  }

  // The numbers of an embedding as one row of shades: the larger, the darker.
  function stripe(canvas, numbers) {
    const pen = canvas.getContext("2d");
    canvas.width = numbers.length;
    const image = pen.createImageData(numbers.length, 1);
    const shade = (value) => Math.min(1, Math.max(0, value) / 1.6);
    const [light, dark] = [[238, 243, 247], [0, 66, 110]];
    numbers.forEach((value, i) => {
      const mixed = light.map((from, c) => from + shade(value) * (dark[c] - from));
      image.data.set([...mixed, 255], 4 * i);
    });
    pen.putImageData(image, 0, 0);
    return canvas;
  }

  // What `sketch_pad.js` needs of a notebook's model.
  const model = {
    values: { strokes: [], label: "Drawing pad", side: 340 },
    painters: new Set(),
    get: (name) => model.values[name],
    set: (name, value) => (model.values[name] = value),
    save_changes: () => ask(),
    on: (_, painter) => model.painters.add(painter),
    off: (_, painter) => model.painters.delete(painter),
  };
  function onPad(strokes) {
    untouched = strokes.length > 0;
    $("hint").hidden = !untouched;
    model.set("strokes", strokes);
    model.painters.forEach((painter) => painter());
    return ask();
  }

  async function example(strokes) {
    const pixels = fsl.rasterise(strokes);
    const picture = paint(node("canvas", { width: 28, height: 28 }), pixels).toDataURL();
    return { pixels, picture, embedding: await engine.embed(pixels) };
  }

  // Answers what lies on the pad.
  async function ask() {
    const number = ++latest;
    const strokes = model.get("strokes");
    const known = characters.filter((character) => character.examples.length);
    if (!strokes.length) $("hint").hidden = true;
    if (!strokes.length || known.length < 2) {
      listed(characters.map(() => null));
      showEvidence(false);
      $("verdict").textContent =
        known.length < 2
          ? "It needs two things at least, to tell one from the other. Draw one and keep it."
          : "Draw something on the pad.";
      return;
    }
    const pixels = fsl.rasterise(strokes);
    const query = await engine.embed(pixels);
    if (number !== latest) return;
    const prototypes = known.map((character) => fsl.mean(character.examples.map((one) => one.embedding)));
    const shares = fsl.shares(query, prototypes);
    const best = shares.indexOf(Math.max(...shares));
    listed(characters.map((character) => shares[known.indexOf(character)] ?? null));
    const doubt = shares[best] > 0.6 ? "" : "perhaps ";
    $("verdict").replaceChildren(doubt, node("strong", { text: known[best].name }), `, ${percent(shares[best])} sure`);
    paint($("seen"), pixels);
    stripe($("code"), query);
    nearest(query, known);
    showEvidence(true);
  }

  function showEvidence(there) {
    $("evidence").hidden = !there;
    $("no-evidence").hidden = there;
  }

  function nearest(query, known) {
    const all = known.flatMap(({ name, examples }) => examples.map((one) => ({ name, one, away: fsl.squared(query, one.embedding) })));
    const first = all.sort((a, b) => a.away - b.away).slice(0, NEAREST);
    $("nearest").replaceChildren(
      ...first.map(({ name, one, away }) =>
        node("li", {}, node("img", { src: one.picture, alt: `a drawing of ${name}`, width: 56, height: 56 }),
          node("span", { text: name }), node("small", { text: `distance ${away.toFixed(1)}` }))),
    );
  }

  // Builds the list anew. shares: one for each character, or null
  function listed(shares) {
    const top = Math.max(...shares.map((share) => share ?? 0));
    const drawn = model.get("strokes").length > 0;
    const rows = characters.map((character, place) => {
      const { name, examples } = character;
      const share = shares[place];
      const full = examples.length >= MOST_EXAMPLES;
      const pictures = examples.map((one, number) =>
        node("button", { type: "button", class: "example", "aria-label": `Remove drawing ${number + 1} of ${name}`,
          title: "Remove this drawing", onclick: () => forget(character, number) },
          node("img", { src: one.picture, alt: "", width: 48, height: 48 }), node("span", { "aria-hidden": "true", text: "×" })));
      const code = node("canvas", { class: "code", height: 1, "aria-hidden": "true" });
      if (examples.length) stripe(code, fsl.mean(examples.map((one) => one.embedding)));
      return node("li", { class: share !== null && share === top ? "best" : null },
        node("div", { class: "pictures" }, ...pictures),
        node("div", { class: "about" },
          node("input", { value: name, maxlength: 24, "aria-label": `Name of thing ${place + 1}`, onchange: (event) => rename(character, event.target),
            onkeydown: (event) => event.key === "Enter" && (event.target.blur(), toPad()) }),
          node("span", { class: "share", text: share === null ? "" : percent(share) }),
          node("div", { class: "bar", "aria-hidden": "true" }, node("div", { style: `width: ${100 * (share ?? 0)}%` })),
          examples.length ? code : ""),
        node("button", { type: "button", class: "keep", disabled: drawn && !full ? null : "", "aria-label": `Keep my drawing as ${name}`,
          text: full ? "Full" : "Keep here", onclick: () => keep(character) }));
    });
    const controls = () => [...$("characters").querySelectorAll("button, input")];
    const held = controls().indexOf(document.activeElement); // the new list keeps the keyboard's place
    $("characters").replaceChildren(...rows);
    if (held >= 0) (controls()[held] ?? $("new")).focus({ preventScroll: true });
    $("new").disabled = !drawn || characters.length >= MOST_CHARACTERS;
  }

  function rename(character, field) {
    character.name = field.value.trim() || character.name;
    setTimeout(ask); // when the Tab key has moved on
  }

  async function keep(character) {
    character.examples.push(await example(model.get("strokes")));
    const count = character.examples.length;
    say(`Kept as drawing ${count} of ${character.name}. Now draw it again, and see whether it is found.`);
    await onPad([]);
    toPad();
  }

  function toPad() {
    document.querySelector("#pad canvas").focus({ preventScroll: true });
    $("ask").scrollIntoView({ block: "nearest" }); // the heading above the pad; on a telephone the buttons lie far below
  }

  async function create() {
    const taken = new Set(characters.map((character) => character.name));
    let number = 1;
    while (taken.has(`thing ${number}`)) number++;
    const character = { name: `thing ${number}`, examples: [] };
    characters.push(character);
    await keep(character);
    const field = [...document.querySelectorAll("#characters input")].at(-1);
    field.focus();
    field.select();
    say("Kept. Type its name, press Enter, and draw it again.");
  }

  function forget(character, number) {
    character.examples.splice(number, 1);
    if (!character.examples.length) characters = characters.filter((one) => one !== character);
    say(character.examples.length ? `One drawing of ${character.name} is gone.` : `${character.name} is forgotten.`);
    ask();
  }

  async function show({ characters: given, query }) {
    characters = await Promise.all(
      given.map(async ({ name, strokes }) => ({ name, examples: [await example(strokes)] })),
    );
    say("");
    await onPad(query);
  }

  const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  const sample = () => fsl.examples.things.characters.map(({ strokes }) => fsl.rasterise(strokes));

  function trouble(text) {
    $("trouble").textContent = text;
    $("trouble").hidden = false;
  }

  // Loads ONNX Runtime, which then answers. If that fails, plain JavaScript goes on.
  async function loadRuntime() {
    if (onnx) return onnx;
    $("load").disabled = true;
    $("onnx-state").textContent = "is being loaded";
    try {
      const found = await fsl.onnxEngine();
      const pictures = sample();
      const apart = await fsl.apart(engine, found, pictures);
      $("onnx-ms").textContent = milliseconds(await fsl.timed(found, pictures));
      $("apart").textContent = `Largest difference between the numbers of both: ${apart.toExponential(0)}.`;
      $("onnx-state").textContent = "answers now";
      $("plain-state").textContent = "answered first";
      $("load").hidden = true;
      engine = onnx = found;
      return found;
    } catch (error) {
      $("onnx-state").textContent = "could not be loaded";
      $("apart").textContent = `ONNX Runtime could not be loaded: ${error.message}. Plain JavaScript goes on answering.`;
      $("load").disabled = false;
      return null;
    }
  }

  async function start() {
    try {
      engine = fsl.plainEngine();
    } catch (error) {
      trouble(`The network of this page could not be started: ${error.message}. Build the book anew, or load the page again.`);
      return;
    }
    $("board").hidden = false;
    fsl.pad({ model, el: $("pad") });
    const makeRoom = (event) => {
      const begins = event.type === "pointerdown" || event.key === " " || event.key?.startsWith("Arrow");
      if (untouched && begins && event.target.tagName === "CANVAS") onPad([]);
    };
    for (const kind of ["pointerdown", "keydown"]) $("pad").addEventListener(kind, makeRoom, true);
    $("things").addEventListener("click", () => show(fsl.examples.things));
    $("letters").addEventListener("click", () => show(fsl.examples.letters));
    $("empty").addEventListener("click", () => show({ characters: [], query: [] }));
    $("new").addEventListener("click", create);
    $("load").addEventListener("click", loadRuntime);
    await show(fsl.examples.things);
    const [five] = engine.about.card.test.filter(({ way, shot }) => way === 5 && shot === 1);
    $("card").textContent = `On letters of scripts that it was not trained on, it names ${(100 * five.mean).toFixed(1)} % of drawings rightly, with five letters to choose from and one example of each. Drawings of things are further from its training, and no such number is known for them.`;
    $("plain-ms").textContent = milliseconds(await fsl.timed(engine, sample()));
    $("plain-state").textContent = "answers now";
    if (!matchMedia(NARROW).matches && !navigator.connection?.saveData) setTimeout(loadRuntime, 800);
  }

  // What a test waits for.
  fsl.page = { loadRuntime, engine: () => engine.name };
  fsl.page.ready = start();
})();
