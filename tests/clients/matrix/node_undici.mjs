// One POST with undici; the dispatcher is what a program has to add to follow HTTPS_PROXY.

import { EnvHttpProxyAgent, request, setGlobalDispatcher } from "undici";
import { order, say } from "./said.mjs";

setGlobalDispatcher(new EnvHttpProxyAgent());
const headers = { "Content-Type": "application/json" };
const answer = await request(process.argv[2], { method: "POST", headers, body: order });
say("undici", answer.statusCode, (name) => answer.headers[name], await answer.body.json());
