// One POST, or one GET, with Node's own fetch and nothing else.
//
// It follows HTTPS_PROXY where Node does, which is since 22.21 and 24.0, and when
// NODE_USE_ENV_PROXY=1 is set. For an older Node see node_undici_fetch.mjs.

const args = process.argv.slice(2);
const url = args.find((arg) => !arg.startsWith("-"));
const answer = await fetch(
  url,
  args.includes("--get")
    ? {}
    : {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ video: "intro.mp4" }),
      },
);

const body = await answer.json().catch(() => ({}));
console.log(
  JSON.stringify({
    client: `node ${process.versions.node.split(".")[0]} fetch`,
    status: answer.status,
    attempts: answer.headers.get("samekey-attempts") ?? "",
    stop: answer.headers.get("samekey-stop") ?? "",
    id: body?.id ?? "",
    key: answer.headers.get("idempotency-key") ?? "",
  }),
);
