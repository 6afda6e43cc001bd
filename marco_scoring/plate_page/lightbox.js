// One image large, with its scores, the drop's other images and what speaks for crystals.

const lightbox = (() => {
  const dialog = document.getElementById("lightbox");
  const state = { image: null, sequence: [], at: 0, overlay: false };

  function open(image, sequence) {
    state.sequence = sequence;
    state.at = Math.max(0, sequence.findIndex((one) => one === image || (image.plate !== null && one.plate !== null && dropKey(one) === dropKey(image))));
    state.overlay = false;
    show(image);
    if (!dialog.open) dialog.showModal();
  }

  function show(image) {
    state.image = image;
    const time = timeText(image);
    const overlay = state.overlay && image.overlay;
    const picture = overlay
      ? make("img", { src: sourceOf(image.overlay), width: image.overlay.width, height: image.overlay.height, alt: "What the crystal score hangs on" })
      : pictureOf(image, { alt: `${placeText(image)} ${time}` });
    const strip = sequenceOf(image);
    dialog.replaceChildren(
      make("div", { class: "lightbox-picture" }, picture,
        overlay ? make("p", { class: "hint" }, "The square that the network sees; bright is what its crystal score hangs on.") : null),
      make("div", { class: "lightbox-side" },
        make("header", {},
          make("div", {},
            make("h2", {}, placeText(image), image.new ? make("em", { class: "badge" }, "new") : null),
            make("p", { class: "when" }, [image.plate !== null && report.plates.length > 1 ? `plate ${report.plates[image.plate].name}` : "", time].filter(Boolean).join(" · "))),
          make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
        classChip(image.class),
        scoreBars(image),
        strip.length > 1 ? timeStrip(strip, image, show) : null,
        explanation(image),
        make("p", { class: "path" }, image.path),
        make("nav", {},
          make("button", { type: "button", disabled: state.at === 0, onclick: () => go(-1) }, "← previous"),
          make("span", {}, `${state.at + 1} of ${state.sequence.length}`),
          make("button", { type: "button", disabled: state.at === state.sequence.length - 1, onclick: () => go(1) }, "next →"))));
  }

  function explanation(image) {
    if (image.overlay) {
      const toggle = () => {
        state.overlay = !state.overlay;
        show(image);
        dialog.querySelector(".explain").focus();
      };
      return make("button", { type: "button", class: "explain", "aria-pressed": String(state.overlay), onclick: toggle }, "Show what speaks for crystals");
    }
    return make("details", { class: "hint" }, make("summary", {}, "What speaks for crystals?"),
      make("p", {}, "This command draws it; --explain adds it to the report for the best images."),
      make("code", { tabindex: 0 }, image.explain));
  }

  function go(by) {
    const to = state.at + by;
    if (to < 0 || to >= state.sequence.length) return;
    state.at = to;
    show(state.sequence[to]);
  }

  function goInTime(by) {
    const strip = sequenceOf(state.image);
    const to = strip[strip.indexOf(state.image) + by];
    if (to) show(to);
  }

  dialog.addEventListener("keydown", (event) => {
    const action = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), ArrowUp: () => goInTime(-1), ArrowDown: () => goInTime(1) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    if (!dialog.contains(document.activeElement)) dialog.querySelector(".close").focus();
  });
  // A click on the backdrop is one on the dialog itself, outside of what it holds.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return { open };
})();
