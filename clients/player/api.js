// Asks the server that the page came from. Addresses are relative to the page, so both may lie below any path.

const PATIENCE_MS = 20_000;
const UPLOAD_PATIENCE_MS = 120_000;

/** No answer came: the server is down, or the network is. */
export class Lost extends Error {}

/** The server refused, in its own words. */
export class Refused extends Error {
  constructor(status, { code, message, param }) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

const access = { key: "", token: "" };

/** From now on send this key; an empty one is none. */
export function useKey(key) {
  access.key = key;
}

/** From now on read with the token of a link that somebody shared. */
export function useToken(token) {
  access.token = token;
}

/** Where a path of the API is, seen from this page; it carries the viewer's token, if there is one. */
export function address(path, query = {}) {
  const url = new URL(path.replace(/^\//, ""), new URL(".", document.baseURI));
  if (access.token) url.searchParams.set("token", access.token);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

/** The answer of an address. Throws `Lost` or `Refused`; an `AbortError` is passed on. */
export async function open(method, path, { query, headers = {}, ...rest } = {}) {
  const own = access.key && !access.token ? { Authorization: `Bearer ${access.key}` } : {};
  let response;
  try {
    response = await fetch(address(path, query), { method, headers: { ...own, ...headers }, ...rest });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Lost("no answer");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The JSON that an address answers with. */
export async function ask(method, path, { body, headers = {}, ...rest } = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const typed = text === undefined ? headers : { "Content-Type": "application/json", ...headers };
  const signal = AbortSignal.timeout(text?.length > 65_536 ? UPLOAD_PATIENCE_MS : PATIENCE_MS);
  const response = await open(method, path, { body: text, headers: typed, signal, ...rest });
  try {
    return await response.json();
  } catch {
    throw new Lost("the answer was cut");
  }
}

async function refusal(response) {
  try {
    return new Refused(response.status, (await response.json()).error);
  } catch {
    const message = "the server gave an answer that it should not give; is there a proxy in between?";
    return new Refused(response.status, { code: `http_${response.status}`, message });
  }
}

/** A word that nobody else has: a request sent again under it is the same request. */
export function freshWord() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** After so many milliseconds. */
export function later(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
