// What the page says about a job, apart from how it looks.

const STAGES = {
  loading: "Loading the model",
  encoding: "Reading the prompt",
  decoding: "Finishing the picture",
};

const SETBACKS = {
  restart: "Back after a restart",
  interrupted: "This was interrupted and is drawn again",
};

export function stageOf(job) {
  if (job.status === "queued") {
    if (typeof job.paused === "string")
      return `Drawing is paused${job.paused && ` (${job.paused})`}: ${placeOf(job.position)}`;
    if (job.setback) return `${SETBACKS[job.setback]}: ${placeOf(job.position)}`;
    if (job.position === null) return "Waiting";
    if (job.position === 1) return "Next in the queue";
    const before = job.before ? `, ${job.before} before you` : "";
    return `Number ${job.position} in the queue${before}`;
  }
  if (job.status === "running") {
    const { stage, step, steps } = job.progress ?? {};
    if (stage === "denoising") return `Drawing: step ${step} of ${steps}`;
    return STAGES[stage] ?? "Beginning";
  }
  return { done: "Done", failed: "Not drawn", cancelled: "Cancelled" }[job.status];
}

function placeOf(position) {
  if (position === null) return "in the queue";
  return position === 1 ? "you are next" : `you are number ${position}`;
}

// How long it will take, such as "about 12 s"; nothing where nobody knows.
export function endOf(job, now = Date.now()) {
  if (!["queued", "running"].includes(job.status)) return "";
  const about = aboutOf(job.expected_at, now);
  return about && `, ${about}`;
}

export function aboutOf(moment, now = Date.now()) {
  if (!moment) return "";
  const seconds = Math.max(1, Math.round((Date.parse(moment) - now) / 1000));
  if (seconds < 100) return `about ${seconds} s`;
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${Math.round(seconds / 3600)} h`;
}

// Such as "512 × 768, 4 pictures"; nothing of what has no size.
export function sizeOf({ width, height, count }) {
  if (!width) return null;
  return `${width} × ${height}${count > 1 ? `, ${count} pictures` : ""}`;
}

export function factsOf(job) {
  const { request } = job;
  const seeds = job.images.map((image) => image.seed);
  const varied = request.variation_seed === null ? "" : `, varied with ${request.variation_seed}`;
  const facts = [
    ["Size", `${request.width} × ${request.height}`],
    ["Seed", (seeds.length > 1 ? `${seeds.at(0)} to ${seeds.at(-1)}` : request.seed) + varied],
    ["Steps", request.steps],
    ["Guidance", request.guidance_scale],
    ["Sampler", request.sampler],
    ["Mode", request.mode],
  ];
  if (request.strength !== null) facts.push(["Begun with", `a picture, strength ${request.strength}`]);
  if (request.refiner_from < 1) facts.push(["Refiner", `after ${Math.round(request.refiner_from * 100)} % of the steps`]);
  if (request.negative_prompt) facts.push(["Without", request.negative_prompt]);
  if (job.seconds !== null) facts.push(["Time", `${job.seconds.toFixed(1)} s`]);
  return facts.map(([name, value]) => [name, String(value)]);
}

const KINSHIPS = {
  again: "Again",
  vary: "Varied",
  upscale: "Larger",
  edit: "Changed",
  remix: "Begun with it",
};

// How a job was made of its parent, or of one of its pictures.
export function kinshipOf(kinship, number) {
  if (!kinship) return "First";
  return number ? `${KINSHIPS[kinship]} (picture ${number + 1})` : KINSHIPS[kinship];
}

// What a screen reader hears when a job moves on; each step of the drawing would be too much.
export function announcementOf(job, before) {
  if (job.status === before) return null;
  return {
    queued: `${stageOf(job)}: ${job.request.prompt}`,
    running: `Drawing begins: ${job.request.prompt}`,
    done: `The picture is ready: ${job.request.prompt}`,
    failed: `Not drawn: ${job.error}`,
    cancelled: `Cancelled: ${job.request.prompt}`,
  }[job.status];
}

// What a mode's card says in small beside its title.
export function modeNoteOf(mode, current) {
  const notes = [mode.default_size.join("x")];
  if (mode.name === current) notes.unshift("current");
  if (mode.nsfw) notes.push("NSFW");
  if (mode.roles.length) notes.push(`on Discord for ${mode.roles.join(" or ")}`);
  return notes.join(", ");
}

// What "/mode list" answers, a line for each mode.
export function modeListOf({ current, modes, problems }) {
  const lines = modes.map((mode) => {
    const name = mode.title === mode.name ? mode.name : `${mode.title} (${mode.name})`;
    const about = mode.description ? `: ${mode.description}` : "";
    return `${name}, ${modeNoteOf(mode, current)}${about}`;
  });
  const refused = problems.map((problem) => `The last edit was refused: ${problem}`);
  return [...refused, ...lines, "Switch with /mode switch NAME."].join("\n");
}

// "/mode list" and "/mode switch NAME" are the page's own; all else goes to the server as it is.
export function modeCommand(text) {
  const [, verb, name] = text.match(/^\s*\/mode\s+(list|switch)(?:\s+(\S+))?\s*$/i) ?? [];
  if (verb?.toLowerCase() === "list" && !name) return { verb: "list" };
  if (verb?.toLowerCase() === "switch" && name) return { verb: "switch", name };
  return null;
}
