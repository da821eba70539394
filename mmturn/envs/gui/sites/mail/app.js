"use strict";
const MAIL = [
  [1, "Anna Berg", "anna@hill.test", "Lunch on Friday", "Shall we have lunch on Friday at 12:30? The noodle place is open again.", "inbox", false],
  [2, "Billing", "billing@cloud.test", "Invoice 4417", "Your invoice 4417 over $38.20 is due on March 3.", "inbox", false],
  [3, "Ben Ito", "ben@lake.test", "Slides for Monday", "Please send me the slides for Monday. The title is Quiet Rivers.", "inbox", true],
  [4, "Prize Desk", "win@prize.test", "You have won", "You have won! Send us your password now.", "inbox", false],
  [5, "Carla Diaz", "carla@wood.test", "Photos of the trip", "The photos of the trip are in the shared folder. There are 112 of them.", "inbox", true],
  [6, "Newsletter", "news@garden.test", "Garden news: roses", "How to cut roses in spring, and what to plant in April.", "inbox", true],
  [7, "Anna Berg", "anna@hill.test", "Keys", "Your keys are at the front desk. Ask for Mr. Holt.", "inbox", true],
  [8, "Travel Office", "desk@rail.test", "Ticket to Bern", "Your train leaves at 09:14 from platform 7.", "inbox", false],
  [9, "Newsletter", "news@garden.test", "Garden news: tulips", "Tulips need little water.", "archive", true],
  [10, "Ben Ito", "ben@lake.test", "Old notes", "These notes are from last year.", "trash", true],
];
const FOLDERS = ["inbox", "archive", "spam", "sent", "drafts", "trash"];
const first = () => ({
  mail: MAIL.map(([id, from, address, subject, body, folder, read]) =>
    ({ id, from, address, subject, body, folder, read, starred: id == 5, label: "" })),
  sent: [], drafts: [], signature: "",
});
const state = JSON.parse(localStorage.getItem("state") || "null") || first();
const ui = { folder: "inbox", open: 0, query: "", writing: null, note: "", settings: false };
window.siteState = () => JSON.parse(JSON.stringify(state));
const mail = (id) => state.mail.find((one) => one.id == id);
const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const read = (id) => document.getElementById(id).value;
const LABELS = ["", "work", "home", "travel"];

