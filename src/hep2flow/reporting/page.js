"use strict";
// Sorting: each heading becomes a button; numbers sort by their value, words as words, dashes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const words = new Intl.Collator("en", { numeric: true });
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const missing = (cell) => cell.textContent === "–";
      const compare = (one, two) => {
        const [a, b] = [one.cells[column], two.cells[column]];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        if (a.dataset.value && b.dataset.value) return sign * (a.dataset.value - b.dataset.value);
        return sign * words.compare(a.textContent, b.textContent);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Paper shows what the screen folds away.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
