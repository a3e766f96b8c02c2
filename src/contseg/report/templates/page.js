// Makes an instrument of a page that can be read without it. It finds what parts.html wrote:
//   .viewer            test images and predictions: sliders, views, enlarged pictures
//   .classbox          classes: filter, order, values at the pointer
//   svg.confusion      a confusion matrix: the share at the pointer
//   .switched          parts of which one is shown at a time
//   table[data-sort]   sorted by a click on the title of a column
//   table[data-file]   saved as CSV or LaTeX
"use strict";
{
const make = (tag, given = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), given);
  element.append(...inside);
  return element;
};
const MOVES = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}; // rows and columns
let numbered = 0;

/** A group of radio buttons; `chosen` gets the name of the one that is chosen. */
function chips(title, names, chosen) {
  const group = `chips${++numbered}`;
  const labels = names.map((name, place) => {
    const input = make("input", {type: "radio", name: group, value: name, checked: place === 0});
    input.addEventListener("change", () => chosen(name));
    return make("label", {}, input, make("span", {}, name));
  });
  return make("fieldset", {className: "chips"}, make("legend", {}, title), ...labels);
}

/** A slider with a text above it. */
function slider(max, moved) {
  const text = make("span"), input = make("input", {type: "range", min: 0, max, value: 0, step: 1});
  input.addEventListener("input", moved);
  return {text, input, label: make("label", {className: "range"}, text, input)};
}

// ---------------------------------------------------------------------------------------------------- tables

const rowsOf = table => [...table.tBodies].flatMap(body => [...body.rows]);
const textOf = cell => cell.textContent.trim();

/** The titles of the columns; those of several rows are joined. */
function titlesOf(table) {
  const rows = [...table.tHead.rows].map(row => [...row.cells].flatMap(cell => Array(cell.colSpan).fill(textOf(cell))));
  return rows.at(-1).map((_, column) => rows.map(row => row[column]).filter(Boolean).join(" "));
}

/** Rows of texts as CSV; what was not measured is empty. */
function csv(rows) {
  const cell = text => text === "–" ? "" : /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text.replace("−", "-");
  return rows.map(row => row.map(cell).join(",") + "\n").join("");
}

