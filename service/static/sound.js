// The caption aloud.

import { ask } from "./service.js";

const [play, note] = ["play", "note"].map((id) => document.getElementById(id));

let sound = null; // of the caption that is shown, once it was asked for
let request = null; // for that sound
let mute = false; // the service has no voice

/** Forget the sound of the caption before; the next one is offered only if it can be spoken. */
export function silence(speakable) {
  request?.abort();
  sound?.pause();
  if (sound) URL.revokeObjectURL(sound.src);
  request = sound = null;
  play.hidden = !speakable;
  play.disabled = mute;
  play.textContent = "Play";
}

/** Play what `body`, for /v1/speech, says, or stop playing it. */
export async function toggle(body) {
  if (sound && !sound.paused) return sound.pause();
  if (request && !sound) return; // it is on its way
  request ??= new AbortController();
  const { signal } = request;
  try {
    if (!sound) {
      note.textContent = "Preparing the sound …";
      const options = { method: "POST", body: JSON.stringify(body), signal };
      const wav = await (await ask("v1/speech", options, (sentence) => { note.textContent = sentence; })).blob();
      signal.throwIfAborted();
      sound = player(wav);
    }
    note.textContent = "";
    await sound.play();
  } catch (error) {
    if (signal.aborted) return;
    // Some browsers want a press of its own for a sound that took long to come.
    note.textContent = error.name === "NotAllowedError" ? "The sound is ready; press Play." : error.message;
    if (!sound) request = null;
    mute ||= error.status === 501;
    play.disabled = mute || error.status === 400; // pressing again would not help
  }
}

function player(wav) {
  const audio = new Audio(URL.createObjectURL(wav));
  audio.onplaying = () => { play.textContent = "Stop"; };
  audio.onpause = () => { // by the time that its pause is told, there may be another
    if (sound === audio) play.textContent = "Play";
    audio.currentTime = 0;
  };
  return audio;
}
