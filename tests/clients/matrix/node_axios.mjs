// One POST with axios.

import axios from "axios";
import { say } from "./said.mjs";

const answer = await axios.post(process.argv[2], { video: "intro.mp4" });
say("axios", answer.status, (name) => answer.headers[name], answer.data);