const SIGNS = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "−": "$-$"};
/** Rows of texts as a table with the rules of booktabs. */
function latex(rows) {
  const cell = text => text.replace(/[\\{}&%$#_~^–−]/g, sign => SIGNS[sign] ?? `\\${sign}`);
  const [head, ...body] = rows.map(row => row.map(cell).join(" & ") + " \\\\");
  const columns = "r".repeat(rows[0].length - 1);
  return [`\\begin{tabular}{l${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

/** Links that save a table as it is shown. */
function savable(table) {
  const links = [["CSV", "csv", csv], ["LaTeX", "tex", latex]].map(([title, suffix, written]) => {
    const link = make("a", {href: "#", download: `${table.dataset.file}.${suffix}`}, title);
    link.addEventListener("click", () => {
      const rows = rowsOf(table).filter(row => !row.hidden).map(row => [...row.cells].map(textOf));
      link.href = "data:text/plain;charset=utf-8," + encodeURIComponent(written([titlesOf(table), ...rows]));
    });
    return link;
  });
  (table.closest(".wide") ?? table).after(make("p", {className: "links"}, "save as ", links[0], " ", links[1]));
}

/** A click on a title sorts, the next one reverses, and the third restores. */
function sortable(table) {
  const rows = rowsOf(table), homes = rows.map(row => row.parentNode), head = [...table.tHead.rows].at(-1);
  [...head.cells].forEach((cell, column) => {
    const button = make("button", {type: "button"}, ...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const turns = column ? ["descending", "ascending", null] : ["ascending", "descending", null];
      const way = turns[(turns.indexOf(cell.getAttribute("aria-sort")) + 1) % 3];
      for (const other of head.cells) other.removeAttribute("aria-sort");
      if (way) cell.setAttribute("aria-sort", way);
      else return rows.forEach((row, place) => homes[place].append(row));
      const sign = way === "ascending" ? 1 : -1;
      const key = row => column ? parseFloat(textOf(row.cells[column]).replace("−", "-")) : textOf(row.cells[0]);
      const compared = (one, other) => typeof one === "string" ? sign * one.localeCompare(other, undefined, {numeric: true})
        : isNaN(one) - isNaN(other) || (isNaN(one) ? 0 : sign * (one - other)); // what was not measured is last
      table.tBodies[0].append(...rows.toSorted((one, other) => compared(key(one), key(other))));
    });
  });
}

/** Arrow keys move from cell to cell; `shown` gets the cell at the pointer or the focus. */
function pointed(table, shown) {
  const cellOf = event => event.target.closest("tbody td");
  const over = event => cellOf(event) && shown(cellOf(event));
  const first = table.tBodies[0]?.rows[0]?.cells[1];
  if (first) first.tabIndex = 0;
  table.addEventListener("pointerover", over);
  table.addEventListener("focusin", over);
  table.addEventListener("keydown", event => {
    const cell = cellOf(event), move = MOVES[event.key];
    if (!cell || !move) return;
    const rows = rowsOf(table).filter(row => !row.hidden);
    const next = rows[rows.indexOf(cell.parentNode) + move[0]]?.cells[cell.cellIndex + move[1]];
    event.preventDefault();
    if (next) {
      [cell.tabIndex, next.tabIndex] = [-1, 0];
      next.focus();
    }
  });
}

// ---------------------------------------------------------------------------------------------------- classes

function classbox(box) {
  const table = box.querySelector("table.classes"), bars = box.querySelector("ol.bars"), titles = titlesOf(table);
  const items = [...box.querySelectorAll("ol.bars li, ol.curves li")].map(item => [item, item.firstChild]);
  const rows = rowsOf(table).map(row => [row, row.cells[0]]);
  const named = [...items, ...rows].map(([one, name]) => [one, textOf(name).toLowerCase()]);
  const filter = make("input", {type: "search", placeholder: "filter classes", ariaLabel: "filter classes"});
  filter.addEventListener("input", () => {
    for (const [one, name] of named) one.hidden = !name.includes(filter.value.trim().toLowerCase());
  });
  const best = [...bars.children], forgotten = best.toSorted((one, other) => other.dataset.fallen - one.dataset.fallen);
  const tools = make("div", {className: "controls"}, filter);
  if (Math.max(...best.map(item => item.dataset.fallen)) > 0)
    tools.append(chips("order", ["best", "most forgotten"], name => bars.append(...(name === "best" ? best : forgotten))));
  box.prepend(tools);

  const readout = make("output", {className: "readout"}, "Point at a cell, or move through the table with the arrow keys.");
  const heat = make("input", {type: "checkbox", checked: rows.length > 40});
  const changed = () => table.classList.toggle("heat", heat.checked);
  heat.addEventListener("change", changed);
  changed();
  if (heat.checked) table.closest("details").open = true;
  table.closest(".wide").before(make("div", {className: "controls"}, make("label", {}, heat, " colours only"), readout));
  pointed(table, cell => {
    const value = textOf(cell), known = {"": "not learned yet", "–": "not measured"}[value] ?? `${value} %`;
    if (cell.cellIndex > 1) readout.textContent = `${textOf(cell.parentNode.cells[0])}, ${titles[cell.cellIndex]}: ${known}`;
  });
}

/** Sections with a name each, of which the first is shown at first. */
function switched(box) {
  const parts = [...box.children];
  const choose = name => parts.forEach(part => { part.hidden = part.dataset.name !== name; });
  if (parts.length < 2) return;
  for (const title of box.querySelectorAll(":scope > section > .after")) title.hidden = true;
  choose(parts[0].dataset.name);
  box.prepend(chips(box.dataset.title, parts.map(part => part.dataset.name), choose));
}

function confusion(svg) {
  const names = JSON.parse(svg.dataset.names), cell = Number(svg.dataset.cell);
  const shares = svg.dataset.shares.split(";").map(row => row.split(",").map(Number));
  const mark = document.createElementNS(svg.namespaceURI, "rect"), readout = make("output", {className: "readout"});
  const at = [0, 0];
  const show = (row, column) => {
    if (!(row in names && column in names)) return;
    [at[0], at[1]] = [row, column];
    const frame = {x: column * cell, y: row * cell, width: cell, height: cell, class: "mark"};
    for (const [key, value] of Object.entries(frame)) mark.setAttribute(key, value);
    const share = `${(shares[row][column] / 10).toFixed(1)} % of its pixels`;
    readout.textContent = !shares[row].some(Boolean) ? `${names[row]}: no pixel of the test set has this label`
      : row === column ? `${names[row]} is right in ${share}` : `${names[row]} is called ${names[column]} in ${share}`;
  };
  svg.append(mark);
  svg.tabIndex = 0;
  readout.textContent = "Point at a cell, or move through the matrix with the arrow keys.";
  svg.closest(".wide").before(readout);
  svg.addEventListener("pointermove", event => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    show(Math.floor(point.y / cell), Math.floor(point.x / cell));
  });
  svg.addEventListener("focus", () => show(...at));
  svg.addEventListener("keydown", event => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    show(at[0] + move[0], at[1] + move[1]);
  });
}

// ---------------------------------------------------------------------------------------------------- images

/** A canvas with its pixels. */
function sheet(width, height, drawn) {
  const canvas = make("canvas", {width, height}), context = canvas.getContext("2d", {willReadFrequently: true});
  drawn(context);
  return {canvas, width, height, pixels: context.getImageData(0, 0, width, height).data};
}

const memory = new WeakMap();
/** The sheet of an <img>, in its own size or in another. */
async function read(img, size = null) {
  if (!memory.has(img)) {
    await img.decode();
    const width = size?.width ?? img.naturalWidth, height = size?.height ?? img.naturalHeight;
    memory.set(img, sheet(width, height, context => context.drawImage(img, 0, 0, width, height)));
  }
  return memory.get(img);
}

/** The colours that occur in a sheet. */
function coloursOf(one) {
  if (!one.colours) {
    const packed = new Set(new Uint32Array(one.pixels.buffer));
    one.colours = new Set([...packed].map(value => [value & 255, (value >> 8) & 255, (value >> 16) & 255].join()));
  }
  return one.colours;
}

const same = (one, other, k) => one[k] === other[k] && one[k + 1] === other[k + 1] && one[k + 2] === other[k + 2];
const isIgnored = (pixels, k) => pixels[k] === 225 && pixels[k + 1] === 225 && pixels[k + 2] === 225; // as figures.py draws them
const WRONG = [213, 94, 0], DOUBT = [[16, 18, 48], [120, 40, 120], [226, 92, 80], [253, 231, 160]];

/** A sheet with the pixels for which `colourOf` returns a colour. */
function marks({width, height}, colourOf) {
  return sheet(width, height, context => {
    const image = context.createImageData(width, height);
    for (let k = 0; k < image.data.length; k += 4) {
      const colour = colourOf(k);
      if (!colour) continue;
      [image.data[k], image.data[k + 1], image.data[k + 2], image.data[k + 3]] = [colour[0], colour[1], colour[2], 255];
    }
    context.putImageData(image, 0, 0);
  });
}

/** A photograph on which marks stand out. */
function pale(photo) {
  const {pixels} = photo;
  return photo.pale ??= marks(photo, k => Array(3).fill(145 + 0.11 * pixels[k] + 0.22 * pixels[k + 1] + 0.05 * pixels[k + 2]));
}

/** The colours of doubt from 0 to 255. */
const HEAT = Array.from({length: 256}, (_, value) => {
  const place = Math.min(2.999, value / 85), low = Math.floor(place);
  return DOUBT[low].map((channel, at) => channel + (place - low) * (DOUBT[low + 1][at] - channel));
});

// each view lays sheets over each other: photograph, truth, prediction, the prediction before, and the doubt
const VIEWS = {
  prediction: (lay, {said}) => lay(said),
  overlay: (lay, {photo, said}) => { lay(photo); lay(said, 0.6); },
  errors: (lay, {photo, truth, said}) => {
    lay(pale(photo));
    if (truth) lay(marks(said, k => !isIgnored(truth.pixels, k) && !same(said.pixels, truth.pixels, k) ? WRONG : null));
  },
  changed: (lay, {photo, said, before}) => {
    lay(pale(photo));
    if (before) lay(marks(said, k => same(said.pixels, before.pixels, k) ? null : said.pixels.subarray(k, k + 3)));
  },
  entropy: (lay, {said, doubt}) => lay(doubt ? marks(doubt, k => HEAT[doubt.pixels[k]]) : said),
  margin: (lay, {said, doubt}) => lay(doubt ? marks(doubt, k => HEAT[255 - doubt.pixels[k]]) : said),
};
function paint(canvas, view, sheets) {
  const {width, height} = sheets.photo, context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  VIEWS[view]((one, opacity = 1) => {
    context.globalAlpha = opacity;
    context.drawImage(one.canvas, 0, 0);
  }, sheets);
}
const MEANING = {
  prediction: "Each pixel in the colour of its predicted class.",
  overlay: "The predicted classes over the photograph.",
  errors: "Wrong pixels in orange; pixels without a label are not judged.",
  changed: "Pixels whose class differs from the prediction before, in their new colour.",
  entropy: "Entropy of the scores: the brighter, the more classes compete.",
  margin: "Margin of the best score over the second: the brighter, the closer they are.",
};

/** The images of a table, with the <img> of each run after each step. */
function imagesOf(table) {
  return [...table.tBodies].map(body => {
    const runs = new Map(), {right, lost, drawn} = body.dataset, photo = body.querySelector("img.image");
    for (const img of body.querySelectorAll("img[data-run]")) {
      if (!runs.has(img.dataset.run)) runs.set(img.dataset.run, []);
      runs.get(img.dataset.run)[img.dataset.step] = img;
    }
    const shares = {right: parseFloat(right), lost: parseFloat(lost), drawn: drawn !== undefined};
    return {name: photo.alt, photo, truth: body.querySelector("img.truth"), runs, ...shares};
  });
}

function viewer(box) {
  if (!box.querySelector("img[data-run]")) return;
  const table = box.querySelector("table.samples"), images = imagesOf(table), classes = new Map();
  for (const span of box.querySelectorAll(".legend span")) {
    const colour = span.firstElementChild.style.backgroundColor.match(/\d+/g).map(Number);
    classes.set(colour.join(), {name: span.textContent.trim(), span});
  }
  const inputs = [...box.querySelectorAll("img[data-run]")], runNames = [...new Set(inputs.map(img => img.dataset.run))];
  const steps = Math.max(...inputs.map(img => Number(img.dataset.step)));
  const against = table.dataset.against; // the run that others are compared with in "changed"; otherwise the step before
  const orders = {
    "most forgotten": images.filter(image => image.lost > 0).sort((one, other) => other.lost - one.lost),
    worst: images.filter(image => image.right >= 0).sort((one, other) => one.right - other.right),
    "drawn at random": images.filter(image => image.drawn),
    all: images,
  };
  let order = Object.values(orders).find(list => list.length), view = "prediction", turn = 0, enlarged = null;

  const imageSlider = slider(order.length - 1, drawAll), stepSlider = slider(steps, drawAll);
  stepSlider.input.value = steps;
  const stored = name => inputs.some(img => img.dataset[name]), can = {entropy: stored("entropy"), margin: stored("margin"),
    changed: steps > 0 || against, errors: images.some(image => image.truth)};
  const views = Object.keys(VIEWS).filter(name => can[name] ?? true);
  const readout = make("output", {className: "readout"}), meaning = make("p", {className: "note"});
  const sliders = {ArrowLeft: [imageSlider, "stepDown"], ArrowRight: [imageSlider, "stepUp"],
    ArrowDown: [stepSlider, "stepDown"], ArrowUp: [stepSlider, "stepUp"]};
  const panels = ["image", "truth", ...runNames].map(name => {
    const canvas = make("canvas", {role: "img"}), caption = make("figcaption");
    const button = make("button", {type: "button", title: "enlarge"}, canvas), panel = {name, canvas, caption, said: null};
    button.addEventListener("click", () => { enlarged = panel; copy(); dialog.showModal(); });
    canvas.addEventListener("pointermove",
      event => point(event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight));
    panel.figure = make("figure", {}, button, caption);
    return panel;
  });

  const big = make("canvas"), bigText = make("p"), closed = make("button", {type: "button"}, "close");
  const dialog = make("dialog", {className: "enlarged", ariaLabel: "enlarged picture"}, big, bigText, closed);
  closed.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", event => {
    const [one, way] = sliders[event.key] ?? [];
    if (!one) return;
    event.preventDefault();
    one.input[way]();
    drawAll();
  });
  function copy() {
    if (!enlarged) return;
    [big.width, big.height] = [enlarged.canvas.width, enlarged.canvas.height];
    big.style.setProperty("--ratio", big.width / big.height);
    big.getContext("2d").drawImage(enlarged.canvas, 0, 0);
    bigText.textContent = enlarged.caption.textContent;
  }

  /** The classes at a place of the image, in words. */
  function point(x, y) {
    const texts = panels.flatMap(panel => {
      if (!panel.said) return [];
      const {pixels, width, height} = panel.said, k = 4 * (Math.floor(y * height) * width + Math.floor(x * width));
      return [`${panel.name}: ${classes.get(pixels.slice(k, k + 3).join())?.name ?? "–"}`];
    });
    readout.textContent = texts.join(" · ");
  }

  function drawAll() {
    globalThis.drawn = draw(++turn); // so that a test can wait for it
  }

  /** The sheets of a run for an image after a step, or after its last step. */
  async function sheetsOf(image, name, step, photo) {
    const list = image.runs.get(name) ?? [], at = Math.min(step, list.length - 1), img = list[at];
    if (!img) return {};
    const earlier = against ? (name === against ? null : image.runs.get(against)?.at(-1)) : list[at - 1];
    const doubts = img.doubts ??= {}, source = img.dataset[view]; // only of the views entropy and margin
    const doubt = source ? await read(doubts[view] ??= make("img", {src: source}), photo) : null;
    const note = [...(steps ? [`after step ${at}`] : []), ...(img.dataset.note ? [img.dataset.note] : [])].join(", ");
    return {said: await read(img), before: earlier && await read(earlier), doubt, note};
  }

  async function draw(mine) {
    const image = order[imageSlider.input.value], step = Number(stepSlider.input.value);
    const photo = await read(image.photo), truth = image.truth && await read(image.truth);
    const found = await Promise.all(runNames.map(name => sheetsOf(image, name, step, photo)));
    if (mine !== turn) return; // another one began meanwhile
    for (const [place, panel] of panels.entries()) {
      const one = [{note: image.name}, {said: truth}, ...found][place];
      panel.said = one.said ?? null;
      panel.figure.hidden = place > 0 && !one.said;
      panel.caption.replaceChildren(make("strong", {}, panel.name), one.note ? ` ${one.note}` : "");
      panel.canvas.ariaLabel = panel.caption.textContent;
      if (place > 1 && one.said) paint(panel.canvas, view, {photo, truth, ...one});
      else if (place === 0) paint(panel.canvas, "prediction", {photo, said: photo});
      else if (place === 1 && truth) paint(panel.canvas, view === "overlay" ? view : "prediction", {photo, said: truth});
    }
    const there = new Set(panels.flatMap(panel => panel.said ? [...coloursOf(panel.said)] : []));
    for (const [colour, {span}] of classes) span.classList.toggle("absent", !there.has(colour));
    imageSlider.text.textContent = `image ${Number(imageSlider.input.value) + 1} of ${order.length}`;
    stepSlider.text.textContent = `after step ${step}`;
    meaning.textContent = MEANING[view];
    readout.textContent = "Point at a picture to read the classes there.";
    copy();
  }
  const choices = Object.keys(orders).filter(name => orders[name].length);
  box.querySelector(".wide").before(
    make("div", {className: "controls"},
      chips("images", choices, name => {
        order = orders[name];
        imageSlider.input.max = order.length - 1;
        imageSlider.input.value = 0;
        drawAll();
      }),
      chips("show", views, name => { view = name; drawAll(); }),
      imageSlider.label, ...(steps ? [stepSlider.label] : [])),
    make("div", {className: "panels"}, ...panels.map(panel => panel.figure)), readout, meaning, dialog);
  const all = make("details", {}, make("summary", {}, "all images at once"));
  box.querySelector(".wide").before(all);
  all.append(box.querySelector(".wide"));
  drawAll();
}

// ---------------------------------------------------------------------------------------------------- begin

const PARTS = {
  "table[data-file]": savable, "table[data-sort]": sortable, ".classbox": classbox, "svg.confusion": confusion,
  ".switched": switched, ".viewer": viewer,
};
for (const [selector, begin] of Object.entries(PARTS)) document.querySelectorAll(selector).forEach(one => begin(one));

addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) one.open = one.unfolded = true;
});
addEventListener("afterprint", () => {
  for (const one of document.querySelectorAll("details")) if (one.unfolded) one.open = one.unfolded = false;
});
}
