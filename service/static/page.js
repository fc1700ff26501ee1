// The page: a picture goes to the service as it is, and its sentences come back.

const [choose, photograph, frame, picture, gaze, message, caption, words, actions, play, copy, spoken, models] =
  ["choose", "photograph", "frame", "picture", "gaze", "message", "caption", "words", "actions", "play",
   "copy", "spoken", "models"].map((id) => document.getElementById(id));

let file = null; // the picture that is shown
let request = new AbortController(); // about that picture; a new picture ends it
let said = null; // {text, tokens, model, attention} of the caption that is shown
let sound = null; // of that caption, once it was asked for
let preparing = null; // the request whose caption's sound is on its way
const described = new Map(); // model name -> what /v1/models says of it

/** A reply of the service; whatever goes wrong becomes an Error whose message is a sentence to show. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const reply = await response.json().catch(() => ({}));
  const sentence = reply.error ?? `The service answered with status ${response.status}.`;
  throw Object.assign(new Error(sentence), {
    code: reply.code,
    retryAfter: Number(response.headers.get("Retry-After")),
  });
}

function show(given) {
  file = given;
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  frame.hidden = false;
  describe();
}

async function describe() {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  forget();
  announce("Looking …", true);
  await listed;
  const query = new URLSearchParams({ attention: true });
  const model = models.querySelector("input:checked")?.value;
  if (model) query.set("model", model);
  try {
    const reply = await (await ask(`v1/caption?${query}`, { method: "POST", body: file, signal })).json();
    if (!signal.aborted) tell(reply.model, reply.results[0]);
  } catch (error) {
    if (signal.aborted) return;
    announce(error.message, error.retryAfter > 0);
    if (error.retryAfter) setTimeout(() => signal.aborted || describe(), error.retryAfter * 1000);
  }
}

/** Take back everything that belongs to the caption before. */
function forget() {
  if (sound) {
    sound.pause();
    URL.revokeObjectURL(sound.src);
  }
  said = sound = null;
  actions.hidden = caption.hidden = words.hidden = true;
  caption.replaceChildren();
  spoken.textContent = words.textContent = "";
  play.textContent = "Play";
  picture.alt = "The picture you gave";
  look(-1);
}

function announce(sentence, busy) {
  message.textContent = sentence;
  message.classList.toggle("waiting", busy);
}

function tell(model, { captions: [best], attention }) {
  const symbols = described.get(model)?.tokenizer === "symbols";
  const text = symbols ? best.text : best.text.replace(/^./u, (first) => first.toUpperCase()) + ".";
  if (!best.text) return announce("The model has nothing to say about this picture.", false);
  said = { text, tokens: best.tokens, symbols, model, attention };
  announce("", false);
  caption.classList.toggle("symbols", symbols);
  caption.replaceChildren(...parts(text, best.tokens));
  words.textContent = best.words ?? "";
  picture.alt = best.words ?? text;
  caption.hidden = actions.hidden = false;
  words.hidden = !best.words;
}

/** The text, each token in an element of its own, whatever stands between them. */
function* parts(text, tokens) {
  let end = 0;
  for (const [index, token] of tokens.entries()) {
    const start = text.toLowerCase().indexOf(token.toLowerCase(), end);
    if (start < 0) continue;
    yield text.slice(end, start);
    end = start + token.length;
    const part = document.createElement("span");
    part.textContent = text.slice(start, end);
    part.dataset.index = index;
    yield part;
  }
  yield text.slice(end);
}

/** Mark a token and darken the picture wherever the model did not look while it said that; -1 ends it. */
function look(index) {
  for (const part of caption.querySelectorAll("[data-index]")) {
    part.classList.toggle("looked", Number(part.dataset.index) === index);
  }
  const weights = said?.attention.weights[index]?.flat();
  gaze.hidden = !weights;
  if (!weights) return;
  const { rows, columns } = said.attention;
  gaze.width = columns;
  gaze.height = rows;
  gaze.classList.toggle("cropped", described.get(said.model)?.image.fit === "crop"); // the model saw the middle alone
  const shade = new ImageData(columns, rows);
  const most = Math.max(...weights);
  weights.forEach((weight, cell) => { shade.data[4 * cell + 3] = 200 * (1 - weight / most); });
  gaze.getContext("2d").putImageData(shade, 0, 0);
}

async function speak() {
  if (sound && !sound.paused) {
    sound.pause();
    return;
  }
  const { signal } = request;
  try {
    if (!sound) {
      if (preparing === signal) return;
      preparing = signal;
      spoken.textContent = "Preparing the sound …";
      const body = JSON.stringify(said.symbols ? { phones: said.tokens } : { text: said.text });
      const wav = await (await ask("v1/speech", { method: "POST", body, signal })).blob();
      if (signal.aborted) return;
      const audio = new Audio(URL.createObjectURL(wav));
      audio.onplaying = () => { play.textContent = "Stop"; };
      audio.onpause = () => {
        play.textContent = "Play";
        audio.currentTime = 0;
      };
      sound = audio; // by the time that its pause is told, there may be another
    }
    spoken.textContent = "";
    await sound.play();
  } catch (error) {
    if (signal.aborted) return;
    // Some browsers want a press of its own for a sound that took long to come.
    spoken.textContent = error.name === "NotAllowedError" ? "The sound is ready; press Play." : error.message;
    play.disabled ||= error.code === "missing_dependency";
    preparing = null;
  }
}

async function copyCaption() {
  try {
    await navigator.clipboard.writeText(said.text);
  } catch { // browsers have no clipboard for a page that came over plain HTTP from another machine
    getSelection().selectAllChildren(caption);
    document.execCommand("copy");
  }
  copy.textContent = "Copied";
  setTimeout(() => { copy.textContent = "Copy"; }, 1500);
}

/** List the models, and again until all of them are loaded. */
async function listModels() {
  try {
    const reply = await (await ask("v1/models")).json();
    for (const model of reply.models) {
      if (!described.has(model.name)) models.append(option(model.name, model.name === reply.default));
      described.set(model.name, model);
      const note = model.status === "ready" ? "" : ` (${model.status})`;
      models.querySelector(`[value="${CSS.escape(model.name)}"] ~ small`).textContent = model.description + note;
    }
    models.hidden = false;
    if (reply.models.some(({ status }) => status === "loading")) setTimeout(listModels, 2000);
  } catch (error) {
    announce(error.message, false);
  }
}

function option(name, chosen) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: name });
  radio.checked = chosen;
  radio.onchange = () => file && describe();
  const note = document.createElement("small");
  label.append(radio, name, note);
  return label;
}

for (const input of [choose, photograph]) {
  input.onchange = () => {
    if (input.files.length) show(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  };
}
picture.onerror = () => { frame.hidden = true; }; // a format that the service may know and the browser does not

function take({ files }) {
  if (files.length) show(files[0]);
  else announce("That is no picture file; links are not followed.", false);
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer);
});
addEventListener("paste", ({ clipboardData }) => take(clipboardData));

caption.onpointerover = ({ target }) => look(Number(target.dataset.index ?? -1));
caption.onpointerleave = ({ pointerType }) => pointerType === "touch" || look(-1); // a finger leaves at once
caption.onblur = () => look(-1);
caption.onkeydown = ({ key }) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (!step) return;
  const looked = Number(caption.querySelector(".looked")?.dataset.index ?? (step > 0 ? -1 : said.tokens.length));
  look(Math.min(Math.max(looked + step, 0), said.tokens.length - 1));
};
play.onclick = speak;
copy.onclick = copyCaption;
const listed = listModels();
