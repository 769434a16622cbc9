// The same with Node before 22.21: its fetch knows no proxy, and these two lines
// of undici's are how programs for it come to follow HTTPS_PROXY at all.

import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());

await import("./node_fetch.mjs");
