"use strict";
const first = () => ({
  profile: { name: "Robin Vale", email: "robin@vale.test", language: "en", bio: "" },
  notifications: { email: true, push: false, sms: false, digest: "weekly" },
  privacy: { visibility: "friends", searchable: true, history: true },
  display: { theme: "light", size: 14, contrast: false, zone: "UTC" },
  security: { two_factor: false, password_changes: 0, timeout: 30 },
  devices: [{ id: "laptop", name: "Laptop" }, { id: "phone", name: "Old phone" }, { id: "tablet", name: "Tablet" }],
  storage: { cache_mb: 320, downloads_mb: 1210 },
});
const state = JSON.parse(localStorage.getItem("state") || "null") || first();
const ui = { section: "profile", note: "", asking: null };
window.siteState = () => JSON.parse(JSON.stringify(state));
const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const at = (id) => document.getElementById(id);
const box = (id, label, on) => `<label><input type="checkbox" id="${id}" ${on ? "checked" : ""}> ${label}</label>`;
const choice = (id, all, chosen) => `<select id="${id}">${all.map(([value, label]) =>
  `<option value="${value}" ${value == chosen ? "selected" : ""}>${label}</option>`).join("")}</select>`;
const save = '<button data-do="save" id="save">Save</button>';
const LANGUAGES = [["en", "English"], ["de", "Deutsch"], ["fr", "Français"], ["ja", "日本語"]];
const ZONES = [["UTC", "UTC"], ["Europe/Zurich", "Zurich"], ["Asia/Tokyo", "Tokyo"], ["America/Lima", "Lima"]];

const sections = {
  profile: {
    title: "Profile",
    view: (s) => `<label>Name <input id="name" value="${text(s.name)}"></label><label>E-mail <input id="email" size="30" value="${text(s.email)}"></label>
      <label>Language ${choice("language", LANGUAGES, s.language)}</label><label>About you <input id="bio" size="50" value="${text(s.bio)}"></label>${save}`,
    take() {
      if (!at("email").value.includes("@")) return "This is no e-mail address.";
      return { name: at("name").value, email: at("email").value, language: at("language").value, bio: at("bio").value };
    },
  },
  notifications: {
    title: "Notifications",
    view: (s) => `${box("email", "By e-mail", s.email)}${box("push", "On the phone", s.push)}${box("sms", "By text message", s.sms)}
      <label>Digest ${choice("digest", [["daily", "Daily"], ["weekly", "Weekly"], ["never", "Never"]], s.digest)}</label>${save}`,
    take: () => ({ email: at("email").checked, push: at("push").checked, sms: at("sms").checked, digest: at("digest").value }),
  },
  privacy: {
    title: "Privacy",
    view: (s) => `<fieldset><legend>Who sees your page</legend>${["everyone", "friends", "nobody"].map((who) =>
      `<label><input type="radio" name="visibility" id="to-${who}" value="${who}" ${s.visibility == who ? "checked" : ""}> ${who}</label>`).join("")}</fieldset>
      ${box("searchable", "Let search engines find me", s.searchable)}${box("history", "Keep my history", s.history)}${save}`,
    take: () => ({ visibility: document.querySelector("[name=visibility]:checked").value, searchable: at("searchable").checked,
      history: at("history").checked }),
  },
  display: {
    title: "Display",
    view: (s) => `<label>Theme ${choice("theme", [["light", "Light"], ["dark", "Dark"], ["sepia", "Sepia"]], s.theme)}</label>
      <label>Text size <input type="range" id="size" min="10" max="24" step="1" value="${s.size}"> <b id="size-now">${s.size}</b></label>
      ${box("contrast", "High contrast", s.contrast)}<label>Time zone ${choice("zone", ZONES, s.zone)}</label>${save}`,
    take: () => ({ theme: at("theme").value, size: +at("size").value, contrast: at("contrast").checked, zone: at("zone").value }),
  },
  security: {
    title: "Security",
    view: (s) => `${box("two_factor", "Ask for a code at sign-in", s.two_factor)}
      <label>Sign out after <input type="number" id="timeout" min="5" max="240" value="${s.timeout}"> minutes</label>${save}
      <h3>New password</h3><label>Password <input type="password" id="password"></label><label>Again <input type="password" id="again"></label>
      <button data-do="password" id="change">Change password</button>`,
    take() {
      const minutes = parseInt(at("timeout").value);
      if (!(minutes >= 5 && minutes <= 240)) return "From 5 to 240 minutes.";
      return { two_factor: at("two_factor").checked, timeout: minutes };
    },
  },
  devices: {
    title: "Devices",
    view: () => `<table>${state.devices.map((one) => `<tr><td>${one.name}</td><td><button data-do="ask:device:${one.id}" id="out-${one.id}">Sign out</button></td></tr>`).join("")}</table>`,
  },
  storage: {
    title: "Storage",
    view: (s) => `<p>Cache: ${s.cache_mb} MB <button data-do="ask:cache" id="clear-cache">Clear</button></p>
      <p>Downloads: ${s.downloads_mb} MB <button data-do="ask:downloads" id="clear-downloads">Clear</button></p>
      <p><button data-do="ask:reset" id="reset">Reset all settings</button></p>`,
  },
};
const doing = {
  section(name) { ui.section = name; },
  save() {
    const taken = sections[ui.section].take();
    if (typeof taken == "string") { ui.note = taken; return; }
    Object.assign(state[ui.section], taken);
    ui.note = "Saved.";
  },
  password() {
    if (at("password").value.length < 8) ui.note = "At least 8 characters.";
    else if (at("password").value != at("again").value) ui.note = "The passwords differ.";
    else { state.security.password_changes += 1; ui.note = "The password is changed."; }
  },
  ask(what, id) { ui.asking = { what, id }; },
  no() { ui.asking = null; },
  yes() {
    const { what, id } = ui.asking;
    ui.asking = null;
    if (what == "device") state.devices = state.devices.filter((one) => one.id != id);
    else if (what == "reset") Object.assign(state, first());
    else state.storage[what + "_mb"] = 0;
    ui.note = "Done.";
  },
};
function render() {
  at("sections").innerHTML = Object.entries(sections).map(([name, one]) =>
    `<button data-do="section:${name}" id="go-${name}" class="${ui.section == name ? "here" : ""}">${one.title}</button>`).join("");
  const one = sections[ui.section];
  const question = ui.asking ? `<div class="note">Are you sure? <button data-do="yes" id="yes">Yes</button> <button data-do="no" id="no">No</button></div>` : "";
  at("app").innerHTML = `<h2>${one.title}</h2>${ui.note ? `<div class="note">${text(ui.note)}</div>` : ""}${question}${one.view(state[ui.section])}`;
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
document.addEventListener("input", (event) => { if (event.target.id == "size") at("size-now").textContent = event.target.value; });
render();
