"use strict";
// The page is complete without this script. It adds choices: values under the pointer, order, filters.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);

  function element(name, className, text = "") {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function format(value, unit) {
    const large = Math.abs(value) >= 1000;
    const text = large ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
    return text + unit;
  }

  // ---- Colors: the choice is kept for the next page, if the browser stores anything for files.
  function stored(action) {
    try { return action(window.localStorage); } catch { return null; }
  }
  const scheme = stored((storage) => storage.getItem("resnet_jax.scheme"));
  for (const input of all("input[name=scheme]")) {
    if (input.value === scheme) input.checked = true;
    input.addEventListener("change", () => {
      stored((storage) => storage.setItem("resnet_jax.scheme", input.value));
    });
  }

  // ---- Charts
  const SIDE = 1000;

  // The same averages as `charts.smoothed` computes.
  function smoothed(values, weight) {
    let total = 0, scale = 0;
    return values.map((value) => {
      total = weight * total + (1 - weight) * value;
      scale = weight * scale + (1 - weight);
      return total / scale;
    });
  }

  function nearest(sorted, value) {
    let low = 0, high = sorted.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
  }

  class Chart {
    constructor(figure) {
      this.area = one(".area", figure);
      this.data = JSON.parse(one("script", figure).textContent);
      this.lines = all(".line", figure);
      this.marks = [];
      this.title = one("h3", figure).textContent;
    }

    // The share of an axis that lies before a value, and the value on the horizontal axis at a share.
    place(value, axis) {
      const scale = axis === "x" && this.data.log_x ? Math.log : (number) => number;
      const [low, high] = this.data[axis].map(scale);
      return (scale(value) - low) / (high - low);
    }

    valueAt(share) {
      const [low, high] = this.data.x;
      return this.data.log_x ? low * (high / low) ** share : low + share * (high - low);
    }

    smooth(weight) {
      this.data.series.forEach((series, i) => {
        if (!series.smoothed) return;
        series.smooth = smoothed(series.y, weight);
        const points = series.smooth.map((y, k) => {
          const left = SIDE * this.place(series.x[k], "x"), top = SIDE * (1 - this.place(y, "y"));
          return `${left.toFixed(1)} ${top.toFixed(1)}`;
        });
        one(".smooth", this.lines[i]).setAttribute("d", `M${points.join("L")}`);
      });
    }

    // The values of all lines that are shown, nearest to a position on the horizontal axis.
    values(x) {
      return this.data.series.flatMap((series, i) => {
        if (this.lines[i].style.display === "none") return [];
        const k = nearest(series.x, x);
        const y = series.smooth ? series.smooth[k] : series.y[k];
        const raw = series.smooth ? ` (raw ${format(series.y[k], this.data.unit)})` : "";
        const elsewhere = series.x[k] === x ? "" : ` at ${format(series.x[k], "")}`;
        const text = format(y, this.data.unit) + raw + elsewhere;
        return [{ name: series.name, color: this.lines[i].classList[1], x: series.x[k], y, text }];
      });
    }

    show(x) {
      this.hide();
      const left = 100 * this.place(x, "x");
      const cursor = element("div", "cursor"), tip = element("div", left > 50 ? "tip left" : "tip");
      cursor.style.left = tip.style.left = `${left}%`;
      tip.append(element("b", "", `${this.data.label} ${format(x, "")}`));
      this.marks = [cursor, tip];
      for (const value of this.values(x)) {
        const point = element("div", `point ${value.color}`), row = element("p", value.color);
        point.style.left = `${100 * this.place(value.x, "x")}%`;
        point.style.top = `${100 * (1 - this.place(value.y, "y"))}%`;
        row.append(element("span", "key"), element("span", "", value.name), element("span", "", value.text));
        tip.append(row);
        this.marks.push(point);
      }
      this.area.append(...this.marks);
    }

    hide() {
      this.marks.forEach((mark) => mark.remove());
      this.marks = [];
    }
  }

  // The charts of a section share their horizontal axis, so they show the same step.
  for (const group of all(".charts")) {
    const charts = all(".chart", group).map((figure) => new Chart(figure));
    const section = group.parentElement;
    const xs = [...new Set(charts.flatMap((c) => c.data.series.flatMap((s) => s.x)))].sort((a, b) => a - b);
    const show = (x) => charts.forEach((chart) => chart.show(x));
    const hide = () => charts.forEach((chart) => chart.hide());
    for (const chart of charts) {
      chart.area.addEventListener("pointermove", (event) => {
        const box = chart.area.getBoundingClientRect();
        show(xs[nearest(xs, chart.valueAt((event.clientX - box.left) / box.width))]);
      });
      chart.area.addEventListener("pointerleave", hide);
    }
    const inspect = one("#inspect", section), strength = one("#smoothing", section);
    if (inspect) {
      inspect.max = inspect.value = xs.length - 1;
      const say = () => {
        const x = xs[inspect.value];
        inspect.nextElementSibling.textContent = format(x, "");
        const parts = charts.map((chart) => {
          return `${chart.title}: ${chart.values(x).map((v) => `${v.name} ${v.text}`).join(", ")}`;
        });
        inspect.setAttribute("aria-valuetext", `${format(x, "")}. ${parts.join(". ")}`);
        return x;
      };
      inspect.addEventListener("input", () => show(say()));
      inspect.addEventListener("blur", hide);
      if (strength) {
        strength.addEventListener("input", () => {
          strength.nextElementSibling.textContent = strength.value;
          charts.forEach((chart) => chart.smooth(Number(strength.value)));
        });
        charts.forEach((chart) => chart.smooth(Number(strength.value)));
      }
      say();
    }
    // A line is hidden by the check box of its run.
    for (const box of all("input[data-line]")) {
      box.addEventListener("change", () => {
        for (const chart of charts) {
          chart.data.series.forEach((series, i) => {
            if (series.name === box.dataset.line) chart.lines[i].style.display = box.checked ? "" : "none";
          });
        }
      });
    }
  }

  // ---- Tables: a click on a heading sorts, and a second click reverses the order.
  function key(row, column) {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
    const value = Number(text);
    return text !== "" && Number.isFinite(value) ? value : text;
  }

  function compare(a, b, sign) {
    // Empty cells come last, whatever the order.
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  }

  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = element("button", "");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = before === first ? other : first;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => compare(a, b, order === "ascending" ? 1 : -1));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  for (const input of all("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    const rows = [...table.tBodies[0].rows], count = one(`output[for=${input.id}]`);
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      rows.forEach((row) => { row.hidden = !row.dataset.name.toLowerCase().includes(wanted); });
      const left = rows.filter((row) => !row.hidden).length;
      const total = `${rows.length} ${table.dataset.unit}`;
      count.textContent = left === rows.length ? total : `${left} of ${total}`;
    });
  }

  // ---- Confusion matrix: its rows and columns take the same order.
  const matrix = one(".matrix");
  if (matrix) {
    const body = matrix.tBodies[0], rows = [...body.rows], head = matrix.tHead.rows[0];
    const columns = [head, ...rows].map((row) => [...row.cells]);
    const orders = {
      index: () => 0,
      name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }),
      size: (a, b) => b.dataset.size - a.dataset.size,
      error: (a, b) => b.dataset.error - a.dataset.error,
    };
    for (const input of all("input[name=order]")) {
      input.addEventListener("change", () => {
        const order = rows.map((_, i) => i).sort((i, j) => orders[input.value](rows[i], rows[j]));
        [head, ...rows].forEach((row, r) => row.append(columns[r][0], ...order.map((i) => columns[r][i + 1])));
        body.append(...order.map((i) => rows[i]));
      });
    }
  }

  // ---- The images behind a cell: the links work by themselves; this marks the open one.
  function mark() {
    all("a[aria-current]").forEach((link) => link.removeAttribute("aria-current"));
    if (location.hash.startsWith("#cell-")) {
      all(`a[href="${location.hash}"]`).forEach((link) => link.setAttribute("aria-current", "true"));
    }
  }
  window.addEventListener("hashchange", mark);
  mark();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && one(".cell:target")) {
      const link = one(`a[href="${location.hash}"]`);
      location.hash = "confusions";
      link?.focus();
    }
  });
})();
