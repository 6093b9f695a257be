"use strict";
// The page of `unilat ui`: asks the server that sent it, and nobody else. All words are set as text; the only HTML that
// is taken over is what the report of a run is made of, whose texts are escaped where it is made.

const $ = (id) => document.getElementById(id);
const TOKEN = document.querySelector("meta[name=token]").content;
const STAGES = { stage1: "Stage 1, autoencoder", prior: "The prior alone", stage2: "Stage 2, base model" };
let runs = [], pictures = [], chosen = null, training = null, watching = 0;

async function ask(path, order, raw) {
  const options = { headers: { "X-Unilat-Token": TOKEN } };
  if (raw !== undefined || order !== undefined) {
    options.method = "POST";
    options.body = raw !== undefined ? raw : JSON.stringify(order);
  }
  let answer;
  try {
    answer = await fetch("/api/" + path, options);
  } catch {
    throw new Error("the page's server does not answer: is `unilat ui` still running?");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function trouble(error) {
  $("trouble").hidden = !error;
  $("trouble").textContent = error ? error.message : "";
}

async function tried(act) {
  try {
    trouble(null);
    return await act();
  } catch (error) {
    trouble(error);
  }
}

function node(tag, text, inner = []) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...inner);
  return made;
}

const number = (value, digits = 4) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits))));
const run = () => runs[Number($("run").value)];
const isReady = () => run() && run().state === "ready";

// ---------------------------------------------------------------- runs

async function refresh() {
  const told = await ask("runs");
  const before = run() && run().state;
  runs = told.runs;
  training = told.training;
  const kept = $("run").value;
  $("run").replaceChildren(...runs.map((one) => {
    const option = node("option", one.state === "ready" ? one.name : `${one.name} (${one.state})`);
    option.value = one.number;
    return option;
  }));
  if (runs[Number(kept)] && kept !== "") $("run").value = kept;
  if (!$("order").elements.data.options.length) lists(told);
  if ($("which").querySelectorAll("input").length !== runs.length) boxes();
  stopped();
  if (before !== (run() && run().state)) shown();
}

function lists(told) {
  const fill = (select, values) => select.replaceChildren(...values.map(([value, text]) => {
    const option = node("option", text);
    option.value = value;
    return option;
  }));
  const form = $("order").elements;
  fill(form.data, told.data.map((one) => [one, one]));
  fill(form.size, told.sizes.map((one) => [one, `${one} × ${one}`]));
  fill(form.extent, Object.entries(told.lengths).map(([name, count]) => [name, `${name}, ${count.toLocaleString("en")} pictures a stage`]));
}

function boxes() {
  $("which").replaceChildren(node("legend", "Runs to put side by side"), ...runs.map((one) => {
    const box = node("input");
    box.type = "checkbox";
    box.value = one.number;
    box.checked = one.number < 4;
    return node("label", "", [box, node("span", `${one.name} — ${one.folder}`)]);
  }));
}

function shown() {
  const one = run();
  if (!one) {
    $("about").textContent = "No run is open: start a training here, or name run folders, `unilat ui runs/photos`.";
  } else if (one.state === "ready") {
    const wanted = one.wanted === null ? "a fixed loss factor" : `${one.wanted} bits per pixel wanted`;
    $("about").textContent = `${one.folder}: pictures of ${one.size}, from ${one.source}; ${wanted}. ${one.why}`;
  } else {
    $("about").textContent = one.state === "loading" ? `Opening ${one.folder} …` : one.why;
  }
  $("drop").hidden = !isReady();
  $("shelf").hidden = $("drop").hidden;
  if (!isReady()) $("desk").hidden = true;
  $("sample").hidden = !(isReady() && one.samples);
  $("no-base").hidden = !(isReady() && !one.samples);
  if (!isReady()) return;
  $("calls").max = one.calls.length - 1;
  $("calls").value = Math.max(0, one.calls.indexOf(one.decoder_steps));
  const form = $("sample").elements;
  form.steps.value = one.base_steps;
  $("guidance-field").hidden = $("class-field").hidden = one.guidance === null;
  if (one.guidance !== null) form.guidance.value = one.guidance;
  form.label.value = "";
  $("classes").replaceChildren(...one.classes.map((name) => {
    const option = node("option");
    option.value = name;
    return option;
  }));
  $("heat").querySelector("i").style.background = `linear-gradient(90deg,${one.heat.join(",")})`;
  $("samples").replaceChildren();
  $("made").textContent = "";
}

