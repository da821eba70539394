"use strict";
const PRODUCTS = [
  [1, "Desk Lamp", "home", 24.5, 4.4, 12], [2, "Floor Lamp", "home", 59, 4.1, 5],
  [3, "Coffee Mug", "kitchen", 7.5, 4.8, 80], [4, "Tea Pot", "kitchen", 18, 4.2, 9],
  [5, "Chef Knife", "kitchen", 42, 4.7, 7], [6, "Notebook", "office", 3.2, 4.0, 200],
  [7, "Fountain Pen", "office", 31, 4.6, 14], [8, "Stapler", "office", 9.9, 3.7, 33],
  [9, "Running Shoes", "sport", 89, 4.3, 11], [10, "Yoga Mat", "sport", 27, 4.5, 21],
  [11, "Water Bottle", "sport", 12, 4.9, 45], [12, "Wool Blanket", "home", 48, 4.6, 0],
].map(([id, name, category, price, rating, stock]) => ({ id, name, category, price, rating, stock }));
const first = () => ({
  cart: [], wishlist: [2], coupon: null, orders: [
    { id: 1001, items: [{ id: 3, quantity: 2 }], total: 15, status: "delivered", city: "Bern" },
    { id: 1002, items: [{ id: 9, quantity: 1 }], total: 89, status: "shipped", city: "Basel" },
  ], reviews: [],
});
const state = JSON.parse(localStorage.getItem("state") || "null") || first();
const ui = { page: "home", query: "", category: "all", sort: "name", product: 0, note: "" };
window.siteState = () => JSON.parse(JSON.stringify(state));
const product = (id) => PRODUCTS.find((one) => one.id == id);
const money = (x) => "$" + x.toFixed(2);
const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const read = (id) => document.getElementById(id).value.trim();
const options = (all, chosen) => all.map(([value, label]) =>
  `<option value="${value}" ${value == chosen ? "selected" : ""}>${label}</option>`).join("");

