// Waits until every figure is drawn, asks each for its marks, points at one, and writes what it saw.
let alerts = 0;
window.alert = () => { alerts += 1; };
const sleep = time => new Promise(done => setTimeout(done, time));

// What plotly's own schema says against a figure. plotly.js' own check takes no colour axis for valid.
function errors(section) {
  const stored = section.querySelector("script.thalweg-plotly");
  if (!stored) return [];
  const figure = JSON.parse(stored.textContent);
  // It does not read numbers stored as bytes either, which the drawing shows to be right.
  const plain = value => value && value.bdata ? [0] : value;
  const data = figure.data.map(trace => ({ ...trace, x: plain(trace.x), y: plain(trace.y), z: plain(trace.z) }));
  data.forEach(trace => ["x", "y", "z"].forEach(key => trace[key] === undefined && delete trace[key]));
  const found = window.Plotly.validate(data, figure.layout) || [];
  const colors = error => error.path[0] === "coloraxis" && /^coloraxis\d*$/.test(figure[error.container][error.trace].coloraxis);
  // What a button does is kept as it is, and so differs from its copy.
  const args = error => error.path.includes("args");
  return found.filter(error => error.code !== "unused" && !colors(error) && !args(error)).map(error => error.msg);
}

// Numbers that are drawn by traces that can be seen.
function marks(plot) {
  const length = list => [...(list || [])].filter(value => value !== null && !Number.isNaN(value)).length;
  const count = trace => {
    if (trace.visible !== true || trace.hoverinfo === "skip") return 0;
    if (trace.type === "heatmap") return [...trace.z].reduce((sum, row) => sum + length(row), 0);
    return length(trace.y);
  };
  return plot._fullData.reduce((sum, trace) => sum + count(trace), 0);
}

// Moves the mouse to the second mark of the first trace, and reads what appears.
async function pointAt(plot) {
  const trace = plot._fullData.find(trace => trace.visible === true && trace.hoverinfo !== "skip");
  const number = axis => (axis || "x").slice(1);
  const layout = plot._fullLayout;
  const [x, y] = [layout["xaxis" + number(trace.xaxis)], layout["yaxis" + number(trace.yaxis)]];
  const inside = trace.type === "bar" ? 0.5 : 1; // a bar is pointed at in its middle
  const lies = trace.orientation === "h";
  const at = trace.type === "heatmap" ? [1, 1] : [trace.x[1] * (lies ? inside : 1), trace.y[1] * (lies ? 1 : inside)];
  const box = plot.getBoundingClientRect();
  const drag = plot.querySelector(`.nsewdrag[data-subplot="${x._id}${y._id}"]`);
  const place = { clientX: box.left + x._offset + x.d2p(at[0]), clientY: box.top + y._offset + y.d2p(at[1]), bubbles: true };
  for (const kind of ["mouseover", "mousemove"]) drag.dispatchEvent(new MouseEvent(kind, place));
  await sleep(300);
  return [...plot.querySelectorAll(".hoverlayer text")].map(text => text.textContent).join(" ");
}

// Does what the first button of a menu or step of a slider that is not active does, and back.
async function chooseAnother(plot, seen) {
  const control = (plot._fullLayout.updatemenus || plot._fullLayout.sliders || [])[0];
  if (!control) return;
  const steps = control.buttons || control.steps, other = steps.findIndex((_, i) => i !== control.active);
  const bar = () => plot._fullLayout.coloraxis && plot._fullLayout.coloraxis.colorbar.title.text;
  const drawn = () => [...plot.querySelectorAll(".hm image, .points path")].length;
  const [count, title, before] = [marks(plot), bar(), drawn()];
  await window.Plotly.update(plot, ...steps[other].args);
  if (marks(plot) === 0 || drawn() === 0) seen.errors.push("the other choice draws nothing");
  if (control.buttons && bar() === title) seen.errors.push("the colour bar is still " + title);
  await window.Plotly.update(plot, ...steps[control.active].args);
  if (marks(plot) !== count || bar() !== title || drawn() !== before) seen.errors.push("the way back leads elsewhere");
}

// Locks the last head, passes over another, then points at a cell of the large picture.
async function lookInto(viewer) {
  const heads = [...viewer.querySelectorAll(".thalweg-head")];
  heads[heads.length - 1].click();
  heads[0].dispatchEvent(new MouseEvent("mouseenter"));
  const big = viewer.querySelector(":scope > canvas"), box = big.getBoundingClientRect();
  const picture = big.getContext("2d").getImageData(0, 0, big.width, big.height).data;
  if (!picture.some((byte, i) => i % 4 < 3 && byte < 100)) return { errors: ["the large picture is empty"] };
  const side = 26 * box.width / (big.width / 2), left = box.width - 8 - side * 6;
  const place = { clientX: box.left + left + 0.5 * side, clientY: box.top + left + 1.5 * side };
  big.dispatchEvent(new MouseEvent("mousemove", place));
  const hover = viewer.querySelector(".thalweg-status").textContent;
  const words = [...viewer.querySelectorAll(".thalweg-word")];
  words[3].dispatchEvent(new MouseEvent("mouseenter"));
  const later = words[4].title.endsWith("not seen") ? [] : ["a later token is seen"];
  return { errors: later, marks: heads.length, hover };
}

// Moves the slider to 20 links, and counts those that can be seen.
async function thinOut(graph) {
  const slider = graph.querySelector("input");
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  const seen = [...graph.querySelectorAll("path[data-weight]")].filter(link => link.getBoundingClientRect().height > 0);
  return { errors: [], marks: seen.length, hover: seen[0].querySelector("title").textContent };
}

async function look(section) {
  const plot = section.querySelector(".js-plotly-plot");
  if (plot) {
    const seen = { errors: errors(section), marks: marks(plot), hover: await pointAt(plot) };
    await chooseAnother(plot, seen);
    return seen;
  }
  const viewer = section.querySelector(".thalweg-attention");
  if (viewer) return lookInto(viewer);
  const graph = section.querySelector(".thalweg-graph");
  if (graph) return thinOut(graph);
  const spans = [...section.querySelectorAll(".thalweg-text span[title]")];
  return { errors: [], marks: spans.length, hover: spans.length ? spans[1].title : "" };
}

window.addEventListener("load", async () => {
  const wanted = () => [...document.querySelectorAll(".thalweg-figure")].every(box => box.dataset.state === "plotly");
  for (let i = 0; i < 100 && !wanted(); i++) await sleep(100);
  await sleep(500);
  const seen = { version: window.Plotly.version };
  for (const section of document.querySelectorAll("section")) seen[section.id] = await look(section);
  seen.alerts = alerts;
  const note = document.createElement("pre");
  note.style.display = "none";
  note.textContent = "thalweg-seen " + JSON.stringify(seen);
  document.body.append(note);
});
