(() => {
  const faults = [];
  const fault = (text) => { if (!faults.includes(text)) faults.push(text); };
  const told = (e) => `<${e.nodeName.toLowerCase()}${e.id ? "#" + e.id : ""}${e.className && e.className.baseVal === undefined ? "." + e.className : ""}> ${(e.textContent || "").trim().slice(0, 40)}`;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => { const n = all(selector).length; if (n !== 1) fault(`there are ${n} of ${selector}, want 1`); };
  const named = (e) => (e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") && document.getElementById(e.getAttribute("aria-labelledby"))?.textContent) || e.textContent || "").trim();
  const folded = all("details:not([open])"); // what is in them counts, too
  for (const e of folded) e.open = true;

  // Structure.
  for (const landmark of ["main", "body > header", "body > footer", "h1", "nav"]) one(landmark);
  if (!document.documentElement.lang) fault("the page has no language");
  let level = 0;
  for (const h of all("h1, h2, h3, h4, h5, h6")) {
    const now = Number(h.nodeName[1]);
    if (now > level + 1) fault(`${told(h)} skips a level`);
    level = now;
  }
  const ids = all("[id]").map((e) => e.id);
  for (const id of ids) if (ids.filter((o) => o === id).length > 1) fault(`the id ${id} is there twice`);

  // Names.
  for (const e of all("a, button, summary")) if (!named(e)) fault(`${told(e)} has no name`);
  for (const e of all("input:not([type=hidden], [hidden]), select, textarea")) if (!e.labels?.length && !e.getAttribute("aria-label")) fault(`${told(e)} has no label`);
  for (const e of all("img")) if (!e.hasAttribute("alt")) fault(`${told(e)} has no alt`);
  for (const e of all("svg")) if (e.getAttribute("aria-hidden") !== "true" && !named(e)) fault(`${told(e)} has no name`);
  for (const e of all("section, [role=region]")) if (!named(e) || !(e.hasAttribute("aria-label") || e.hasAttribute("aria-labelledby"))) fault(`${told(e)} is a region without a name`);
  for (const e of all("th")) if (!e.scope) fault(`${told(e)} has no scope`);
  for (const e of all("[aria-labelledby], [aria-describedby]")) {
    for (const id of `${e.getAttribute("aria-labelledby") ?? ""} ${e.getAttribute("aria-describedby") ?? ""}`.trim().split(/\s+/)) if (!document.getElementById(id)) fault(`${told(e)} refers to ${id}, which is not there`);
  }

  // Layout: nothing is wider than the window but what scrolls by itself.
  const page = document.scrollingElement;
  const edge = (e) => e.parentElement.closest(".card")?.getBoundingClientRect().right ?? page.clientWidth;
  for (const e of all("body *")) {
    const past = e.getBoundingClientRect().right - edge(e);
    if (past > 1 && !e.closest(".scroll, pre, .skip, .unseen, svg")) fault(`${told(e)} stands out by ${past.toFixed()} px`);
  }

  // The theme, and contrast by WCAG 2.2: 4.5 for text, 3 for large text.
  const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const linear = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ({ r, g, b }) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0.99) return c; }
    return { r: 255, g: 255, b: 255 };
  };
  if (matchMedia("(prefers-color-scheme: dark)").matches !== (luminance(ground(document.body)) < 0.2)) fault("the theme is not the one that is asked for");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest(".skip, .unseen, script, style, noscript, option")) continue;
    const style = getComputedStyle(e);
    const [light, dark] = [luminance(parse(style.color)), luminance(ground(e))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < least) fault(`${told(e)} has a contrast of ${ratio.toFixed(2)}, want ${least}`);
  }
  for (const e of folded) e.open = false;
  return faults;
})()
