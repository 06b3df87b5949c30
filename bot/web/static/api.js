// Talks to the server. Every refusal becomes a Problem whose message is the server's sentence.

export class Problem extends Error {
  constructor(detail, { field = null, status = null } = {}) {
    super(detail);
    this.field = field;
    this.status = status;
  }
}

export async function ask(method, path, body) {
  const options = { method };
  if (method === "POST") {
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
export async function call(method, path, body) {
  try {
    return await ask(method, path, body);
  } catch (problem) {
    if (problem.status === 401) location.assign("/login");
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

// Keeps one stream of everything open; calls handlers[event](data), and handlers.offline().
export function listen(handlers) {
  const source = new EventSource("/api/events");
  for (const event of ["jobs", "job", "gone", "status"]) {
    source.addEventListener(event, (message) => handlers[event](JSON.parse(message.data)));
  }
  source.addEventListener("error", () => {
    handlers.offline();
    if (source.readyState !== EventSource.CLOSED) return;
    call("GET", "/api/session").catch(() => {}); // leads to the login where the session has ended
    setTimeout(() => listen(handlers), SILENCE);
  });
}
