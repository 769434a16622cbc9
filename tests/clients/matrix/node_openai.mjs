// One chat completion with OpenAI's own SDK; the URL is that of `/v1`.

import OpenAI from "openai";
import { say } from "./said.mjs";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-test" });
const messages = [{ role: "user", content: "A title for intro.mp4" }];
const asked = client.chat.completions.create({ model: "test", messages });
const { data, response } = await asked.withResponse();
say("openai", response.status, (name) => response.headers.get(name), data);
