// Cuts a stream of bytes into MP4 boxes, and reads the few numbers in them that the player needs.

const SIGNAL_UUID = "6b1f0c5e92d84f3a8e47a1c0d95b7e26";

/** What came is no video stream. */
export class BadStream extends Error {}

/** Collects bytes and hands out whole boxes; chunk edges mean nothing. */
export class BoxSplitter {
  held = new Uint8Array(0);

  *feed(chunk) {
    const bytes = joined([this.held, chunk]);
    let at = 0;
    for (let size = boxSize(bytes, at); size && at + size <= bytes.length; size = boxSize(bytes, at)) {
      yield { kind: kindAt(bytes, at), data: bytes.slice(at, at + size) };
      at += size;
    }
    this.held = bytes.slice(at);
  }
}

/** Size of the box at `at`; 0 while its header is incomplete. */
function boxSize(bytes, at) {
  if (bytes.length - at < 8) return 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  const size = view.getUint32(0);
  if (size === 1 && bytes.length - at < 16) return 0;
  const whole = size === 1 ? Number(view.getBigUint64(8)) : size;
  if (whole < 8) throw new BadStream("the answer is not a video stream");
  return whole;
}

function kindAt(bytes, at) {
  return String.fromCharCode(...bytes.subarray(at + 4, at + 8));
}

/** Payload of one of the server's own boxes, else null. */
export function signalOf(box) {
  if (box.kind !== "uuid") return null;
  const uuid = Array.from(box.data.subarray(8, 24), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return uuid === SIGNAL_UUID ? JSON.parse(new TextDecoder().decode(box.data.subarray(24))) : null;
}

/** Pieces, one behind the other. */
export function joined(pieces) {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Where the body of a nested box begins, such as that of moof, traf, tfdt; throws if there is none. */
function bodyOf(bytes, kinds, from = 0, to = bytes.length) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = from; at + 8 <= to; at += boxSize(bytes, at)) {
    if (kindAt(bytes, at) !== kinds[0]) continue;
    return kinds.length === 1 ? at + 8 : bodyOf(bytes, kinds.slice(1), at + 8, at + view.getUint32(at));
  }
  throw new BadStream(`the stream has no ${kinds[0]} box where one has to be`);
}

/** Ticks a second, as an init segment says. */
export function timescaleOf(init) {
  const at = bodyOf(init, ["moov", "trak", "mdia", "mdhd"]);
  return new DataView(init.buffer, init.byteOffset).getUint32(at + (init[at] === 1 ? 20 : 12));
}

/** Where a fragment begins, in ticks. */
export function startOf(fragment) {
  const at = bodyOf(fragment, ["moof", "traf", "tfdt"]);
  const view = new DataView(fragment.buffer, fragment.byteOffset);
  return fragment[at] === 1 ? Number(view.getBigUint64(at + 4)) : view.getUint32(at + 4);
}

/** A copy of a fragment that begins so many ticks earlier. */
export function movedBack(fragment, ticks) {
  const moved = fragment.slice();
  const at = bodyOf(moved, ["moof", "traf", "tfdt"]);
  const view = new DataView(moved.buffer);
  if (moved[at] === 1) view.setBigUint64(at + 4, BigInt(startOf(fragment) - ticks));
  else view.setUint32(at + 4, startOf(fragment) - ticks);
  return moved;
}
