(() => {
  "use strict";
  const get = (id) => document.getElementById(id);
  const all = (from, what) => Array.from(from.querySelectorAll(what));
  const form = get("filter");
  const words = get("words");
  const component = get("component");
  const kinds = all(form, "input[name=kind]");

  const sections = all(document, "section[data-kind]").map((section) => ({
    element: section,
    kind: section.dataset.kind,
    rules: all(section, "article").map((rule) => ({
      element: rule,
      about: all(rule, "header, .description, .solution").map((e) => e.textContent).join(" ").toLowerCase(),
      folded: all(rule, "details.more"),
      findings: all(rule, "li[data-c]"),
    })),
  }));
  const total = sections.reduce((sum, s) => sum + s.rules.reduce((n, r) => n + r.findings.length, 0), 0);
  const texts = new WeakMap();
  const textOf = (finding) => {
    if (!texts.has(finding)) texts.set(finding, finding.textContent.toLowerCase());
    return texts.get(finding);
  };

  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shownKinds = new Set(kinds.filter((k) => k.checked).map((k) => k.value));
    const narrowed = wanted.length > 0 || component.value !== "";
    let count = 0;
    for (const section of sections) {
      let inSection = 0;
      for (const rule of section.rules) {
        const missing = wanted.filter((word) => !rule.about.includes(word));
        let inRule = 0;
        for (const finding of rule.findings) {
          const shown =
            shownKinds.has(section.kind) &&
            (component.value === "" || finding.dataset.c === component.value) &&
            (missing.length === 0 || missing.every((word) => textOf(finding).includes(word)));
          finding.hidden = !shown;
          if (shown) inRule += 1;
        }
        for (const folded of rule.folded) {
          folded.open = narrowed;
          folded.hidden = !folded.querySelector("li:not([hidden])");
        }
        rule.element.hidden = inRule === 0;
        inSection += inRule;
      }
      section.element.hidden = inSection === 0;
      count += inSection;
    }
    get("status").textContent =
      count === total && total === 1
        ? "The one finding is shown."
        : count === total
        ? `All ${total.toLocaleString("en")} findings are shown.`
        : `${count.toLocaleString("en")} of ${total.toLocaleString("en")} findings are shown.`;
  };

  const remember = () => {
    const state = new URLSearchParams();
    if (words.value) state.set("words", words.value);
    if (component.value) state.set("component", component.selectedOptions[0].textContent);
    const hidden = kinds.filter((k) => !k.checked).map((k) => k.value);
    if (hidden.length) state.set("hide", hidden.join(","));
    const text = state.toString();
    history.replaceState(null, "", text ? `#filter?${text}` : location.pathname + location.search);
  };

  const recall = () => {
    if (!location.hash.startsWith("#filter?")) return false;
    const state = new URLSearchParams(location.hash.slice("#filter?".length));
    const hidden = (state.get("hide") || "").split(",");
    const named = state.get("component");
    words.value = state.get("words") || "";
    component.value = "";
    for (const option of component.options) {
      if (named !== null && option.value !== "" && option.textContent === named) option.selected = true;
    }
    for (const kind of kinds) kind.checked = !hidden.includes(kind.value);
    return true;
  };

  let waiting = 0;
  const later = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { apply(); remember(); }, 120);
  };
  form.addEventListener("input", later);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { apply(); remember(); }));
  addEventListener("hashchange", () => {
    if (recall()) { apply(); form.scrollIntoView(); component.focus({ preventScroll: true }); }
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all(document, "details:not([open])");
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

  const theme = get("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.style.colorScheme = dark ? "light" : "dark";
  });

  form.hidden = total === 0;
  recall();
  apply();
})();
