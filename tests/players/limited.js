// A browser that loses the fourth fragment, and whose buffer is full once, when the viewer is behind its sixth second.
"use strict";

const LOST = 4;
const FULL_AT_S = 6;
const limits = (globalThis.limits = { numFragments: 0, numRefused: 0, gap: null });
const append = SourceBuffer.prototype.appendBuffer;

/** The type of the first box. */
function kindOf(data) {
  const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
  return String.fromCharCode(...bytes.subarray(4, 8));
}

SourceBuffer.prototype.appendBuffer = function (data) {
  const kind = kindOf(data);
  const { buffered, currentTime } = document.querySelector("video");
  if (buffered.length === 2) limits.gap = [buffered.end(0), buffered.start(1)];
  if (currentTime > FULL_AT_S && limits.numRefused === 0) {
    limits.numRefused += 1;
    throw new DOMException("no room", "QuotaExceededError");
  }
  if (kind === "moof") limits.numFragments += 1;
  const isLost = limits.numFragments === LOST && kind !== "ftyp";
  append.call(this, isLost ? new Uint8Array(0) : data);
};
