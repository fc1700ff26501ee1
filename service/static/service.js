// Requests to the service: with a key where it wants one, again where it is busy.

const [unlock, locked, input] = ["unlock", "locked", "key"].map((id) => document.getElementById(id));

const PATIENCE = 60; // seconds; whoever is to wait longer is told so instead

let key = keep((storage) => storage.getItem("key"));
let unlocking = null; // settled once somebody has typed a key

/**
 * A reply of the service; whatever goes wrong becomes an Error whose message is a sentence to show.
 * It takes what fetch takes, and a function that is told what is waited for.
 */
export async function ask(path, options, wait) {
  for (;;) {
    const used = key;
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    const response = await fetch(path, { ...options, headers }).catch((error) => {
      throw options.signal?.aborted ? error : new Error("The service does not answer. Is it still running?");
    });
    if (response.ok) return response;
    const error = await failure(response);
    options.signal?.throwIfAborted();
    if (error.status === 401) {
      const sentence = used ? "The service does not take this key." : "The service asks for an API key.";
      if (used === key) await askForKey(sentence); // else another request has brought one meanwhile
    } else if (error.retryAfter <= PATIENCE) {
      wait(`${error.message.replace(/\.?$/, ".")} This page tries again by itself.`);
      await new Promise((resolve) => { setTimeout(resolve, Math.max(error.retryAfter, 1) * 1000); });
    } else {
      throw error;
    }
  }
}

async function failure(response) {
  const reply = await response.json().catch(() => ({}));
  const sentence = reply.error ?? `The service answered with status ${response.status}.`;
  const retryAfter = Number(response.headers.get("Retry-After") ?? Infinity);
  return Object.assign(new Error(sentence), { status: response.status, retryAfter });
}

function askForKey(sentence) {
  unlocking ??= new Promise((resolve) => {
    locked.textContent = sentence;
    unlock.hidden = false;
    input.select();
    unlock.onsubmit = (event) => {
      event.preventDefault();
      key = input.value;
      keep((storage) => storage.setItem("key", key));
      unlock.hidden = true;
      unlocking = null;
      resolve();
    };
  });
  return unlocking;
}

/** Use what lasts until the tab is closed; browsers may forbid that, and then the key lasts as long as the page. */
function keep(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}
