// Photos have far more pixels than a model sees; to send fewer is quicker, above all from a phone.

const MANY = 4e6; // pixels: up to these a picture is sent as it is
const ENOUGH = 1e6; // pixels of one that is not

/** The picture's file; where that is large or over the service's limits, a JPEG of it, upright and on white. */
export async function shrink(file, picture, { max_bytes: maxBytes = Infinity, max_pixels: maxPixels = Infinity }) {
  const known = await picture.decode().then(() => true, () => false); // some formats only the service knows
  const pixels = picture.naturalWidth * picture.naturalHeight;
  if (!known && file.size > maxBytes) {
    throw new Error("This file is larger than the service takes, and this browser cannot shrink it.");
  }
  if (!known || (file.size <= maxBytes && pixels <= Math.min(MANY, maxPixels))) return file;
  const scale = Math.sqrt(Math.min(1, ENOUGH / pixels, maxPixels / pixels));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(picture.naturalWidth * scale));
  canvas.height = Math.max(1, Math.floor(picture.naturalHeight * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.9); });
}
