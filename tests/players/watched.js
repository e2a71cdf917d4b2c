// What tests ask of a video element: its picture's painted number, and what has happened to it.
"use strict";

const NUM_BARS = 16;

/** The number that the shown picture has painted in bright and dark bars. */
function shownNumber(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const middle = Math.floor(canvas.height / 2) * canvas.width;
  let number = 0;
  for (let bar = 0; bar < NUM_BARS; bar += 1) {
    const x = Math.floor(((bar + 0.5) * canvas.width) / NUM_BARS);
    number = number * 2 + (data[(middle + x) * 4] > 126 ? 1 : 0);
  }
  return number;
}

/** Collects the names of a video's events from now on. */
function watch(video) {
  const seen = [];
  for (const name of ["playing", "waiting", "seeked", "ended", "error"]) {
    video.addEventListener(name, () => seen.push(name));
  }
  return seen;
}

/** Resolves when the video does this the next time. */
function once(video, name) {
  return new Promise((resolve) => video.addEventListener(name, resolve, { once: true }));
}

Object.assign(globalThis, { shownNumber, watch, once });
