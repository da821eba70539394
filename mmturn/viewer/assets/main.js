// Puts the page together.

const page = document.getElementById("page");
page.append(el("header", "top", el("h1", "", words("", data.title)), data.note ? el("p", "note", words("", data.note)) : ""));
if (data.report) {
  buildReport(page, data.report);
  if (everything.length) page.append(el("h2", "first", "Trajectories"));
}
buildSections(page);
showNear();
