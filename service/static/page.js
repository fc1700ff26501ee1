// The page: a picture goes to the service, and its captions come back.

import { write } from "./attention.js";
import { copyText, imageElement } from "./copy.js";
import { ask } from "./service.js";
import { shrink } from "./shrink.js";
import { silence, toggle } from "./sound.js";

const element = (id) => document.getElementById(id);
const [choose, photograph, frame, picture] = ["choose", "photograph", "frame", "picture"].map(element);
const [message, heard, caption, words, hint] = ["message", "heard", "caption", "words", "hint"].map(element);
const [actions, play, copy, copyHtml, copySymbols] =
  ["actions", "play", "copy", "copy-html", "copy-symbols"].map(element);
const [length, note, captions, models] = ["length", "note", "captions", "models"].map(element);

const CAPTIONS = 5; // to choose from
const LONG = 125; // characters of alternative text that suit people who hear it

let file = null; // the picture that is shown
let request = new AbortController(); // about that picture; a new picture ends it
let said = null; // the caption that is shown
let limits = {}; // of the service
const described = new Map(); // model name -> what /v1/models says of it

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
  if (signal.aborted) return;
  const model = described.get(models.querySelector("input:checked")?.value);
  const query = new URLSearchParams({ attention: true });
  if (model) {
    query.set("model", model.name);
    // More than its own beam holds would widen that, and the best caption might become another.
    query.set("n_best", Math.min(CAPTIONS, model.decoding.beam_size, limits.max_beam_size));
  }
  try {
    const body = await shrink(file, picture, limits);
    const response = await ask(`v1/caption?${query}`, { method: "POST", body, signal }, (why) => announce(why, true));
    const reply = await response.json();
    if (!signal.aborted) tell(reply.model, reply.results[0]);
  } catch (error) {
    if (!signal.aborted) announce(error.message, false);
  }
}

/** Take back everything that belongs to the caption before. */
function forget() {
  said = null;
  silence(false);
  write(null);
  actions.hidden = caption.hidden = words.hidden = hint.hidden = captions.hidden = true;
  heard.textContent = note.textContent = "";
  picture.alt = "The picture you gave";
}

function announce(sentence, busy) {
  message.textContent = sentence;
  message.classList.toggle("waiting", busy);
}

function tell(name, { captions: found, attention }) {
  const model = described.get(name) ?? {};
  const weights = [attention.weights, ...attention.others];
  const all = found.map((one, index) => ({ ...readable(one, model), weights: weights[index] }))
    .filter(({ alt }, index, every) => alt && every.findIndex((other) => other.alt === alt) === index);
  if (!all.length) return announce("The model has nothing to say about this picture.", false);
  announce("", false);
  const choices = all.map((one, index) => option("caption", one.alt, index === 0, () => prefer(one)));
  captions.replaceChildren(captions.querySelector("legend"), ...choices);
  captions.hidden = all.length === 1;
  prefer(all[0]);
  heard.textContent = said.alt;
}

/** What the page makes of a caption in a reply. */
function readable({ text, tokens, words: read }, { tokenizer, spoken_as: spokenAs, image }) {
  const symbols = tokenizer === "symbols";
  const shown = symbols ? text : sentence(text);
  const alt = read ? sentence(read) : shown;
  const speech = { text: { text: shown }, phones: { phones: tokens } }[spokenAs];
  return { text: shown, tokens, words: read, alt, symbols, speech, cropped: image?.fit === "crop" };
}

const sentence = (text) => text && text.replace(/^./u, (first) => first.toUpperCase()) + ".";

/** Show one of the captions: it is the one to read, to hear and to copy. */
function prefer(one) {
  said = one;
  silence(said.speech);
  write(said);
  caption.classList.toggle("symbols", said.symbols);
  words.textContent = said.words ? said.alt : "";
  picture.alt = said.alt;
  note.textContent = "";
  copySymbols.hidden = said.alt === said.text;
  const long = said.alt.length > LONG;
  length.textContent = `${said.alt.length} characters${long ? `; alternative text is best within ${LONG}` : ""}`;
  caption.hidden = actions.hidden = hint.hidden = false;
  words.hidden = !said.words;
}

/** List the models, and again until all of them are loaded. */
async function listModels() {
  try {
    const reply = await (await ask("v1/models", {}, (why) => announce(why, true))).json();
    limits = reply.limits;
    for (const model of reply.models) {
      if (!described.has(model.name)) {
        models.append(option("model", model.name, model.name === reply.default, () => file && describe()));
      }
      described.set(model.name, model);
      const state = model.status === "ready" ? "" : ` (${model.status})`;
      models.querySelector(`[value="${CSS.escape(model.name)}"] ~ small`).textContent = model.description + state;
    }
    models.hidden = false;
    if (reply.models.some(({ status }) => status === "loading")) setTimeout(listModels, 2000);
  } catch (error) {
    announce(error.message, false);
  }
}

function option(name, value, checked, onchange) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name, value, checked, onchange });
  label.append(radio, value, document.createElement("small"));
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
addEventListener("paste", ({ target, clipboardData }) => target.id === "key" || take(clipboardData));

async function copied(text, sentence) {
  await copyText(text);
  note.textContent = sentence;
}
play.onclick = () => toggle(said.speech);
copy.onclick = () => copied(said.alt, "Copied.");
copyHtml.onclick = () => copied(imageElement(file.name, said.alt), "Copied as HTML.");
copySymbols.onclick = () => copied(said.text, "Copied.");
const listed = listModels();