$("run").addEventListener("change", () => tried(async () => {
  shown();
  if (!$("train").hidden) await watched();
  if (isReady()) await again();
}));

// ---------------------------------------------------------------- look

async function again() {
  const files = pictures.map((one) => one.file);
  pictures = [];
  chosen = null;
  $("shelf").replaceChildren();
  await drop(files);
}

async function drop(files) {
  let told = null;
  for (const file of files) {
    try {
      const found = await ask(`picture?run=${run().number}`, undefined, file);
      const one = { ...found, file, run: run().number };
      pictures.push(one);
      const picture = node("img");
      picture.src = one.original;
      picture.alt = file.name;
      const button = node("button", "", [picture, node("span", `${one.amount[0]} bits`)]);
      button.title = file.name;
      button.addEventListener("click", () => choose(one));
      one.button = button;
      $("shelf").append(button);
      if (!chosen) choose(one);
    } catch (error) {
      told = new Error(`${file.name}: ${error.message}`);
    }
  }
  if (told) trouble(told);
}

function choose(one) {
  chosen = one;
  for (const other of pictures) other.button.setAttribute("aria-pressed", other === one);
  $("desk").hidden = false;
  $("original").src = one.original;
  $("map").src = one.map;
  const [high, wide] = one.shape;
  $("was").textContent = `${high} × ${wide}${one.converted.length ? ", " + one.converted.join(", ") : ""}`;
  $("grid").textContent = `${one.grid.join(" × ")} latent positions`;
  $("top").textContent = `${number(one.top, 3)} bits per latent position`;
  $("level").max = one.levels.length - 1;
  $("level").value = one.levels.length - 1;
  keep();
}

let asking = false, waiting = false;
async function keep() {
  if (!chosen) return;
  const one = chosen, at = Number($("level").value), calls = runs[one.run].calls[Number($("calls").value)];
  const both = ([all, each]) => `${all} bits, ${each} per pixel`;
  $("bits-kept").textContent = `${one.amounts[at][0]} of ${one.amounts.at(-1)[0]}`;
  $("calls-told").textContent = calls;
  if (asking) {
    waiting = true;
    return;
  }
  asking = true;
  $("kept").classList.add("busy");
  await tried(async () => {
    const order = { picture: one.picture, level: one.levels[at], calls, seed: Number($("look-seed").value) };
    const made = await ask("reconstruct", order);
    if (one !== chosen) return;
    $("kept").src = made.image;
    $("kept").dataset.seconds = made.seconds;
    $("quality").textContent = `${made.psnr.toFixed(2)} dB, SSIM ${made.ssim.toFixed(3)}`;
    told([
      ["All bits of this picture", both(one.amount), one.protocol],
      ["Bits kept", both(one.amounts[at]), `λ = ${one.levels[at].toFixed(2)}: ${one.rungs}`],
      ["Against the original", `PSNR ${made.psnr.toFixed(2)} dB, SSIM ${made.ssim.toFixed(4)}`, made.protocol],
    ]);
  });
  $("kept").classList.remove("busy");
  asking = false;
  if (waiting) {
    waiting = false;
    keep();
  }
}

function told(rows) {
  $("numbers").replaceChildren(...rows.flatMap(([name, value, protocol]) => [
    node("dt", name),
    node("dd", "", [node("b", value), node("small", protocol)]),
  ]));
}

for (const id of ["level", "calls", "look-seed"]) $(id).addEventListener("input", keep);
$("files").addEventListener("change", () => tried(async () => {
  await drop([...$("files").files]);
  $("files").value = "";
}));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    if (name === "drop" && isReady()) tried(() => drop([...event.dataTransfer.files]));
  });
}

// ---------------------------------------------------------------- make

async function draw() {
  const form = $("sample").elements;
  const order = { run: run().number, label: form.label.value, count: Number(form.count.value), steps: Number(form.steps.value) };
  order.seed = Number(form.seed.value);
  order.guidance = run().guidance === null ? null : Number(form.guidance.value);
  const made = await ask("sample", order);
  $("samples").replaceChildren(...made.images.map((source, index) => {
    const picture = node("img");
    picture.src = source;
    picture.alt = `sample ${index}${made.labels[index] ? " of class " + made.labels[index] : ""}`;
    return node("figure", "", made.labels[index] ? [picture, node("figcaption", made.labels[index])] : [picture]);
  }));
  $("made").textContent = `${made.protocol}. ${made.seconds.toFixed(2)} s.`;
}

