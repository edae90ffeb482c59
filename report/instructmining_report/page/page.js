"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const text = (element, value) => { if (element) element.textContent = value; };

  // As the numbers of the page are written: four significant digits, whole numbers in full.
  const number = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    const digits = Number.isInteger(value) || size === 0 ? 0 : Math.max(0, 3 - Math.floor(Math.log10(size)));
    const shown = size !== 0 && (size < 1e-4 || size >= 1e15)
      ? value.toExponential(3)
      : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return shown.replace("-", "−");
  };

  const theme = byId("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => text(theme, isDark() ? "Light" : "Dark");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  dark.addEventListener("change", nameTheme);
  nameTheme();

  const links = [...document.querySelectorAll(".contents a")];
  const inSight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main > section").forEach((section) => inSight.observe(section));

  const cutData = byId("cuts");
  if (cutData) {
    const cuts = JSON.parse(cutData.textContent);
    const slider = byId("share");
    const rows = [...document.querySelectorAll("#cut-means tbody tr")];
    const groups = [...document.querySelectorAll("#cut-groups tbody tr")];
    const last = cuts.rows.length - 1;
    const show = () => {
      const share = Number(slider.value);
      const at = share - 1;
      text(byId("share-out"), `${share} %`);
      slider.setAttribute("aria-valuetext", `${share} percent, ${number(cuts.rows[at])} rows`);
      text(byId("cut-rows"), `${number(cuts.rows[at])} of ${number(cuts.candidates)}`);
      if (cuts.tokens) text(byId("cut-tokens"), `${number(cuts.tokens[at])} of ${number(cuts.tokens[last])}`);
      text(byId("cut-border"), number(cuts.border[at]));
      rows.forEach((row, place) => {
        const kept = cuts.means[place][at];
        const all = cuts.means[place][last];
        const deviation = cuts.deviations[place][at];
        text(row.cells[2], number(kept));
        const moved = kept === null || all === null || !deviation ? null : (kept - all) / deviation;
        text(row.cells[3], moved === null ? "–" : `${moved < 0 ? "−" : "+"}${Math.abs(moved).toFixed(2)}`);
      });
      groups.forEach((row, place) => {
        const kept = cuts.groups[place][at];
        const all = cuts.groups[place][last];
        const part = all ? (100 * kept) / all : 0;
        text(row.cells[2], number(kept));
        text(row.cells[3], all ? `${part.toFixed(0)} %` : "–");
        row.querySelector(".part").setAttribute("width", part.toFixed(1));
      });
    };
    document.querySelectorAll("#cut .js").forEach((cell) => { cell.hidden = false; });
    byId("slider").hidden = false;
    byId("cut-table").open = false;
    slider.addEventListener("input", show);
    show();
  }

  const valueOf = (row, place) => {
    const cell = row.cells[place];
    const given = cell.dataset.value ?? cell.textContent.trim().replace(/,/g, "").replace("−", "-").replace(/ %$/, "");
    const value = Number(given);
    return given === "" || given === "–" ? null : Number.isNaN(value) ? given.toLowerCase() : value;
  };
  const compare = (one, other) => {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en");
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const sorted = [...body.rows].sort((one, other) => {
          const [a, b] = [valueOf(one, place), valueOf(other, place)];
          return a === null || b === null ? compare(a, b) : (down ? -1 : 1) * compare(a, b);
        });
        body.append(...sorted);
        if (table.id === "example-table") {
          const talks = document.querySelector(".talks");
          sorted.forEach((row) => talks.append(byId(`example-${row.dataset.example}`)));
        }
      });
    });
  });

  const search = byId("search");
  if (search) {
    byId("tools").hidden = false;
    const rows = [...document.querySelectorAll("#example-table tbody tr")];
    const talks = rows.map((row) => byId(`example-${row.dataset.example}`));
    const words = talks.map((talk) => talk.textContent.toLowerCase());
    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      let found = 0;
      rows.forEach((row, place) => {
        const here = words[place].includes(wanted);
        row.hidden = !here;
        talks[place].hidden = !here;
        found += here;
      });
      text(byId("found"), wanted ? `${found} of ${rows.length} found` : "");
    };
    search.addEventListener("input", filter);
  }

  const openTarget = () => {
    const target = window.location.hash.length > 1 ? byId(window.location.hash.slice(1)) : null;
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  window.addEventListener("hashchange", openTarget);
  openTarget();

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
})();
