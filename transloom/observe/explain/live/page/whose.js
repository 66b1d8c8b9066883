"use strict";
// The other sections show the sentence for which the page was made. As long as another one is typed,
// each of them says so, and leads to the numbers of that one. A section about something else has the
// attribute data-whose.

// `own` and `typed` are {sentence, tag}.
function sayWhose(own, typed) {
  const others = own.sentence !== typed.sentence || own.tag !== typed.tag;
  for (const section of document.querySelectorAll("main > section:not([data-whose])")) {
    section.querySelector(":scope > .whose")?.remove();
    if (!others) continue;
    const first = section.querySelector(":scope > .first-screen"); // shows the typed sentence
    if (first) first.after(whoseNote(own, typed, "The rest of this section"));
    else section.querySelector("h1").before(whoseNote(own, typed, "This section"));
  }
}

function whoseNote(own, typed, what) {
  const quoted = ({ sentence, tag }) =>
    ["“", element("bdi", {}, visibleText(sentence)), "”", tag ? ` (${tag})` : ""];
  return element("p", { class: "whose", role: "note" },
    `${what} is about `, ...quoted(own), ", the sentence of this page. The section ",
    element("a", { href: "#live" }, "Your sentence"), " shows the numbers of ", ...quoted(typed), ".");
}
