// The caption, token by token, and where the model looked for each of them.

const [caption, gaze] = ["caption", "gaze"].map((id) => document.getElementById(id));

let shown = null; // {tokens, weights, cropped} of the caption that is shown

/** Show a caption, {text, tokens, weights: (T, rows, columns), cropped}; none takes the one before away. */
export function write(said) {
  shown = said;
  caption.replaceChildren(...said ? parts(said.text, said.tokens) : []);
  look(-1);
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
  const grid = shown?.weights[index];
  gaze.hidden = !grid;
  if (!grid) return;
  gaze.width = grid[0].length;
  gaze.height = grid.length;
  gaze.classList.toggle("cropped", shown.cropped); // the model saw the middle alone
  const shade = new ImageData(gaze.width, gaze.height);
  const weights = grid.flat();
  const most = Math.max(...weights);
  weights.forEach((weight, cell) => { shade.data[4 * cell + 3] = 200 * (1 - weight / most); });
  gaze.getContext("2d").putImageData(shade, 0, 0);
}

caption.onpointerover = ({ target }) => look(Number(target.dataset.index ?? -1));
caption.onpointerleave = ({ pointerType }) => pointerType === "touch" || look(-1); // a finger leaves at once
caption.onblur = () => look(-1);
caption.onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault(); // the page would scroll where it is wider than its window
  const last = shown.tokens.length - 1;
  const looked = Number(caption.querySelector(".looked")?.dataset.index ?? (step > 0 ? -1 : last + 1));
  look(Math.min(Math.max(looked + step, 0), last));
};
