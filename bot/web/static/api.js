// Talks to the server. Every refusal becomes a Problem whose message is the server's sentence.

export class Problem extends Error {
  constructor(detail, { field = null, status = null } = {}) {
    super(detail);
    this.field = field;
    this.status = status;
  }
}

export async function ask(method, path, body, headers = null) {
  const options = { method };
  if (headers) Object.assign(options, { headers, body }); // it is no JSON
  else if (method === "POST" || method === "PUT") {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body ?? {});
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem("Dream Lab does not answer. Is it still running?");
  }
  const content = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) {
    const { detail = `The server answered ${answer.status}.`, field } = content ?? {};
    throw new Problem(detail, { field, status: answer.status });
  }
  return content;
}

// Asks; whose session has ended signs in anew.
export async function call(method, path, body, headers = null) {
  try {
    return await ask(method, path, body, headers);
  } catch (problem) {
    if (problem.status === 401) location.assign(loginBack());
    throw problem;
  }
}

// Returns a file as base64.
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Problem("image: the file can't be read.", { field: "image" }));
    reader.readAsDataURL(file);
  });
}

const SILENCE = 2000; // milliseconds until a stream that the browser gave up is opened anew

// The login, which leads back to where one was.
export function loginBack() {
  const here = location.pathname + location.search;
  return here === "/" ? "/login" : `/login?to=${encodeURIComponent(here)}`;
}

// Keeps one stream open; calls handlers[event](data), and handlers.offline() while it is broken.
export function listen(path, handlers) {
  const source = new EventSource(path);
  for (const [event, handle] of Object.entries(handlers)) {
    if (event === "offline") continue;
    source.addEventListener(event, (message) => handle(JSON.parse(message.data)));
  }
  source.addEventListener("error", () => {
    handlers.offline();
    if (source.readyState !== EventSource.CLOSED) return;
    call("GET", "/api/session").catch(() => {}); // leads to the login where the session has ended
    setTimeout(() => listen(path, handlers), SILENCE);
  });
}
