"use strict";
// Texts of models and annotators reach the page through textContent alone: nothing here builds HTML from strings.

const read = (id) => JSON.parse(document.getElementById(id).textContent);

for (const [name, figure] of Object.entries(read("figures"))) {
  Plotly.newPlot(`plot-${name}`, figure.data, figure.layout, { responsive: true, displaylogo: false });
}

const sets = read("items");
const PAGE_SIZE = 10;
const $ = (id) => document.getElementById(id);

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function fill(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => {
    const option = element("option", "", text);
    option.value = value;
    return option;
  }));
  if (chosen !== undefined) select.value = chosen;
}

function kl(p, q) {
  return p.reduce((sum, x, k) => sum + (x > 0 ? x * Math.log(x / Math.max(q[k], 1e-300)) : 0), 0);
}

const entropy = (p) => p.reduce((sum, x) => sum - (x > 0 ? x * Math.log(x) : 0), 0);
const argmax = (p) => p.indexOf(Math.max(...p));

let page = 0;
let set;
let judge;

function chooseSet() {
  set = sets[Number($("set").value)];
  fill($("judge"), set.judges.map((name, i) => [String(i), name]), String(set.chosen));
  const labels = set.labels.map((label, k) => [String(k), label]);
  fill($("majority"), [["", "any"], ...labels]);
  fill($("judged"), [["", "any"], ...labels]);
  const counts = new Map();
  for (const item of set.items) counts.set(item.group, (counts.get(item.group) || 0) + 1);
  const groups = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  fill($("group"), [["", "any"], ...groups.map(([name, n], i) => [String(i), `${name.slice(0, 60)} (${n})`])]);
  $("group").names = groups.map(([name]) => name);
  $("low").value = $("high").value = "";
  show(true);
}

function chosenItems() {
  judge = Number($("judge").value);
  const text = $("search").value.toLowerCase();
  const low = $("low").value === "" ? -Infinity : Number($("low").value);
  const high = $("high").value === "" ? Infinity : Number($("high").value);
  const group = $("group").value === "" ? null : $("group").names[Number($("group").value)];
  const rows = set.items.map((item) => {
    const q = item.q[judge];
    return { item, q, kl: kl(item.p, q), entropy: entropy(item.p) };
  }).filter(({ item, q, entropy }) =>
    ($("majority").value === "" || argmax(item.p) === Number($("majority").value)) &&
    ($("judged").value === "" || argmax(q) === Number($("judged").value)) &&
    entropy >= low && entropy <= high &&
    (group === null || item.group === group) &&
    (text === "" || item.id.toLowerCase().includes(text) ||
      item.prompt.some((message) => message.content.toLowerCase().includes(text))));
  const orders = {
    worst: (a, b) => b.kl - a.kl,
    best: (a, b) => a.kl - b.kl,
    disputed: (a, b) => b.entropy - a.entropy,
    id: (a, b) => (a.item.id < b.item.id ? -1 : 1),
  };
  return rows.sort(orders[$("sort").value]);
}

function bar(kind, value) {
  const node = element("div", `bar ${kind}`);
  const block = element("i");
  block.style.width = `${78 * value}%`;
  node.append(block, element("span", "", value.toFixed(2)));
  return node;
}

function card({ item, q, kl, entropy }) {
  const node = element("article", "item");
  const title = element("h3", "", item.id);
  title.append(
    element("span", "", `KL ${kl.toFixed(3)}`), element("span", "", `entropy ${entropy.toFixed(2)}`),
    element("span", "", `${item.n} annotator${item.n === 1 ? "" : "s"}`));
  const prompt = element("div", "prompt");
  for (const message of item.prompt) {
    prompt.append(element("b", "", message.role), document.createTextNode(message.content));
  }
  const bars = element("div", "bars");
  const key = element("div", "key");
  for (const [kind, name] of [["human", "annotators"], ["judge", set.judges[judge]]]) {
    const entry = element("span", kind);
    entry.append(element("i"), document.createTextNode(name));
    key.append(entry);
  }
  bars.append(key);
  set.labels.forEach((label, k) => {
    const pair = element("div", "pair");
    pair.append(bar("human", item.p[k]), bar("judge", q[k]));
    bars.append(element("div", "name", label), pair);
  });
  node.append(title, prompt, bars);
  return node;
}

function show(first) {
  if (first) page = 0;
  const rows = chosenItems();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
  page = Math.min(Math.max(page, 0), pages - 1);
  $("list").replaceChildren(...rows.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map(card));
  const mean = rows.length ? rows.reduce((sum, row) => sum + row.kl, 0) / rows.length : NaN;
  $("count").textContent = rows.length
    ? `${rows.length.toLocaleString("en")} of ${set.items.length.toLocaleString("en")} items, mean KL ` +
      `${mean.toFixed(3)}; page ${page + 1} of ${pages}`
    : "No item matches.";
  $("previous").disabled = page === 0;
  $("next").disabled = page >= pages - 1;
}

if (sets.length) {
  fill($("set"), sets.map((entry, i) => [String(i), entry.name]), "0");
  $("set").addEventListener("change", chooseSet);
  for (const id of ["judge", "majority", "judged", "group", "sort"]) $(id).addEventListener("change", () => show(true));
  for (const id of ["low", "high", "search"]) $(id).addEventListener("input", () => show(true));
  $("previous").addEventListener("click", () => { page -= 1; show(false); });
  $("next").addEventListener("click", () => { page += 1; show(false); });
  chooseSet();
}
document.body.dataset.ready = "true";
