// One payment intent with Stripe's own SDK; `--fetch` is what a program has to add to follow HTTPS_PROXY.

import Stripe from "stripe";
import { say } from "./said.mjs";

const url = new URL(process.argv.at(-1));
const httpClient = process.argv.includes("--fetch") ? Stripe.createFetchHttpClient() : undefined;
const at = { protocol: url.protocol.slice(0, -1), host: url.hostname, port: url.port };
const stripe = new Stripe("sk_test_1", { ...at, httpClient });
const intent = await stripe.paymentIntents.create({ amount: 1000, currency: "usd" });
const { headers, statusCode } = intent.lastResponse;
// What fetch gives is no plain object.
say("stripe", statusCode, (name) => headers.get?.(name) ?? headers[name], intent);
