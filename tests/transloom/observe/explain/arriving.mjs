// A page that opens at a box of its figure, in a frame of a notebook. Argument 1 is the file of the page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { click, open, tell, until } from "../../../support/page_in_node.mjs";

const document = open(process.argv[2], { fragment: "#box-decoder.last_norm", protocol: "about:" });
const isSame = (node, other) => assert.ok(node === other, `${node?.outerHTML?.slice(0, 200)}`);
const here = () => document.querySelector("main > section.here").id;

test("the page opens at the part that shows the box, once its sections are there", async () => {
  await until(() => here() !== "section-1");
  assert.equal(document.scrolledTo.id, `${here()}-next`);
  isSame(document.activeElement, document.body); // a page that opens does not take the focus
});

test("in a frame, links lead to places of the page and not of the notebook", async () => {
  const link = document.querySelector('nav a[href="#section-2"]');
  click(link.firstChild);
  await until(() => here() === "section-2");
  assert.equal(location.hash, "#section-2");
  assert.equal(tell(link, "click"), false);
  assert.equal(tell(document.querySelector("h1"), "click"), true);
});
