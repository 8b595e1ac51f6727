/* What the page has under `cnnviz`: `put` for its data files, and the rest for whoever opens its console. */

import { decodeAtlas, value } from "./data/atlas";
import { difference } from "./data/difference";
import { Payloads, putPayload } from "./data/payloads";
import { readTensors } from "./data/tensors";
import { rangeOf } from "./drawing/ranges";
import { Wall } from "./drawing/wall";

export const library = { put: putPayload, Payloads, decodeAtlas, readTensors, value, difference, rangeOf, Wall };

Object.assign(globalThis, { cnnviz: library });
