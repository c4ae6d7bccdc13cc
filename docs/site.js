// What the theme leaves out for those who use a keyboard or a screen reader: a name for the search, a stop at each wide table.
window.addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const one of document.querySelectorAll(".md-typeset__scrollwrap")) one.tabIndex = 0;
});
