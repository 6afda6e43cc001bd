// The ranked list and the drops over time, under one row of filters.

const PAGE = 40;

const browse = (() => {
  const more = element("browse").querySelector(".more");
  const state = { view: "ranked", sort: "score", descending: true, limit: PAGE };

  // Columns of the list: how each is named, sorted and shown. Narrow screens leave out `extra`, phones `wide` too.
  const columns = [
    { key: "star", name: "★", value: (image) => Number(marks.isStarred(image)), number: true },
    { key: "picture", name: "Image" },
    report.plates.length > 1 && { key: "plate", name: "Plate", value: plateName, extra: true },
    { key: "well", name: "Well", value: placeText, compare: compareWells },
    hasTimes && { key: "time", name: "Time", value: (image) => image.date || image.time, show: timeText, extra: true },
    { key: "class", name: "Class", value: (image) => report.classes[classOf(image)], wide: true },
    { key: "score", name: "Crystals", value: crystals, number: true },
    ...report.classes.map((name, index) =>
      !(report.crystals.length === 1 && report.crystals[0] === index) &&
      { key: `score-${index}`, name, value: (image) => scoresOf(image)[index], number: true, extra: true }),
    { key: "file", name: "File", value: (image) => image.path, show: (image) => fileName(image.path), extra: true },
  ].filter(Boolean);

  const markFilters = {
    all: () => true,
    any: marks.isMarked,
    starred: marks.isStarred,
    noted: (image) => marks.noteOf(image) !== "",
    classified: (image) => marks.chosenClass(image) !== null,
  };

  function compareWells(one, other) {
    if (one.plate === null || other.plate === null) return (one.plate === null) - (other.plate === null);
    return byPlace(one, other) || one.time - other.time;
  }

  const compare = (one, other) => (typeof one === "string" ? one.localeCompare(String(other)) : one - other);

  function matches(image) {
    const words = element("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const plate = plateName(image);
    const well = image.well.toLowerCase();
    const text = `${plate} ${image.path} ${marks.noteOf(image)}`.toLowerCase();
    // What is written like a well means that one alone: `b1` is not to find B10 to B12, nor file names.
    const isWell = (word) => /^([a-z]|a[a-f])0?[0-9]{1,2}$/.test(word) && placed.length > 0;
    return words.every((word) => (isWell(word) ? well === word.replace(/^([a-z]+)0/, "$1") || plate.toLowerCase() === word : well === word || text.includes(word)))
      && (element("class").value === "" || classOf(image) === Number(element("class").value))
      && markFilters[element("marked").value](image)
      && (element("plate").value === "" || image.plate === Number(element("plate").value))
      && (!element("new").checked || image.new);
  }

  const candidates = () => images.filter((image) => element("time").value === "all" || image.latest);

  function rankedImages() {
    const column = columns.find((one) => one.key === state.sort);
    const order = column.compare || ((one, other) => compare(column.value(one), column.value(other)));
    const sign = state.descending ? -1 : 1;
    const unusableLast = (one, other) => (column.number ? one.unusable - other.unusable : 0);
    return candidates().filter(matches).sort((one, other) =>
      unusableLast(one, other) || sign * order(one, other) || byScore(one, other));
  }

  function cell(column, image) {
    const label = `Open ${placeText(image)}, crystals ${digits(crystals(image))}`;
    const content = {
      picture: () => make("button", { type: "button", class: "thumb", "aria-label": label, "data-focus": `open-${image.number}` }, pictureOf(image)),
      star: () => starButton(image),
      well: () => make("span", {}, make("b", {}, image.plate === null ? "–" : placeText(image)), ...badges(image),
        make("span", { class: "narrow" }, classChip(image)),
        make("small", { class: "narrow" }, image.plate === null ? placeText(image) : [report.plates.length > 1 ? plateName(image) : "", timeText(image)].filter(Boolean).join(" · ")),
        marks.noteOf(image) ? make("small", { class: "note" }, marks.noteOf(image)) : null),
      class: () => classChip(image),
      score: () => make("span", { class: "score", "--colour": scaleColour(crystals(image)), "--share": `${100 * crystals(image)}%` }, digits(crystals(image))),
    }[column.key];
    const plain = () => (column.show || ((one) => (column.number ? digits(column.value(one)) : column.value(one))))(image);
    return make("td", { class: `${column.number ? "number" : ""} ${column.extra ? "extra" : ""} ${column.wide ? "wide" : ""} column-${column.key}`, title: column.key === "file" ? image.path : null },
      content ? content() : plain());
  }

  function drawHead() {
    refill(element("ranked").querySelector("thead tr"), ...columns.map((column) => {
      const sorted = state.sort === column.key;
      const direction = state.descending ? "descending" : "ascending";
      const sortBy = () => {
        state.descending = sorted ? !state.descending : Boolean(column.number);
        state.sort = column.key;
        state.limit = PAGE;
        draw();
      };
      return make("th", { "data-key": column.key, "aria-sort": sorted ? direction : null, class: `${column.number ? "number" : ""} ${column.extra ? "extra" : ""} ${column.wide ? "wide" : ""}` },
        column.value ? make("button", { type: "button", "data-focus": column.key, onclick: sortBy, "aria-label": column.key === "star" ? "Favourites" : null }, column.name) : column.name);
    }));
  }

  function drawRanked() {
    const found = rankedImages();
    drawHead();
    refill(element("ranked").querySelector("tbody"), ...found.slice(0, state.limit).map((image) =>
      make("tr", { "data-path": image.path, onclick: () => lightbox.open(image, rankedImages()) }, ...columns.map((column) => cell(column, image)))));
    showCount(found.length, candidates().length, "image");
  }

  const rise = (sequence) =>
    sequence.length > 1 ? crystals(sequence[sequence.length - 1]) - crystals(sequence[sequence.length - 2]) : 0;

  function drawStrips() {
    const orders = {
      last: (one, other) => byScore(one[one.length - 1], other[other.length - 1]),
      rise: (one, other) => rise(other) - rise(one),
      well: (one, other) => byPlace(one[0], other[0]),
    };
    const found = [...drops.values()]
      .filter((sequence) => matches(sequence[sequence.length - 1]))
      .sort(orders[element("order").value]);
    // Pictures are of one size, whatever the number of a drop's images.
    const longest = Math.max(...[...drops.values()].map((sequence) => sequence.length));
    element("strips").style.setProperty("--slots", Math.min(Math.max(longest, 2), 4));
    refill(element("strips"), ...found.slice(0, state.limit).map((sequence) => {
      const last = sequence[sequence.length - 1];
      const plate = report.plates.length > 1 ? make("small", {}, report.plates[last.plate].name) : null;
      return make("article", { class: "over-time" },
        make("h3", {}, placeText(last), plate, ...badges(last), starButton(last),
          sequence.length > 1 ? make("span", { class: "rise" }, `${rise(sequence) < 0 ? "−" : "+"}${digits(Math.abs(rise(sequence)))}`) : null),
        timeStrip(sequence, null, (image) => lightbox.open(image, found.map((one) => one[one.length - 1]))));
    }));
    showCount(found.length, drops.size, "drop");
  }

  function showCount(found, all, what) {
    element("found").textContent = found === all ? `${all.toLocaleString("en")} ${what}${all === 1 ? "" : "s"}` : `${found.toLocaleString("en")} of ${all.toLocaleString("en")} ${what}s`;
    more.hidden = found <= state.limit;
    more.textContent = `Show ${Math.min(PAGE, found - state.limit)} more`;
  }

  function draw() {
    const ranked = state.view === "ranked";
    element("ranked").hidden = !ranked;
    element("strips").hidden = ranked;
    element("time-choice").hidden = !ranked || !hasTimes;
    element("order-choice").hidden = ranked;
    (ranked ? drawRanked : drawStrips)();
  }

  function start() {
    element("class").append(make("option", { value: "" }, "all"), ...report.classes.map((name, index) => make("option", { value: index }, name)));
    element("plate").append(make("option", { value: "" }, "all"), ...report.plates.map((plate, index) => make("option", { value: index }, plate.name)));
    element("plate-choice").hidden = report.plates.length < 2;
    element("new-choice").hidden = !hasTimes;
    element("views").hidden = !hasTimes;
    element("filters").addEventListener("submit", (event) => event.preventDefault());
    element("filters").addEventListener("input", () => {
      state.limit = PAGE;
      draw();
    });
    more.addEventListener("click", () => {
      state.limit += PAGE;
      draw();
    });
    for (const button of element("views").querySelectorAll("button")) {
      button.addEventListener("click", () => {
        state.view = button.dataset.view;
        state.limit = PAGE;
        element("views").querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
        draw();
      });
    }
    draw();
  }

  return { start, draw };
})();
