(function () {
  "use strict";
  var root = document.currentScript.parentElement;
  var data = JSON.parse(root.querySelector("script.thalweg-patterns").textContent);
  var bytes = Uint8Array.from(atob(data.values), function (c) { return c.charCodeAt(0); });
  var rows = data.queries.length, columns = data.keys.length, heads = data.heads.length;
  // Only keys up to their query are stored where the others do not exist.
  var size = 0, start = [];
  for (var q = 0; q < rows; q++) { start.push(size); size += width(q); }
  var chosen = 0, locked = false, token = rows - 1, tokenLocked = false, cell = null;
  var big, status, line, thumbs = [];

  function width(q) { return data.causal ? Math.min(q + 1, columns) : columns; }
  function level(head, q, k) { return k < width(q) ? bytes[head * size + start[q] + k] : 0; }
  // Level 0 is a cell that does not exist, 1 to 255 go from the low to the high end.
  function value(level) { return data.low + (level - 1) / 254 * (data.high - data.low); }
  function color(level) {
    if (level === 0) return data.absent;
    var t = (level - 1) / 254 * (data.colors.length - 1), i = Math.min(Math.floor(t), data.colors.length - 2);
    return data.colors[i].map(function (low, c) { return Math.round(low + (data.colors[i + 1][c] - low) * (t - i)); });
  }
  function css(color) { return "rgb(" + color.join(",") + ")"; }
  function ink(color) { return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 ? "#2a2a32" : "#fff"; }
  function make(kind, parent, style) {
    var made = document.createElement(kind);
    made.style.cssText = style || "";
    parent.appendChild(made);
    return made;
  }
  function named(tokens, i) { return "“" + tokens[i] + "” at " + i; }
  function told(level) { return level === 0 ? "not seen" : value(level).toFixed(2); }

  function picture(head) {
    var small = document.createElement("canvas");
    small.width = columns; small.height = rows;
    var context = small.getContext("2d"), image = context.createImageData(columns, rows);
    for (var q = 0; q < rows; q++) for (var k = 0; k < columns; k++) {
      var rgb = color(level(head, q, k)), at = 4 * (q * columns + k);
      image.data[at] = rgb[0]; image.data[at + 1] = rgb[1]; image.data[at + 2] = rgb[2]; image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return small;
  }

  function thumbnails() {
    var box = make("div", root, "display:grid;gap:6px;margin:8px 0;grid-template-columns:repeat(" + data.across + ",max-content)");
    for (var head = 0; head < heads; head++) thumbnail(box, head);
  }

  function thumbnail(parent, head) {
    var group = data.groups.length ? data.groups[head] : 0;
    var box = make("button", parent, "all:unset;cursor:pointer;text-align:center;font-size:11px;color:#2a2a32;padding:2px;border-radius:3px;");
    box.className = "thalweg-head";
    box.title = data.heads[head] + (data.groups.length ? ", key/value group " + group : "");
    var image = picture(head), wide = data.thumb * columns / Math.max(rows, columns);
    image.style.cssText = "display:block;image-rendering:pixelated;border:1px solid #d4d4da;width:" + Math.round(wide) + "px;height:" + Math.round(data.thumb * rows / Math.max(rows, columns)) + "px";
    box.appendChild(image);
    make("div", box).textContent = data.heads[head];
    // Heads that share keys and values stand on one line.
    if (data.groups.length) make("div", box, "height:3px;border-radius:2px;background:" + (group % 2 ? "#d55e00" : "#0072b2"));
    box.addEventListener("mouseenter", function () { if (!locked) show(head); });
    box.addEventListener("focus", function () { if (!locked) show(head); });
    box.addEventListener("click", function () {
      locked = !(locked && chosen === head);
      show(head);
    });
    thumbs.push(box);
  }

  function show(head) {
    chosen = head;
    thumbs.forEach(function (box, i) { box.style.boxShadow = i === head ? "0 0 0 2px " + (locked ? "#d55e00" : "#2a2a32") : "none"; });
    draw(); words(); tell();
  }

  function tell() {
    var text = data.heads[chosen] + (data.groups.length ? " (key/value group " + data.groups[chosen] + ")" : "");
    if (cell) {
      text += ": query " + named(data.queries, cell[0]) + " → key " + named(data.keys, cell[1]) + ": " + told(level(chosen, cell[0], cell[1]));
    } else {
      text += locked ? ", locked: click it again to let go" : ", hover over a head to see it, click to lock it";
    }
    status.textContent = text;
  }

  var margin, side;
  function layout() {
    var longest = Math.max.apply(null, data.queries.concat(data.keys).map(function (t) { return Math.min(t.length, 12); }));
    margin = 26 + longest * 6.2;
    side = Math.max(6, Math.min(26, Math.floor(480 / Math.max(rows, columns))));
    big.width = 2 * (margin + side * columns + 8); big.height = 2 * (margin + side * rows + 8);
    big.style.width = big.width / 2 + "px"; big.style.height = big.height / 2 + "px";
  }

  function draw() {
    var context = big.getContext("2d");
    context.setTransform(2, 0, 0, 2, 0, 0);
    context.fillStyle = "#fff"; context.fillRect(0, 0, big.width, big.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture(chosen), margin, margin, side * columns, side * rows);
    context.font = "11px Helvetica, Arial, sans-serif"; context.textBaseline = "middle";
    var step = Math.ceil(11 / side);
    for (var q = 0; q < rows; q++) if (q % step === 0 || q === rows - 1) label(context, data.queries[q], q, margin - 5, margin + (q + 0.5) * side, 0, cell && cell[0] === q);
    for (var k = 0; k < columns; k++) if (k % step === 0 || k === columns - 1) label(context, data.keys[k], k, margin + (k + 0.5) * side, margin - 5, Math.PI / 2, cell && cell[1] === k);
    context.strokeStyle = "#60606a"; context.strokeRect(margin, margin, side * columns, side * rows);
    if (cell) { context.strokeStyle = "#d55e00"; context.lineWidth = 2; context.strokeRect(margin + cell[1] * side, margin + cell[0] * side, side, side); context.lineWidth = 1; }
    context.fillStyle = "#60606a"; context.textAlign = "left"; context.fillText("key →", 2, 10); context.fillText("query ↓", 2, 24);
  }

  function label(context, text, i, x, y, turn, strong) {
    context.save();
    context.translate(x, y); context.rotate(turn);
    context.fillStyle = strong ? "#d55e00" : "#2a2a32"; context.textAlign = "right";
    context.fillText((text.length > 12 ? text.slice(0, 11) + "…" : text) + " " + i, 0, 0);
    context.restore();
  }

  function over(event) {
    var box = big.getBoundingClientRect(), scale = big.width / 2 / box.width;
    var k = Math.floor(((event.clientX - box.left) * scale - margin) / side), q = Math.floor(((event.clientY - box.top) * scale - margin) / side);
    cell = k >= 0 && k < columns && q >= 0 && q < rows ? [q, k] : null;
    draw(); tell();
  }

  // The text: each token coloured by what the token pointed at gives to it.
  var spans = [];
  function words() {
    spans.forEach(function (span, k) {
      var own = level(chosen, Math.min(token, rows - 1), k), rgb = own === 0 ? [255, 255, 255] : color(own);
      span.style.background = css(rgb); span.style.color = own === 0 ? "#9a9aa2" : ink(rgb);
      span.style.outline = k === token ? "2px solid " + (tokenLocked ? "#d55e00" : "#2a2a32") : "none";
      span.title = named(data.keys, k) + ": " + told(own);
    });
    line.textContent = "what " + named(data.queries, token) + " looks at in " + data.heads[chosen] + (tokenLocked ? " (locked)" : "");
  }

  function text() {
    if (rows !== columns) { line = document.createElement("div"); return; }
    line = make("div", root, "font-size:11px;color:#60606a;margin-top:6px");
    var box = make("div", root, "font-family:DejaVu Sans Mono,Menlo,monospace;font-size:13px;line-height:24px;overflow-wrap:anywhere");
    data.keys.forEach(function (word, i) {
      var span = make("span", box, "padding:2px 1px;cursor:pointer;margin-right:1px;");
      span.className = "thalweg-word";
      span.textContent = word;
      span.addEventListener("mouseenter", function () { if (!tokenLocked) { token = i; words(); } });
      span.addEventListener("click", function () { tokenLocked = !(tokenLocked && token === i); token = i; words(); });
      spans.push(span);
      box.appendChild(document.createTextNode("\u200b"));
    });
  }

  thumbnails();
  status = make("div", root, "font-size:12px;min-height:18px");
  status.className = "thalweg-status";
  big = make("canvas", root, "max-width:100%;cursor:crosshair");
  big.addEventListener("mousemove", over);
  big.addEventListener("mouseleave", function () { cell = null; draw(); tell(); });
  layout(); text(); show(0);
  root.querySelector(".thalweg-static").style.display = "none";
  root.dataset.state = "viewer";
})();
