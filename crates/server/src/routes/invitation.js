"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const form = at("form");
  const say = (text, how) => {
    at("said").textContent = text;
    at("said").className = how;
    at("said").hidden = false;
  };
  // A link pasted into the same tab changes the fragment only, also where there was none.
  addEventListener("hashchange", () => location.reload());
  // The fragment never leaves the browser but in the body of the request below, and does not stay in the address or the history.
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (!token) {
    say("The link is not whole: the part behind the # is missing. Open it as it was sent to you.", "wrong");
    return;
  }
  form.hidden = false;
  at("password").focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const password = at("password").value;
    if (password !== at("again").value) {
      say("The two passwords differ.", "wrong");
      return;
    }
    at("send").disabled = true;
    try {
      // Relative, so that it works below a path of the proxy too.
      const answer = await fetch("api/v1/auth/invitations/accept", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ token, password }),
        credentials: "omit",
        cache: "no-store",
      });
      if (answer.ok) {
        form.remove();
        say("Your password is set. You can log in with it now.", "done");
        return;
      }
      const problem = await answer.json().catch(() => ({}));
      say(problem.detail || problem.title || `The service answered ${answer.status}; try again later.`, "wrong");
    } catch {
      say("The service cannot be reached. Nothing was changed as far as this page knows; try again.", "wrong");
    }
    at("send").disabled = false;
  });
})();
