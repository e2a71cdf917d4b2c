// One answer of a video's stream: its init segment, then whole fragments, then how it ended.

import { Lost } from "./api.js";
import { BoxSplitter, joined, signalOf } from "./boxes.js";

const SILENCE_MS = 25_000; // the server sends something every 10 s

/** Hands out `{init}`, `{fragment}` and `{signal}` as they come. Throws `Lost` where it is cut without a word. */
export async function* piecesOf(response, stop) {
  const splitter = new BoxSplitter();
  const head = [];
  let moof = null;
  for await (const chunk of chunksOf(response, stop)) {
    for (const box of splitter.feed(chunk)) {
      const signal = signalOf(box);
      if (signal) yield { signal };
      else if (box.kind === "ftyp") head.push(box.data);
      else if (box.kind === "moov") yield { init: joined([...head.splice(0), box.data]) };
      else if (box.kind === "moof") moof = box.data;
      else if (box.kind === "mdat" && moof) yield { fragment: joined([moof, box.data]) };
    }
  }
}

/** `stop` ends the request: called when nothing has come for too long. */
async function* chunksOf(response, stop) {
  const reader = response.body.getReader();
  for (;;) {
    const timer = setTimeout(stop, SILENCE_MS);
    try {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Lost("the stream was cut");
    } finally {
      clearTimeout(timer);
    }
  }
}
