"use strict";

const AT_ONCE = 60; // pictures on a page
const KEPT = `captioner gallery ${location.pathname}`; // where the browser remembers the marks

const element = (id) => document.getElementById(id);
const [cards, template, wanted, kind, order, count, download, back, on, page] =
  ["cards", "card", "wanted", "kind", "order", "count", "download", "back", "on", "page"].map(element);

const pictures = together([...document.querySelectorAll("script.row")].map((row) => JSON.parse(row.textContent)));
const marked = new Set(remembered());
let shown = []; // the pictures that are to be seen, on all pages
let first = 0; // of those on this page

/** Rows that stand together and are of one picture: {name, source, error, said: [{model, captions}]}. */
function together(rows) {
  const found = [];
  for (const { image: name, source, error, model, captions } of rows) {
    const last = found.at(-1);
    if (last?.name === name && captions && !last.said.some((other) => other.model === model)) {
      last.said.push({ model, captions });
    } else {
      found.push({ name, source, error, said: captions ? [{ model, captions }] : [] });
    }
  }
  return found;
}

function remembered() {
  try {
    const names = JSON.parse(localStorage.getItem(KEPT));
    return Array.isArray(names) ? names : [];
  } catch { // storage is switched off, or holds what is no JSON
    return [];
  }
}

function remember() {
  try {
    localStorage.setItem(KEPT, JSON.stringify([...marked]));
  } catch { // the marks last as long as the page
  }
}

/** Choose what is to be seen, and show its first page. */
function choose() {
  const words = wanted.value.trim().toLowerCase();
  const kinds = { all: () => true, marked: ({ name }) => marked.has(name), failed: ({ error }) => error !== undefined };
  const texts = ({ name, error = "", said }) =>
    [name, error, ...said.flatMap(({ captions }) => captions.map(({ text }) => text))].join("\n").toLowerCase();
  shown = pictures.filter(kinds[kind.value]).filter((picture) => !words || texts(picture).includes(words));
  if (order.value === "doubtful") {
    const doubt = ({ said }) => Math.min(...said.map(({ captions }) => captions[0]?.score ?? Infinity));
    shown.sort((one, other) => doubt(one) - doubt(other) || 0); // two that failed differ by no number
  }
  const number = (value) => value.toLocaleString("en");
  count.textContent = shown.length === pictures.length
    ? `${number(pictures.length)} pictures`
    : `${number(shown.length)} of ${number(pictures.length)} pictures`;
  turn(0);
}

/** Show the page that begins with a picture. */
function turn(to) {
  first = to;
  cards.replaceChildren(...shown.slice(first, first + AT_ONCE).map(card));
  back.disabled = first === 0;
  on.disabled = first + AT_ONCE >= shown.length;
  page.textContent = `Page ${first / AT_ONCE + 1} of ${Math.max(1, Math.ceil(shown.length / AT_ONCE))}`;
}

function card(picture) {
  const { name, source, error, said } = picture;
  const made = template.content.firstElementChild.cloneNode(true);
  const [figure, image, gaze, gone, texts, label, mark] =
    ["figure", "img", "canvas", ".gone", ".said", ".name", "input"].map((selector) => made.querySelector(selector));
  label.textContent = name;
  mark.setAttribute("aria-label", `Mark ${name}`);
  mark.checked = marked.has(name);
  mark.onchange = () => {
    marked[mark.checked ? "add" : "delete"](name);
    remember();
    download.disabled = !marked.size;
  };
  figure.hidden = !source;
  if (source) {
    image.onerror = () => {
      figure.hidden = true;
      gone.hidden = false;
    };
    image.alt = said[0].captions[0]?.text ?? "";
    image.src = source;
  }
  if (error !== undefined) texts.append(paragraph("wrong", error));
  for (const { model, captions } of said) {
    if (said.length > 1) texts.append(paragraph("model", model));
    texts.append(...captions.slice(0, 1).flatMap((one) => [...caption(one, gaze)]));
    if (captions.length > 1) {
      const others = document.createElement("ol");
      others.start = 2;
      others.append(...captions.slice(1).map((one) => {
        const item = document.createElement("li");
        item.append(...caption(one, gaze));
        return item;
      }));
      texts.append(others);
    }
  }
  return made;
}

