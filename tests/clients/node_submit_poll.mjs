// Submits one thing and polls until it is done, with Node's own fetch and nothing else.
//
// Arguments: which API, `movies` or `generation`, and its URL.

const [api, url] = process.argv.slice(2);
const key = process.env.API_KEY;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const ask = async (path, headers, body) => {
  const method = body ? "POST" : "GET";
  const fields = { "Content-Type": "application/json", ...headers };
  const answer = await fetch(url + path, { method, headers: fields, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
  return answer.json();
};

const movies = async () => {
  const headers = { "x-api-key": key };
  const movie = { scenes: [{ elements: [] }], "client-data": { order: "order-12345" } };
  const made = await ask("/v2/movies", headers, movie);
  if (!made.success) throw new Error(made.message);
  const states = [];
  while (states.at(-1) !== "done") {
    await pause(20);
    states.push((await ask(`/v2/movies?project=${made.project}`, headers)).movie.status);
  }
  return { id: made.project, states };
};

const generation = async () => {
  const headers = { Authorization: `Bearer ${key}` };
  const input = { prompt: "a sunset over mountains" };
  const made = await ask("/v1/models/sketch", headers, { input });
  const states = [];
  while (states.at(-1) !== "COMPLETED") {
    await pause(20);
    states.push((await ask(made.status_url, headers)).status);
  }
  const { output } = await ask(made.response_url, headers);
  return { id: made.request_id, states, output: output.images.length };
};

console.log(JSON.stringify(await { movies, generation }[api]()));
