"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const form = at("form");
  const say = (text, how) => {
    at("said").textContent = text;
    at("said").className = how;
    at("said").hidden = false;
  };
  // The fragment never leaves the browser but in the body of the request below.
  const token = location.hash.slice(1);
  if (!token) {
    say("The link is not whole: the part behind the # is missing. Open it as it was sent to you.", "wrong");
    return;
  }
  // Another link pasted into the same tab changes the fragment only.
  addEventListener("hashchange", () => location.reload());
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
        // The token is used up; it need not stay in the history.
        history.replaceState(null, "", location.pathname);
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
