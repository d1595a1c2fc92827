"use strict";
// Brings an open page up to date: the server says when to look again, and the page that it then makes is taken over where it
// differs. Elements stay the same ones, so that focus, what is typed and what is unfolded stay, too.
(() => {
  const root = document.getElementById("live");
  const made = document.getElementById("made");
  const pulse = document.getElementById("pulse");
  const pace = 250; // ms between two looks, at least
  const slow = 10000; // ms between two looks while there is no stream
  let stream, timer, looking = false, again = false;

  const say = (text) => { if (pulse.textContent !== text) pulse.textContent = text; };
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  async function look() {
    if (looking) { again = true; return; }
    looking = true;
    do {
      again = false;
      const start = performance.now();
      await take();
      await wait(Math.max(pace, 4 * (performance.now() - start))); // a server that is slow is asked less
    } while (again && !document.hidden);
    looking = false;
  }

  async function take() {
    let answer, text;
    try {
      answer = await fetch(root.dataset.path, { headers: { "Greenroom-Updating": "1" }, redirect: "manual", cache: "no-store" });
      text = await answer.text();
    } catch {
      return say("The server can't be reached; tried again.");
    }
    if (answer.type === "opaqueredirect") { end(); return say("You are signed out. Load the page again."); }
    const page = new DOMParser().parseFromString(text, "text/html");
    const next = page.getElementById("live");
    if (!answer.ok || !next) return say(answer.status === 404 ? "It is no more." : "The server can't tell just now; tried again.");
    const focused = document.activeElement;
    merge(root, next);
    merge(made, page.getElementById("made"));
    if (focused !== document.activeElement) (focused.isConnected ? focused : document.getElementById("main")).focus({ preventScroll: true });
    say("Updates by itself.");
  }

  function merge(old, next) {
    if (old.isEqualNode(next)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) { old.data = next.data; return; }
    const kept = old.nodeName === "DETAILS" ? "open" : "";
    for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== kept) old.removeAttribute(name);
    for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    mergeChildren(old, next);
  }

  const key = (node) => node.dataset?.key ?? "";
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

  function mergeChildren(old, next) {
    const keyed = new Map([...old.children].filter(key).map((node) => [key(node), node]));
    const wanted = new Set([...next.children].filter(key).map(key));
    let at = old.firstChild;
    const skip = () => { // what is not wanted any more goes first, so that what is behind it need not move
      while (at && key(at) && !wanted.has(key(at))) { const gone = at; at = at.nextSibling; gone.remove(); }
    };
    for (const node of [...next.childNodes]) {
      skip();
      const same = key(node) ? keyed.get(key(node)) : at && alike(at, node) ? at : undefined;
      if (!same || !alike(same, node)) { old.insertBefore(document.importNode(node, true), at); continue; }
      if (same === at) at = at.nextSibling; else old.insertBefore(same, at);
      merge(same, node);
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  function begin() {
    clearTimeout(timer);
    if (document.hidden || stream) return;
    stream = new EventSource("/live?" + root.dataset.about);
    stream.addEventListener("open", look); // something may have changed before
    stream.addEventListener("changed", look);
    stream.addEventListener("error", () => {
      if (stream?.readyState !== EventSource.CLOSED) return say("The connection is cut; tried again.");
      stream = undefined; // refused: the clock must do
      timer = setTimeout(begin, slow);
      look();
    });
  }

  function end() {
    clearTimeout(timer);
    stream?.close();
    stream = undefined;
  }

  document.documentElement.classList.add("live");
  document.addEventListener("visibilitychange", () => document.hidden ? end() : begin()); // browsers allow few connections
  addEventListener("pagehide", end);
  addEventListener("pageshow", begin);
})();
