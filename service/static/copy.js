// What leaves the page: a caption as alternative text.

const escapes = { "&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;" };

/** An image element for a page: the name of a file becomes its address, the text its alternative. */
export function imageElement(name, alt) {
  // Whatever ends, divides or disguises an address; letters of any language stay readable.
  const address = name.replace(/[\s%#?:\\]/g, encodeURIComponent);
  return `<img src="${attribute(address)}" alt="${attribute(alt)}">`;
}

const attribute = (text) => text.replace(/[&"<>]/g, (letter) => escapes[letter]);

/** Put a text into the clipboard. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // browsers have no clipboard for a page that came over plain HTTP from another machine
    const focused = document.activeElement;
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused.focus();
  }
}
