// What the pages need beyond HTML: Airflow's theme and time zone, ways out of the frame, copying, and news while a run goes on.
(() => {
  "use strict";

  const root = document.documentElement;
  // The Airflow UI, when the page is shown in its frame.
  const airflow = (() => {
    try {
      return window.parent !== window && window.parent.document ? window.parent : null;
    } catch {
      return null;
    }
  })();

  function followTheme() {
    const classes = airflow?.document.documentElement.classList;
    let theme = classes?.contains("dark") ? "dark" : classes?.contains("light") ? "light" : null;
    try {
      theme ??= localStorage.getItem("theme");
    } catch {
      // Without storage the system's preference holds.
    }
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  followTheme();
  if (airflow) {
    new MutationObserver(followTheme).observe(airflow.document.documentElement, { attributeFilter: ["class"] });
  }

  function timeZone() {
    try {
      const chosen = JSON.parse(localStorage.getItem("timezone") ?? "null");
      return typeof chosen === "string" ? chosen : undefined;
    } catch {
      return undefined;
    }
  }

  function showTimes() {
    const zone = timeZone();
    if (!zone) return;
    let format;
    try {
      format = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "medium" });
    } catch {
      return;
    }
    for (const time of document.querySelectorAll("time")) {
      time.title = time.textContent;
      time.textContent = format.format(new Date(time.dateTime));
    }
  }

  function showButtons() {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("button.copy")) button.hidden = false;
  }

  function goToAnchor() {
    const hash = airflow?.location.hash || location.hash;
    if (hash.length < 2) return;
    const target = document.getElementById(decodeURIComponent(hash.slice(1)));
    target?.scrollIntoView();
    target?.focus({ preventScroll: true });
  }

  // The frame's sandbox lets no link out; the page around it may follow it.
  function followOutside(event) {
    const link = event.target.closest?.("a[target], a[data-view]");
    if (!link || !airflow || event.defaultPrevented || event.button !== 0) return;
    event.preventDefault();
    const outside = airflow.document.createElement("a");
    outside.href = link.href;
    if (link.dataset.view) {
      // A page of ours that has a place of its own in the Airflow UI.
      const base = new URL(airflow.document.baseURI);
      outside.href = new URL(`plugin/${link.dataset.view}`, base).href;
    }
    if (link.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey) {
      outside.target = "_blank";
      outside.rel = "noopener noreferrer";
    }
    airflow.document.body.append(outside);
    outside.click();
    outside.remove();
  }

  async function copy(event) {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  }

  function say(text) {
    const notice = document.getElementById("notice");
    if (!notice) return;
    notice.textContent = text;
    notice.hidden = !text;
  }

  // The end of a log says most; whoever reads further up stays there.
  function showLogEnds(places = new Map()) {
    for (const log of document.querySelectorAll("details > pre")) {
      log.scrollTop = places.get(log.closest("[id]")?.id) ?? log.scrollHeight;
    }
  }

  function placesInLogs() {
    const further = [...document.querySelectorAll("details > pre")].filter(
      (log) => log.scrollTop + log.clientHeight < log.scrollHeight - 8,
    );
    return new Map(further.map((log) => [log.closest("[id]")?.id, log.scrollTop]));
  }

  // Puts the new content in place without moving the reader: scroll, focus and opened parts stay.
  function replaceMain(next) {
    const main = document.getElementById("main");
    const places = placesInLogs();
    const focused = document.activeElement?.closest("[id]")?.id;
    const closed = [...main.querySelectorAll("details:not([open])")].map((part) => part.closest("[id]")?.id);
    for (const part of next.querySelectorAll("details")) {
      if (closed.includes(part.closest("[id]")?.id)) part.open = false;
    }
    main.replaceWith(next);
    showTimes();
    showButtons();
    showLogEnds(places);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  async function refresh() {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const next = document.adoptNode(page.getElementById("main"));
          if (next.innerHTML !== shown) {
            shown = next.innerHTML;
            replaceMain(next);
          }
          say("");
        } else {
          say(answer.status === 401 ? "You are logged out. Log in to Airflow to see what goes on." : `Airflow answered ${answer.status}.`);
        }
      } catch {
        say("Airflow does not answer. What you see is from before.");
      }
    }
    keepFresh();
  }

  let shown = "";
  function keepFresh() {
    const seconds = Number(document.getElementById("main").dataset.refresh);
    if (seconds) setTimeout(refresh, 1000 * seconds);
  }

  document.addEventListener("click", followOutside);
  document.addEventListener("click", copy);
  document.addEventListener("DOMContentLoaded", () => {
    showTimes();
    showButtons();
    showLogEnds();
    goToAnchor();
    keepFresh();
  });
  airflow?.addEventListener("hashchange", goToAnchor);
})();