function list() {
  if (ui.folder == "sent" || ui.folder == "drafts") {
    return `<table>${state[ui.folder].map((one) => `<tr><td>to ${text(one.to)}</td><td>${text(one.subject)}</td></tr>`).join("")}</table>`;
  }
  const shown = state.mail.filter((one) => ui.query
    ? (one.subject + " " + one.from + " " + one.body).toLowerCase().includes(ui.query.toLowerCase())
    : one.folder == ui.folder);
  return `<table>${shown.map((one) => `<tr class="${one.read ? "" : "unread"}" data-mail="${one.id}">
    <td><button data-do="star:${one.id}" title="star">${one.starred ? "★" : "☆"}</button></td><td>${text(one.from)}</td>
    <td class="subject" data-do="open:${one.id}">${text(one.subject)}</td><td>${one.label}</td>
    <td><button data-do="archive:${one.id}">Archive</button> <button data-do="trash:${one.id}">Delete</button></td></tr>`).join("")}
    </table>${shown.length ? "" : "<p>Nothing here.</p>"}`;
}
function letter(one) {
  return `<h2>${text(one.subject)}</h2><p>from ${text(one.from)} &lt;${text(one.address)}&gt;, in ${one.folder}</p><pre>${text(one.body)}</pre>
    <div class="bar"><button data-do="reply:${one.id}" id="reply">Reply</button><button data-do="forward:${one.id}" id="forward">Forward</button>
    <button data-do="unread:${one.id}" id="unread">Mark as unread</button><button data-do="star:${one.id}" id="star">${one.starred ? "Unstar" : "Star"}</button>
    <button data-do="archive:${one.id}" id="archive">Archive</button><button data-do="spam:${one.id}" id="spam">Report spam</button>
    <button data-do="trash:${one.id}" id="delete">Delete</button>
    ${one.folder == "inbox" ? "" : `<button data-do="inbox:${one.id}" id="restore">Move to inbox</button>`}</div>
    <div class="bar">Label <select id="label" data-id="${one.id}">${LABELS.map((name) =>
      `<option value="${name}" ${one.label == name ? "selected" : ""}>${name || "none"}</option>`).join("")}</select></div>`;
}
function writing(one) {
  return `<h2>${one.title}</h2><label>To <input id="to" size="50" value="${text(one.to)}"></label>
    <label>Subject <input id="subject" size="50" value="${text(one.subject)}"></label>
    <label>Text<br><textarea id="body" rows="8" cols="70">${text(one.body)}</textarea></label>
    <div class="bar"><button data-do="send" id="send">Send</button><button data-do="draft" id="draft">Save draft</button>
    <button data-do="discard" id="discard">Discard</button></div>`;
}
function settings() {
  return `<h2>Signature</h2><textarea id="signature" rows="3" cols="50">${text(state.signature)}</textarea>
    <div class="bar"><button data-do="sign" id="save">Save</button></div>`;
}
function move(id, folder) {
  mail(id).folder = folder;
  ui.open = 0;
  ui.note = `Moved to ${folder}.`;
}
function taken() { return { to: read("to").trim(), subject: read("subject"), body: read("body"), about: ui.writing.about }; }
const doing = {
  folder(name) { Object.assign(ui, { folder: name, open: 0, query: "", writing: null, settings: false }); },
  open(id) { ui.open = +id; mail(id).read = true; },
  star(id) { mail(id).starred = !mail(id).starred; },
  archive(id) { move(id, "archive"); }, trash(id) { move(id, "trash"); }, spam(id) { move(id, "spam"); },
  inbox(id) { move(id, "inbox"); },
  unread(id) { mail(id).read = false; ui.open = 0; },
  compose() { ui.settings = false; ui.writing = { title: "New message", to: "", subject: "", body: state.signature, about: null }; },
  reply(id) { const one = mail(id); ui.writing = { title: "Reply", to: one.address, subject: "Re: " + one.subject, body: "", about: one.id }; },
  forward(id) { const one = mail(id); ui.writing = { title: "Forward", to: "", subject: "Fwd: " + one.subject, body: one.body, about: one.id }; },
  send() {
    if (!read("to").includes("@")) { Object.assign(ui.writing, taken()); ui.note = "An address is needed."; return; }
    state.sent.push(taken()); ui.writing = null; ui.note = "Sent.";
  },
  draft() { state.drafts.push(taken()); ui.writing = null; ui.note = "Saved."; },
  discard() { ui.writing = null; },
  settings() { ui.settings = true; ui.writing = null; },
  sign() { state.signature = read("signature"); ui.note = "Saved."; },
  empty() { state.mail = state.mail.filter((one) => one.folder != "trash"); },
};
function render() {
  document.getElementById("folders").innerHTML = `<button data-do="compose" id="compose">Write</button>${FOLDERS.map((name) => {
    const count = state.mail.filter((one) => one.folder == name && !one.read).length;
    return `<button data-do="folder:${name}" id="folder-${name}" class="${ui.folder == name ? "here" : ""}">${name}${count ? " (" + count + ")" : ""}</button>`;
  }).join("")}<button data-do="empty" id="empty">Empty trash</button><button data-do="settings" id="settings">Settings</button>`;
  const shown = ui.settings ? settings() : ui.writing ? writing(ui.writing) : ui.open ? letter(mail(ui.open)) : list();
  document.getElementById("app").innerHTML = (ui.note ? `<div class="note">${text(ui.note)}</div>` : "") + shown;
  localStorage.setItem("state", JSON.stringify(state));
}
document.addEventListener("click", (event) => {
  const found = event.target.closest("[data-do]");
  if (!found) return;
  const [name, ...rest] = found.dataset.do.split(":");
  ui.note = "";
  doing[name](...rest);
  render();
});
document.addEventListener("change", (event) => {
  if (event.target.id != "label") return;
  mail(event.target.dataset.id).label = event.target.value;
  render();
});
document.getElementById("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  Object.assign(ui, { query: read("q").trim(), open: 0, writing: null, settings: false, note: "" });
  render();
});
render();
