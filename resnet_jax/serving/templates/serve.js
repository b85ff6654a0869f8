"use strict";
// Sends an image to the server, and shows its classes and what speaks for them.
(() => {
  const one = (id) => document.getElementById(id);
  const file = one("file"), drop = one("drop"), plain = one("plain"), heat = one("heat");
  const result = one("result"), showHeat = one("show-heat");
  const explains = showHeat !== null;
  let image = null, running = null;

  document.querySelectorAll("[data-origin]").forEach((span) => { span.textContent = location.origin; });

  function say(status, problem = "") {
    one("status").textContent = status;
    one("problem").textContent = problem;
  }

  function element(name, className, text = "") {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function percent(share) {
    const value = 100 * share;
    return value > 0 && value < 0.05 ? "< 0.1 %" : `${value.toFixed(1)} %`;
  }

  // The rows stay where they are when another class is explained, so that the focus does too.
  function showClasses(predictions, explained) {
    const rows = predictions.map((prediction) => {
      const row = element(explains ? "button" : "div", explains ? "" : "plain-row");
      const track = element("span", "track"), bar = element("span", "");
      bar.style.width = `${100 * prediction.probability}%`;
      track.append(bar);
      row.append(
        element("span", "", prediction.class_name),
        element("span", "share", percent(prediction.probability)),
        track,
      );
      if (explains) {
        row.type = "button";
        row.dataset.index = prediction.class_index;
        row.addEventListener("click", () => ask(prediction.class_index));
      }
      const item = element("li", "");
      item.append(row);
      return item;
    });
    one("classes").replaceChildren(...rows);
  }

  function mark(index) {
    for (const row of document.querySelectorAll(".classes button")) {
      row.setAttribute("aria-pressed", String(Number(row.dataset.index) === index));
    }
  }

  function showImage() {
    const hot = explains && showHeat.checked && heat.hasAttribute("src");
    heat.hidden = !hot;
    plain.hidden = hot;
  }

  // Ask for the classes of the image, or for what speaks for one of them.
  async function ask(index = null) {
    running?.abort();
    const asked = running = new AbortController();
    const query = new URLSearchParams({ top: 5 });
    if (index !== null) query.set("target", index);
    const headers = one("token")?.value ? { Authorization: `Bearer ${one("token").value}` } : {};
    result.setAttribute("aria-busy", "true");
    say("Asking the network …");
    try {
      const path = explains ? "explain" : "predict";
      const response = await fetch(`${path}?${query}`, {
        method: "POST", body: image, headers, signal: asked.signal,
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error);
      const predictions = explains ? answer.predictions : answer.images[0].predictions;
      if (index === null) showClasses(predictions);
      let told = `The most probable class is ${predictions[0].class_name}, ${percent(predictions[0].probability)}.`;
      if (explains) {
        heat.src = answer.overlay;
        heat.alt = `The chosen image. Colors show what speaks for ${answer.explained.class_name}.`;
        mark(answer.explained.class_index);
        if (index !== null) told = `The colors show what speaks for ${answer.explained.class_name}.`;
        one("hint").hidden = false;
      }
      say(told);
    } catch (error) {
      if (asked.signal.aborted) return;
      // A browser says no more than that the connection failed.
      say("", error instanceof TypeError ? "The server cannot be reached." : `The server says: ${error.message}`);
    } finally {
      if (running === asked) result.setAttribute("aria-busy", "false");
      showImage();
    }
  }

  function take(chosen) {
    if (!chosen) return;
    URL.revokeObjectURL(plain.src);
    image = chosen;
    plain.src = URL.createObjectURL(chosen);
    heat.removeAttribute("src");
    one("classes").replaceChildren();
    one("name").textContent = chosen.name ?? "";
    one("figure").hidden = false;
    showImage();
    ask();
  }

  file.addEventListener("change", () => {
    take(file.files[0]);
    file.value = "";  // The same file can be chosen again.
  });
  showHeat?.addEventListener("change", showImage);
  one("token")?.addEventListener("change", () => { if (image) ask(); });
  for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", type === "dragenter" || type === "dragover");
      if (type === "drop") take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
})();
