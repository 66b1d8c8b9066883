// A page whose recorded numbers cannot be unpacked. Argument 1 is the file of the page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, textOf, until } from "../../../support/page_in_node.mjs";

delete globalThis.DecompressionStream;
const document = open(process.argv[2]);

test("a browser that cannot unpack the numbers says so", async () => {
  const note = await until(() => document.querySelector('[data-walk="before"] [role="note"]'));
  assert.match(textOf(note), /cannot unpack/);
  assert.equal(document.querySelectorAll("main > section.drawn").length, 0);
});
