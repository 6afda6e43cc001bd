// What people add: favourite drops, notes on drops, classes of images. It stays in this browser, and leaves it as CSV.

const marks = (() => {
  const PREFIX = "marco-plate-page/";
  const listeners = [];
  const kept = new Map();
  let keeps = true;

  // Marks have keys of their content, so that a page made again after the next inspection finds them.
  const dropName = (image) => `drop/${image.key}`;
  const imageName = (image) => `image/${image.digest}`;

  function load(name) {
    try {
      const value = JSON.parse(localStorage.getItem(PREFIX + name));
      if (value && typeof value === "object") kept.set(name, value);
      else kept.delete(name);
    } catch {
      keeps = false;
    }
  }

  function store(name, value) {
    const empty = Object.values(value).every((part) => !part);
    if (empty) kept.delete(name);
    else kept.set(name, value);
    try {
      if (empty) localStorage.removeItem(PREFIX + name);
      else localStorage.setItem(PREFIX + name, JSON.stringify(value));
    } catch {
      keeps = false;
    }
    changed();
  }

  const changed = () => listeners.forEach((listener) => listener());
  const isStarred = (image) => kept.get(dropName(image))?.star === true;
  const noteOf = (image) => String(kept.get(dropName(image))?.note ?? "");
  const setDrop = (image, part) => store(dropName(image), { ...kept.get(dropName(image)), ...part });

  // The index of the class that somebody chose; null without one, or if the model has no such class.
  function chosenClass(image) {
    const index = report.classes.indexOf(kept.get(imageName(image))?.class);
    return index < 0 ? null : index;
  }

  function setClass(image, index) {
    const now = new Date();
    const date = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
    store(imageName(image), index === null ? {} : { class: report.classes[index], date });
  }

  const rater = {
    get: () => String(kept.get("rater")?.name ?? ""),
    set: (name) => store("rater", { name }),
  };

  const isDropMarked = (image) => isStarred(image) || noteOf(image) !== "";
  const isMarked = (image) => isDropMarked(image) || chosenClass(image) !== null;

  // The images that stand for the drops; drops by plate and well, then what has no well, best first.
  const byPlaceOrScore = (one, other) =>
    (one.plate === null) - (other.plate === null) || (one.plate === null ? byScore(one, other) : byPlace(one, other) || one.time - other.time);
  const standing = (test) => images.filter((image) => image.latest && test(image)).sort(byPlaceOrScore);
  const starred = () => standing(isStarred);
  const noted = () => standing((image) => noteOf(image) !== "");
  const classified = () => images.filter((image) => chosenClass(image) !== null).sort(byPlaceOrScore);

  function clear() {
    for (const image of images) {
      if (kept.has(dropName(image))) store(dropName(image), {});
      if (kept.has(imageName(image))) store(imageName(image), {});
    }
  }

  // A cell that a spreadsheet would run as a formula begins with an apostrophe, a path with `./`.
  const guard = (text, before) => (/^'*[=+\-@\t\r＝＋－＠]/.test(text) ? before + text : text);
  const pathCell = (image) => guard(image.path, "./");
  const noteCell = (image) => noteOf(image).replace(/\s+/g, " ").trim();

  function table(header, rows) {
    const cell = (value) => {
      const text = guard(String(value ?? ""), "'");
      return /[",;\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [header, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
  }

  const place = (image) => [plateName(image), image.well, image.drop, image.inspection, image.date];

  const files = {
    hits: () => table(
      ["plate", "well", "drop", "inspection", "date", "score", "class", "note", "file"],
      starred().map((image) => [...place(image), image.score, report.classes[classOf(image)], noteCell(image), pathCell(image)])),
    marks: () => table(
      ["path", "plate", "well", "drop", "inspection", "date", "score", "class", "your_class", "favourite", "note"],
      images.filter((image) => chosenClass(image) !== null || (image.latest && isDropMarked(image))).sort(byPlaceOrScore).map((image) => [
        pathCell(image), ...place(image), image.score, report.classes[image.class], report.classes[chosenClass(image)],
        image.latest && isStarred(image) ? "yes" : "", image.latest ? noteCell(image) : ""])),
    // `marco relabel merge --data` finds records by `image`; `marco data import --csv` reads filename and label.
    // Of copies of a picture one is enough.
    sheet: () => table(
      ["filename", "label", "rater", "date", "note", "predicted", "image"],
      [...new Map(classified().map((image) => [image.digest, image])).values()].map((image) => [
        pathCell(image), report.classes[classOf(image)], rater.get() || "expert", kept.get(imageName(image)).date, noteCell(image),
        report.classes[image.class], image.digest])),
  };

  function save(kind) {
    const title = document.querySelector("h1").textContent.replace(/^Plate /, "").replace(/[^\p{L}\p{N}.-]+/gu, "-").slice(0, 60);
    // The byte order mark is how spreadsheets know UTF-8.
    const url = URL.createObjectURL(new Blob(["\ufeff", files[kind]()], { type: "text/csv" }));
    make("a", { href: url, download: `${kind}-${title}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  load("rater");
  for (const image of images) {
    load(dropName(image));
    load(imageName(image));
  }
  // Another tab of the same page.
  addEventListener("storage", (event) => {
    if (!event.key?.startsWith(PREFIX)) return;
    load(event.key.slice(PREFIX.length));
    changed();
  });

  return {
    isStarred, noteOf, chosenClass, isMarked, rater, clear, save, starred, noted, classified,
    setStar: (image, star) => setDrop(image, { star }),
    setNote: (image, note) => setDrop(image, { note }),
    setClass,
    onChange: (listener) => listeners.push(listener),
    areKept: () => keeps,
  };
})();

// A star that marks a drop as a favourite.
function starButton(image) {
  const starred = marks.isStarred(image);
  return make("button", {
    type: "button", class: "star", "aria-pressed": String(starred), "aria-label": `Favourite: ${placeText(image)}`,
    "data-focus": `star-${image.number}`,
    onclick: (event) => {
      event.stopPropagation();
      marks.setStar(image, !marks.isStarred(image));
    },
  }, starred ? "★" : "☆");
}

// Where marks are counted and leave the page.
const markPanel = (() => {
  const panel = element("marks");
  const buttons = [...panel.querySelectorAll("button[data-save]")];

  function draw() {
    const [starred, noted, classified] = [marks.starred(), marks.noted(), marks.classified()];
    const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;
    const corrected = classified.filter((image) => classOf(image) !== image.class).length;
    const any = starred.length + noted.length + classified.length > 0;
    element("mark-counts").textContent = any
      ? [
        count(starred.length, "favourite", "favourites"), count(noted.length, "note", "notes"),
        `${count(classified.length, "class", "classes")} of yours${classified.length ? `, ${corrected} corrected` : ""}`,
      ].join(" · ")
      : "None yet.";
    const enabled = { hits: starred.length, marks: any, sheet: classified.length };
    buttons.forEach((button) => { button.disabled = !enabled[button.dataset.save]; });
    element("forget").hidden = !any;
    element("not-kept").hidden = marks.areKept();
    panel.classList.toggle("unmarked", !any);
  }

  function start() {
    buttons.forEach((button) => button.addEventListener("click", () => marks.save(button.dataset.save)));
    element("rater").value = marks.rater.get();
    element("rater").addEventListener("change", () => marks.rater.set(element("rater").value.trim()));
    element("forget").addEventListener("click", () => {
      if (confirm("Forget all favourites, notes and classes of this page?")) marks.clear();
    });
    draw();
  }

  return { start, draw };
})();