$("sample").addEventListener("submit", (event) => {
  event.preventDefault();
  tried(draw);
});
$("again").addEventListener("click", () => {
  const seed = $("sample").elements.seed;
  seed.value = Number(seed.value) + 1;
  tried(draw);
});

// ---------------------------------------------------------------- compare

$("beside").addEventListener("submit", (event) => {
  event.preventDefault();
  tried(async () => {
    const numbers = [...$("which").querySelectorAll("input:checked")].map((box) => box.value);
    $("table").innerHTML = (await ask(`compare?runs=${numbers.join(",")}`)).html;
  });
});

// ---------------------------------------------------------------- train

function stopped() {
  const goes = Boolean(training && training.running);
  $("stop").disabled = !goes;
  $("order").querySelector("button.do").disabled = goes;
  $("said").hidden = !training;
  if (training) $("said").querySelector("pre").textContent = training.said.join("\n");
}

async function watched() {
  if (!run()) return;
  const seen = await ask(`watch?run=${run().number}`);
  const words = { training: "is being trained", stopped: "is not being trained", finished: "is done", damaged: "is damaged" };
  const parts = [node("p", `${run().name} ${words[seen.state]}${seen.way_out ? ": " + seen.way_out : ""}`)];
  parts[0].className = "about";
  for (const stage of seen.stages) {
    const share = Math.min(1, stage.step / Math.max(1, stage.steps));
    const left = seen.state === "training" && stage.left ? `, ${clock(stage.left)} left` : "";
    const speed = stage.speed ? `, ${number(stage.speed, 3)} pictures/s` : "";
    const bar = node("i");
    bar.style.width = `${100 * share}%`;
    const frame = node("div", "", [bar]);
    frame.className = "bar-of";
    const rows = [["bpp", "bits per pixel, last batch"], ["calibration_bpp", "averaged, pictures set aside"], ["decoder", "decoder loss, nats per picture"], ["loss", "loss, nats per dimension"], ["loss_factor", "loss factor"]];
    const numbers = node("dl", "", rows.filter(([key]) => key in stage.latest).flatMap(([key, name]) => {
      const aim = key === "bpp" && "target" in stage.latest ? ` of ${number(stage.latest.target)} held` : key === "calibration_bpp" && seen.wanted !== null ? ` of ${seen.wanted} wanted` : "";
      return [node("dt", name), node("dd", number(stage.latest[key]) + aim)];
    }));
    const line = node("p", STAGES[stage.name] || stage.name, [node("small", `step ${stage.step} of ${stage.steps}${speed}${left}`)]);
    const box = node("div", "", [line, frame, numbers]);
    box.className = "stage";
    parts.push(box);
  }
  const drawn = node("div");
  drawn.innerHTML = seen.html;
  $("watched").replaceChildren(...parts, drawn);
  return seen.state;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds) % 60).padStart(2, "0")}`;

function follow() {
  clearTimeout(watching);
  watching = setTimeout(async () => {
    try {
      await refresh();
      if (!$("train").hidden) await watched();
    } catch (error) {
      trouble(error);
    }
    follow();
  }, runs.some((one) => one.state === "training" || one.state === "loading") || (training && training.running) ? 2000 : 15000);
}

$("order").addEventListener("submit", (event) => {
  event.preventDefault();
  tried(async () => {
    const form = $("order").elements;
    const order = { data: form.data.value, bpp: Number(form.bpp.value), size: form.size.value, length: form.extent.value, seed: Number(form.seed.value) };
    const begun = await ask("train", order);
    $("order").querySelector("button.do").disabled = true;
    $("command").hidden = false;
    $("command").textContent = begun.command;
    await refresh();
    $("run").value = begun.run;
    shown();
    await watched();
    follow();
  });
});
$("stop").addEventListener("click", () => tried(async () => {
  $("stop").disabled = true;
  await ask("stop", {});
  await refresh();
  shown();
  await watched();
}));

// ---------------------------------------------------------------- tabs and begin

const tabs = [...document.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const one of tabs) {
    one.setAttribute("aria-selected", one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
  trouble(null);
  if (tab.id === "tab-train") tried(watched);
}
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    next.focus();
    open(next);
  });
});

tried(async () => {
  await refresh();
  shown();
  if (!runs.length) open($("tab-train"));
  document.body.dataset.ready = "yes";
}).then(follow);