const pages = {
  home() {
    const shown = PRODUCTS.filter((one) => (ui.category == "all" || one.category == ui.category) &&
      one.name.toLowerCase().includes(ui.query.toLowerCase()));
    shown.sort({ name: (a, b) => a.name.localeCompare(b.name), cheap: (a, b) => a.price - b.price,
      dear: (a, b) => b.price - a.price, rating: (a, b) => b.rating - a.rating }[ui.sort]);
    return `<div class="bar">Category <select id="category">${options([["all", "All"], ["home", "Home"],
      ["kitchen", "Kitchen"], ["office", "Office"], ["sport", "Sport"]], ui.category)}</select>
      Sort by <select id="sort">${options([["name", "Name"], ["cheap", "Price, low first"], ["dear", "Price, high first"],
      ["rating", "Rating"]], ui.sort)}</select> <span class="muted">${shown.length} products</span></div>
      <div class="grid">${shown.map((one) => `<div class="card"><h3><a href="#" data-do="open:${one.id}">${one.name}</a></h3>
      <div>${money(one.price)} <span class="muted">rated ${one.rating}</span></div>
      <div class="muted">${one.stock ? one.stock + " in stock" : "sold out"}</div>
      <button data-do="add:${one.id}" ${one.stock ? "" : "disabled"}>Add to cart</button></div>`).join("")}</div>`;
  },
  product() {
    const one = product(ui.product), listed = state.wishlist.includes(one.id);
    return `<h2>${one.name}</h2><p>${money(one.price)} &middot; rated ${one.rating} &middot; category ${one.category}
      &middot; ${one.stock ? one.stock + " in stock" : "sold out"}</p>
      <label>Quantity <input id="quantity" type="number" min="1" max="99" value="1" style="width:80px"></label>
      <button data-do="addmany:${one.id}" ${one.stock ? "" : "disabled"}>Add to cart</button>
      <button data-do="wish:${one.id}">${listed ? "Remove from wishlist" : "Add to wishlist"}</button>
      <h3>Write a review</h3><label>Stars <select id="stars">${options([1, 2, 3, 4, 5].map((n) => [n, n]), 5)}</select></label>
      <label>Words <br><textarea id="words" rows="3" cols="50"></textarea></label>
      <button data-do="review:${one.id}">Send review</button>`;
  },
  cart() {
    if (!state.cart.length) return "<p>Your cart is empty.</p>";
    const sum = total();
    return `<table><tr><th>Product</th><th>Quantity</th><th>Price</th><th></th></tr>${state.cart.map((line) =>
      `<tr><td>${product(line.id).name}</td><td><button data-do="less:${line.id}">-</button> ${line.quantity}
      <button data-do="more:${line.id}">+</button></td><td>${money(product(line.id).price * line.quantity)}</td>
      <td><button data-do="remove:${line.id}">Remove</button></td></tr>`).join("")}</table>
      <p>Total <b id="total">${money(sum)}</b> ${state.coupon ? "with coupon " + state.coupon : ""}</p>
      <div class="bar"><input id="coupon" placeholder="Coupon code"><button data-do="coupon" id="apply">Apply</button></div>
      <button data-do="show:checkout" id="checkout">Check out</button>`;
  },
  checkout() {
    return `<h2>Check out</h2><label>Name <input id="name"></label><label>City <input id="city"></label>
      <label>Shipping <select id="shipping">${options([["standard", "Standard"], ["express", "Express"],
      ["pickup", "Pick up"]], "standard")}</select></label>
      <label><input type="checkbox" id="gift"> Wrap as a gift</label>
      <button data-do="order" id="place">Place order</button>`;
  },
  wishlist() {
    return state.wishlist.length ? `<div class="grid">${state.wishlist.map((id) => `<div class="card"><h3>${product(id).name}</h3>
      <button data-do="wish:${id}">Remove</button> <button data-do="add:${id}">Add to cart</button></div>`).join("")}</div>`
      : "<p>Your wishlist is empty.</p>";
  },
  orders() {
    return `<table><tr><th>Order</th><th>Products</th><th>Total</th><th>City</th><th>Status</th><th></th></tr>${
      state.orders.map((one) => `<tr><td>${one.id}</td><td>${one.items.map((line) => line.quantity + " x " +
      product(line.id).name).join(", ")}</td><td>${money(one.total)}</td><td>${text(one.city)}</td><td>${one.status}</td>
      <td>${one.status == "shipped" || one.status == "placed" ? `<button data-do="cancel:${one.id}">Cancel</button>` : ""}
      <button data-do="again:${one.id}">Order again</button></td></tr>`).join("")}</table>`;
  },
};
function total() {
  const sum = state.cart.reduce((all, line) => all + product(line.id).price * line.quantity, 0);
  return Math.round(sum * (state.coupon == "SAVE10" ? 0.9 : 1) * 100) / 100;
}
function add(id, quantity) {
  const line = state.cart.find((one) => one.id == id);
  if (line) line.quantity += quantity; else state.cart.push({ id: +id, quantity });
  ui.note = `${product(id).name} is in the cart.`;
}
const doing = {
  show(page) { ui.page = page; if (page == "home") { ui.query = ""; document.getElementById("q").value = ""; } },
  open(id) { ui.page = "product"; ui.product = +id; },
  add(id) { add(id, 1); },
  addmany(id) { add(id, Math.max(1, Math.min(99, parseInt(read("quantity")) || 1))); },
  wish(id) {
    state.wishlist = state.wishlist.includes(+id) ? state.wishlist.filter((one) => one != id) : [...state.wishlist, +id];
  },
  review(id) { state.reviews.push({ id: +id, stars: +read("stars"), words: read("words") }); ui.note = "Thank you."; },
  less(id) { const line = state.cart.find((one) => one.id == id); line.quantity -= 1; if (!line.quantity) doing.remove(id); },
  more(id) { state.cart.find((one) => one.id == id).quantity += 1; },
  remove(id) { state.cart = state.cart.filter((one) => one.id != id); },
  coupon() {
    const code = read("coupon").toUpperCase();
    if (code == "SAVE10") state.coupon = code; else ui.note = "There is no such coupon.";
  },
  order() {
    if (!read("name") || !read("city")) { ui.note = "Name and city are needed."; return; }
    state.orders.push({ id: 1001 + state.orders.length, items: state.cart, total: total(), status: "placed", name: read("name"),
      city: read("city"), shipping: read("shipping"), gift: document.getElementById("gift").checked });
    state.cart = []; state.coupon = null; ui.page = "orders"; ui.note = "Your order is placed.";
  },
  cancel(id) { state.orders.find((one) => one.id == id).status = "cancelled"; },
  again(id) { for (const line of state.orders.find((one) => one.id == id).items) add(line.id, line.quantity); },
};
function render() {
  document.getElementById("app").innerHTML = (ui.note ? `<div class="note">${text(ui.note)}</div>` : "") + pages[ui.page]();
  const count = state.cart.reduce((all, line) => all + line.quantity, 0);
  document.getElementById("nav-cart").textContent = `Cart (${count})`;
  localStorage.setItem("state", JSON.stringify(state));
}
document.addEventListener("click", (event) => {
  const found = event.target.closest("[data-do]");
  if (!found) return;
  event.preventDefault();
  const [name, ...rest] = found.dataset.do.split(":");
  ui.note = "";
  doing[name](...rest);
  render();
});
document.addEventListener("change", (event) => {
  if (!["category", "sort"].includes(event.target.id)) return;
  ui[event.target.id] = event.target.value;
  render();
});
document.getElementById("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ui.query = read("q"); ui.page = "home"; ui.note = "";
  render();
});
render();
