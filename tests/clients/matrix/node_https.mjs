// One POST with Node's own https module, or http where the URL says so.

import http from "node:http";
import https from "node:https";
import { order, say } from "./said.mjs";

const url = new URL(process.argv[2]);
const headers = { "Content-Type": "application/json", "Content-Length": order.length };
const module = url.protocol === "https:" ? https : http;
const request = module.request(url, { method: "POST", headers }, async (answer) => {
  const text = (await answer.setEncoding("utf8").toArray()).join("");
  say("https", answer.statusCode, (name) => answer.headers[name], JSON.parse(text));
});
request.end(order);