function paragraph(className, text) {
  const made = document.createElement("p");
  made.className = className;
  made.textContent = text;
  return made;
}

/** A caption in paragraphs, which shows on a canvas where the model looked for the token that one points at. */
function* caption({ text, tokens, attention }, gaze) {
  const whole = paragraph("caption", text);
  yield whole;
  if (!attention || !tokens?.length) return;
  let spans = inside(whole, tokens);
  let tabbed = whole;
  if (!spans) { // the text was cut, or is words where the tokens are phones
    tabbed = paragraph("tokens", "");
    spans = tokens.map(token);
    tabbed.append(...spans.flatMap((span) => [span, " "]));
    yield tabbed;
  }
  listen(tabbed, spans, attention, gaze);
}

function token(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}

/** Put each token of a text into an element of its own, if they all stand there one after another. */
function inside(whole, tokens) {
  const text = whole.textContent;
  const escaped = tokens.map((one) => `(${one.replace(/[\\^$.*+?()[\]{}|/]/gu, "\\$&")})`);
  const found = text.match(new RegExp(escaped.join("[^\\p{L}\\p{N}]*"), "dui"));
  if (!found) return null;
  const places = found.indices.slice(1);
  const spans = places.map(([start, end]) => token(text.slice(start, end)));
  whole.textContent = text.slice(0, places[0][0]);
  spans.forEach((span, index) => whole.append(span, text.slice(places[index][1], places[index + 1]?.[0])));
  return spans;
}

/** Show where the model looked as one points at tokens, or steps through them with the arrow keys. */
function listen(whole, spans, { shape, weights, cropped }, gaze) {
  const [, rows, columns] = shape;
  const bytes = Uint8Array.from(atob(weights), (character) => character.charCodeAt());
  let looked = -1;
  const look = (index) => {
    looked = index;
    for (const other of whole.closest("article").querySelectorAll(".looked")) other.classList.remove("looked");
    gaze.hidden = index < 0;
    if (index < 0) return;
    spans[index].classList.add("looked");
    gaze.classList.toggle("cropped", Boolean(cropped)); // the model saw the middle alone
    gaze.width = columns;
    gaze.height = rows;
    const shade = new ImageData(columns, rows);
    const cells = bytes.subarray(index * rows * columns, (index + 1) * rows * columns);
    cells.forEach((weight, cell) => { shade.data[4 * cell + 3] = 200 * (1 - weight / 255); });
    gaze.getContext("2d").putImageData(shade, 0, 0);
  };
  whole.tabIndex = 0;
  whole.onpointerover = ({ target }) => look(spans.indexOf(target));
  whole.onpointerleave = ({ pointerType }) => pointerType === "touch" || look(-1); // a finger leaves at once
  whole.onblur = () => look(-1);
  whole.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault(); // the page would scroll where it is wider than its window
    const from = looked < 0 && step < 0 ? spans.length : looked;
    look(Math.min(Math.max(from + step, 0), spans.length - 1));
  };
}

/** Turn to another page and begin at its top. */
function leaf(step) {
  turn(first + step * AT_ONCE);
  cards.scrollIntoView();
}

element("choose").onsubmit = (event) => event.preventDefault();
wanted.oninput = kind.onchange = order.onchange = choose;
back.onclick = () => leaf(-1);
on.onclick = () => leaf(1);
download.onclick = () => {
  const ending = [...marked].some((name) => name.includes("\n")) ? "\0" : "\n"; // captioner takes either
  const list = new Blob([...marked].map((name) => name + ending), { type: "text/plain" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(list);
  link.download = "marked.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
download.disabled = !marked.size;
choose();
