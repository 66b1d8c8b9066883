/* What Material for MkDocs makes while a page is shown, for keyboards and screen readers. */
new MutationObserver(() => {
  // Tables that are wider than the screen scroll.
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
  // The buttons of a code block are no landmark.
  for (const buttons of document.querySelectorAll(".md-code__nav")) buttons.role = "none";
}).observe(document.body, { childList: true, subtree: true });
