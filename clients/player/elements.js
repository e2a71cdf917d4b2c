// The page's elements, and the few things that are done to many of them.

/** By id. */
export const $ = (id) => document.getElementById(id);

/** A new element with properties and children. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** One of the page's drawings. */
export function drawing(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Set a text only where it is another: screen readers tell of every change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show a message beside a field, as an error or not; an empty one hides it. */
export function note(element, text, tone = "") {
  say(element, text);
  element.hidden = !text;
  element.dataset.tone = tone;
}

/** 75 is "1:15". */
export function clockTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const rest = String(whole % 60).padStart(2, "0");
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

const FIELDS = { prompt: "", seconds: "Length: ", fps: "Pictures a second: ", size: "Size: ", seed: "Seed: ", image: "Picture: " };

/** What to tell of an error of a request: the server's words, with our names of its fields. */
export function wordsOf(error) {
  if (!error.status) return "The server does not answer. Try again in a moment.";
  const start = `${error.param}: `;
  if (!error.message.startsWith(start)) return sentence(error.message);
  return sentence((FIELDS[error.param.split("[")[0]] ?? start) + error.message.slice(start.length));
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
