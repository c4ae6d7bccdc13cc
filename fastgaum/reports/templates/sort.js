// Tables of the class "sortable": each heading becomes a button that sorts by its column, up, then down.
// A cell sorts by its data-value where it has one, else by its text. Without this script the tables are as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const key = (row, i) => row.cells[i]?.dataset.value ?? row.cells[i]?.textContent.trim() ?? "";
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no figure stays last
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b, undefined, { numeric: true }) : difference;
  };
  [...table.tHead.rows[0].cells].forEach((heading, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        return x === "" || y === "" || up ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
    });
  });
}
