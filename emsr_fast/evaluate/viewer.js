"use strict";
// linked zoom and pan over the images of a place; without this script all places are shown one below the other
(() => {
  const viewer = document.getElementById("viewer");
  const rows = [...viewer.querySelectorAll(".row")];
  const views = [...viewer.querySelectorAll(".view")];
  const choice = viewer.querySelector("select");
  const output = viewer.querySelector("output");
  const MOST = 32;
  // the left and upper corner of what is seen, in shares of the image, and how often it is magnified
  let zoom = 1, left = 0, top = 0;

  const show = () => {
    const inside = 1 - 1 / zoom;
    left = Math.min(Math.max(left, 0), inside);
    top = Math.min(Math.max(top, 0), inside);
    for (const view of views) {
      view.firstElementChild.style.transform = `scale(${zoom}) translate(${-100 * left}%, ${-100 * top}%)`;
    }
    output.textContent = `${zoom.toFixed(1)}x`;
  };
  // the point at (x, y), in shares of the view, stays where it is
  const magnify = (factor, x = 0.5, y = 0.5) => {
    const next = Math.min(Math.max(zoom * factor, 1), MOST);
    left += x / zoom - x / next;
    top += y / zoom - y / next;
    zoom = next;
    show();
  };
  const move = (x, y) => { left += x / zoom; top += y / zoom; show(); };
  const reset = () => { zoom = 1; left = 0; top = 0; show(); };
  const choose = (number) => {
    rows.forEach((row, index) => { row.hidden = index !== number; });
    choice.selectedIndex = number;
  };
  const place = (view, event) => {
    const box = view.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };

  const keys = {
    "+": () => magnify(1.5), "=": () => magnify(1.5), "-": () => magnify(1 / 1.5), "0": reset,
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0),
    ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1),
  };
  for (const view of views) {
    let from = null;
    view.addEventListener("wheel", (event) => {
      event.preventDefault();
      magnify(Math.exp(-event.deltaY / 400), ...place(view, event));
    }, { passive: false });
    view.addEventListener("dblclick", (event) => magnify(2, ...place(view, event)));
    view.addEventListener("pointerdown", (event) => {
      from = place(view, event);
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = place(view, event);
      move(from[0] - to[0], from[1] - to[1]);
      from = to;
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { from = null; });
    view.addEventListener("keydown", (event) => {
      const action = keys[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      action();
    });
  }
  const actions = { in: () => magnify(1.5), out: () => magnify(1 / 1.5), reset };
  for (const button of viewer.querySelectorAll("button")) {
    button.addEventListener("click", actions[button.dataset.do]);
  }
  choice.addEventListener("change", () => choose(choice.selectedIndex));
  viewer.classList.add("live");
  choose(0);
  show();
})();
