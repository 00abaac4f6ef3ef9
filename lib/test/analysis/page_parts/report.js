"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const SVG = "http://www.w3.org/2000/svg";
  const shown = data.trackers.map(() => true);
  const redraw = [];

  /** An element with attributes (functions become listeners) and children (text or elements). */
  function make(name, attributes = {}, ...children) {
    const drawn = ["svg", "g", "path", "line", "text", "circle", "polygon", "rect"].includes(name);
    const node = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(key, value);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value !== null) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  const swatch = (color, extra = "") => make("span", { class: `swatch ${extra}`, style: `border-color:${color}` });
  const visible = () => data.trackers.map((tracker, i) => ({ ...tracker, index: i })).filter((t) => shown[t.index]);
  const scored = () => visible().filter((tracker) => tracker.scores);
  const DASHES = ["", "9 3", "2 2", "9 3 2 3"];
  const dash = (i) => DASHES[(i + Math.floor(i / 8)) % DASHES.length];

  /**
   * A table whose columns sort by a click on their heads.
   * columns: {title, value(row) -> number or text or null, cell(row) -> node or text, mark(row) -> class}
   */
  function table(columns, rows, state) {
    const body = make("tbody");
    const fill = () => {
      const column = columns[Math.min(state.column, columns.length - 1)];
      const sign = state.down ? -1 : 1;
      const sorted = [...rows].sort((a, b) => {
        const x = column.value(a), y = column.value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
      });
      body.replaceChildren(...sorted.map((row) => make("tr", {}, ...columns.map((c) =>
        make("td", { class: c.mark ? c.mark(row) : null }, c.cell ? c.cell(row) : text(c.value(row)))))));
      heads.forEach((head, i) => {
        head.setAttribute("aria-sort", i !== state.column ? "none" : state.down ? "descending" : "ascending");
      });
    };
    const heads = columns.map((c, i) => make("th", { scope: "col" }, make("button", {
      type: "button",
      click: () => {
        state.down = state.column === i ? !state.down : typeof (rows.length ? c.value(rows[0]) : "") === "number";
        state.column = i;
        fill();
      },
    }, c.title)));
    fill();
    return make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
  }

  const text = (value) => (value === null ? "-" : typeof value === "number" ? value.toFixed(2) : value);

  function section(title, ...children) {
    const box = make("section", {}, make("h2", {}, title), ...children);
    page.append(box);
    return box;
  }

  function head() {
    page.append(make("h1", {}, data.dataset),
      make("div", {}, `${data.scored} sequences, ${data.trackers.length} trackers; all scores in per cent`),
      make("ul", { class: "remarks" }, ...data.remarks.map((remark) => make("li", {}, remark))));
    page.append(make("div", { class: "chips" }, ...data.trackers.map((tracker, i) => make("label", {},
      make("input", {
        type: "checkbox", checked: true,
        change: (event) => { shown[i] = event.target.checked; redraw.forEach((draw) => draw()); },
      }), swatch(tracker.color), tracker.label))));
  }

  function scores() {
    const place = make("div", { class: "scroll" });
    const state = { column: 1, down: true };
    const draw = () => {
      const best = data.scoreNames.map((_, k) => Math.max(...scored().map((t) => t.scores[k])));
      const columns = [
        { title: "Tracker", value: (t) => t.label, cell: (t) => make("span", {}, swatch(t.color), ` ${t.label}`) },
        ...data.scoreNames.map((title, k) => ({
          title,
          value: (t) => (t.scores ? t.scores[k] : null),
          cell: (t) => make("span", {}, text(t.scores ? t.scores[k] : null),
            ...(t.deviation ? [make("span", { class: "spread" }, ` ± ${t.deviation[k].toFixed(2)}`)] : [])),
          mark: (t) => (t.scores && t.scores[k] === best[k] && scored().length > 1 ? "best" : null),
        })),
        { title: "FPS", value: (t) => t.fps, cell: (t) => (t.fps === null ? "-" : t.fps.toFixed(1)) },
        { title: "Sequences", value: (t) => t.coverage },
      ];
      place.replaceChildren(table(columns, visible(), state));
    };
    section("Scores", place);
    redraw.push(draw);
  }

  function plotFigure(plot) {
    const W = 420, H = 300, left = 44, right = 12, top = 8, bottom = 40;
    const last = plot.thresholds[plot.thresholds.length - 1];
    const x = (value) => left + (value / last) * (W - left - right);
    const y = (value) => top + (1 - value / 100) * (H - top - bottom);
    const lines = make("g"), cursor = make("line", { y1: top, y2: H - bottom, stroke: "#444", visibility: "hidden" });
    const legend = make("ul", { class: "legend" });
    let at = null;
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${plot.title} curves` });
    for (let tick = 0; tick <= 100; tick += 20) {
      svg.append(make("line", { x1: left, x2: W - right, y1: y(tick), y2: y(tick), stroke: "#e1e4e8" }),
        make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    }
    for (let k = 0; k <= 5; k += 1) {
      const value = (last * k) / 5;
      svg.append(make("line", { x1: x(value), x2: x(value), y1: top, y2: H - bottom, stroke: "#eef0f2" }),
        make("text", { x: x(value), y: H - bottom + 16, "text-anchor": k === 5 ? "end" : "middle" },
          String(Number(value.toFixed(2)))));
    }
    svg.append(make("text", { x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }, plot.x), lines, cursor);
    const label = () => {
      const rank = (t) => (at === null ? t.scores[plot.score] : t.curves[plot.name][at]);
      const what = at === null ? data.scoreNames[plot.score] : `at ${plot.thresholds[at]}`;
      legend.replaceChildren(make("li", {}, make("span", {}, what), make("span", {}, "")),
        ...scored().sort((a, b) => rank(b) - rank(a)).map((t) =>
          make("li", {}, swatch(t.color), make("span", {}, t.label), make("span", {}, rank(t).toFixed(2)))));
    };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const value = (((event.clientX - box.left) / box.width) * W - left) / (W - left - right);
      at = Math.round(Math.min(1, Math.max(0, value)) * (plot.thresholds.length - 1));
      cursor.setAttribute("x1", x(plot.thresholds[at]));
      cursor.setAttribute("x2", x(plot.thresholds[at]));
      cursor.setAttribute("visibility", "visible");
      label();
    };
    const leave = () => { at = null; cursor.setAttribute("visibility", "hidden"); label(); };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
    redraw.push(() => {
      lines.replaceChildren(...scored().reverse().map((t) => make("path", {
        d: t.curves[plot.name].map((v, i) => `${i ? "L" : "M"}${x(plot.thresholds[i]).toFixed(1)} ${y(v).toFixed(1)}`)
          .join(""),
        fill: "none", stroke: t.color, "stroke-width": 2, "stroke-dasharray": dash(t.index),
      })));
      label();
    });
    return make("figure", {}, make("figcaption", {}, plot.title), svg, legend);
  }

  function curves() {
    section("Curves", make("div", { class: "grid" }, ...data.plots.map(plotFigure)));
  }

  function radar() {
    const names = Object.keys(data.attributes);
    if (!names.length) return;
    const state = { column: 0, down: false };
    const place = make("div", { class: "scroll" });
    const svg = make("svg", { viewBox: "0 0 640 460", role: "img", "aria-label": "AUC by attribute" });
    redraw.push(() => {
      const trackers = scored();
      const columns = [
        { title: "Attribute", value: (name) => name },
        { title: "Sequences", value: (name) => data.attributes[name], cell: (name) => String(data.attributes[name]) },
        ...trackers.map((t) => ({
          title: t.label,
          value: (name) => t.attributes[name][0],
          mark: (name) => (trackers.length > 1 && t.attributes[name][0] ===
            Math.max(...trackers.map((other) => other.attributes[name][0])) ? "best" : null),
        })),
      ];
      place.replaceChildren(table(columns, names, state));
      if (names.length < 3) return;
      const all = trackers.flatMap((t) => names.map((name) => t.attributes[name][0]));
      const high = Math.ceil(Math.max(10, ...all) / 10) * 10;
      const low = Math.max(0, Math.floor(Math.min(high - 10, ...all) / 10) * 10 - 10);
      const R = 175, cx = 320, cy = 228;
      const spot = (value, k) => {
        const r = (R * (value - low)) / (high - low), angle = (2 * Math.PI * k) / names.length - Math.PI / 2;
        return [cx + r * Math.cos(angle), cy + r * Math.sin(angle)];
      };
      const ring = (value) => names.map((_, k) => spot(value, k).map((v) => v.toFixed(1)).join(",")).join(" ");
      const parts = [];
      for (let value = low + 10; value <= high; value += 10) {
        parts.push(make("polygon", { points: ring(value), fill: "none", stroke: "#d5dae0" }),
          make("text", { x: cx + 4, y: spot(value, 0)[1] + 13 }, String(value)));
      }
      names.forEach((name, k) => {
        const [px, py] = spot(high, k), [tx, ty] = spot(high + (high - low) * 0.07, k);
        const side = Math.abs(tx - cx) < 12 ? "middle" : tx < cx ? "end" : "start";
        parts.push(make("line", { x1: cx, y1: cy, x2: px, y2: py, stroke: "#d5dae0" }),
          make("text", { x: tx, y: ty + 4, "text-anchor": side }, name));
      });
      trackers.forEach((t) => parts.push(make("polygon", {
        points: names.map((name, k) => spot(t.attributes[name][0], k).map((v) => v.toFixed(1)).join(",")).join(" "),
        fill: t.color, "fill-opacity": 0.05, stroke: t.color, "stroke-width": 2, "stroke-dasharray": dash(t.index),
      })));
      svg.replaceChildren(...parts);
    });
    const picture = names.length < 3 ? [] : [make("div", { class: "radar" }, svg)];
    section("AUC by attribute", ...picture, place);
  }

  function sequences() {
    const metric = make("select", {}, ...data.scoreNames.map((name, k) => make("option", { value: k }, name)));
    const against = make("select", {}, make("option", { value: -1 }, "nothing"),
      ...data.trackers.map((t, i) => make("option", { value: i }, t.label)));
    const filter = make("input", { type: "search", placeholder: "part of a name", "aria-label": "sequences" });
    const place = make("div", { class: "tall" });
    const state = { column: 0, down: false };
    const draw = () => {
      const k = Number(metric.value), base = Number(against.value), wanted = filter.value.toLowerCase();
      const value = (t, i) => (t.sequences[i] ? t.sequences[i][k] : null);
      const change = (t, i) => {
        const own = value(t, i), other = base < 0 ? null : value(data.trackers[base], i);
        return base < 0 || t.index === base ? own : own === null || other === null ? null : own - other;
      };
      const present = (i) => visible().filter((t) => value(t, i) !== null);
      const extreme = (i, sign) => present(i).reduce((a, b) => (a && sign * value(a, i) >= sign * value(b, i) ? a : b), null);
      const name = (t) => (t ? t.label : null);
      const columns = [
        { title: "Sequence", value: (i) => data.names[i] },
        ...visible().map((t) => ({
          title: base < 0 || t.index === base ? t.label : `${t.label} − ${data.trackers[base].label}`,
          value: (i) => change(t, i),
          cell: (i) => {
            const v = change(t, i);
            return v !== null && base >= 0 && t.index !== base && v > 0 ? `+${v.toFixed(2)}` : text(v);
          },
          mark: (i) => (base < 0 ? (visible().length > 1 && extreme(i, 1) && value(extreme(i, 1), i) === value(t, i) ? "best" : null)
            : t.index === base ? null : change(t, i) > 0 ? "up" : change(t, i) < 0 ? "down" : null),
        })),
      ];
      if (visible().length > 1) {
        columns.push({ title: "Best", value: (i) => name(extreme(i, 1)), mark: () => "words" },
          { title: "Worst", value: (i) => name(extreme(i, -1)), mark: () => "words" },
          { title: "Best − worst", value: (i) => (present(i).length ? value(extreme(i, 1), i) - value(extreme(i, -1), i) : null) });
      }
      const rows = data.names.map((_, i) => i).filter((i) => data.names[i].toLowerCase().includes(wanted));
      place.replaceChildren(table(columns, rows, state));
    };
    metric.addEventListener("change", draw);
    against.addEventListener("change", draw);
    filter.addEventListener("input", draw);
    section("Sequences", make("div", { class: "controls" }, make("label", {}, "Score", metric),
      make("label", {}, "Difference to", against), make("label", {}, "Show", filter)), place);
    redraw.push(draw);
  }

  function pictures() {
    if (!data.pictures.length) return;
    const legend = make("div", {}, swatch(data.truthColor, "truth"), "annotation ",
      ...data.trackers.filter((t) => t.scores).flatMap((t) => [swatch(t.color), `${t.label} `]));
    const box = section("Worst sequences", make("p", {}, "Lowest mean AUC of all trackers; numbers are overlaps."), legend);
    box.classList.add("shots");
    for (const shot of data.pictures) {
      const at = data.names.indexOf(shot.sequence);
      const means = data.trackers.filter((t) => t.scores).map((t) => t.sequences[at][0]);
      const mean = means.reduce((a, b) => a + b, 0) / means.length;
      box.append(make("h3", {}, `${shot.sequence} (mean AUC ${mean.toFixed(1)})`), make("div", { class: "grid" },
        ...shot.frames.map((frame) => make("figure", {},
          make("img", { src: frame.uri, alt: `frame ${frame.frame} of ${shot.sequence}`, loading: "lazy" }),
          make("figcaption", {}, `frame ${frame.frame}`, ...data.trackers.filter((t) => t.label in frame.overlaps)
            .flatMap((t) => [swatch(t.color), frame.overlaps[t.label].toFixed(2)]))))));
    }
  }

  head();
  scores();
  curves();
  radar();
  sequences();
  pictures();
  redraw.forEach((draw) => draw());
})();
