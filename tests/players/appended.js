// Collects the sequence numbers of all fragments that a page hands to the browser, in their order.
"use strict";

globalThis.appended = [];
const append = SourceBuffer.prototype.appendBuffer;

SourceBuffer.prototype.appendBuffer = function (data) {
  const view = new DataView(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
  const isFragment = view.getUint32(4) === 0x6d6f6f66; // moof, in which mfhd comes first
  if (isFragment) globalThis.appended.push(view.getUint32(20));
  append.call(this, data);
};
